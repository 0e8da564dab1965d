"""Batches of prepared slices for Keras, channels last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kits_ml.data.neighbours import neighbour_positions
from kits_ml.data.preprocessing import network_input
from kits_ml.data.slice_cache import open_cache
from kits_ml.data.slices import PIXEL_COLUMNS, PreparedStore, pixels_per_class
from kits_ml.errors import InputError
from kits_ml.labels import KIDNEY, TUMOUR
from kits_ml.training.ahead import Ahead


@dataclass(frozen=True, kw_only=True)
class SliceArrays:
    """Some slices of decoded cases. What is not asked for may stay on the disk: the arrays may be memory maps.

    Every method counts among the chosen slices, `0` to `len(slices) - 1`.

    Attributes:
        grey: `(stored, image_size, image_size)` uint8 grey values of whole cases, also of ones that are not chosen.
        labels: `(stored, image_size, image_size)` uint8, values 0, 1, 2.
        cases: the case of each stored slice, in runs: all slices of a case stand together.
        chosen: `(slices,)` where the chosen slices stand among the stored, ascending. None: all.
        pixels: `(stored, classes)` pixels of each class. None: counted when asked for, which reads all labels.
    """

    grey: np.ndarray
    labels: np.ndarray
    cases: tuple[str, ...]
    chosen: np.ndarray | None = None
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def ranges(self) -> dict[str, slice]:
        """Where each case's slices stand."""
        return _runs([self.cases[row] for row in self._rows])

    def labels_of(self, positions: np.ndarray) -> np.ndarray:
        """The labels of some slices, `(batch, rows, columns)` uint8; a copy."""
        return self.labels[self._rows[positions]]

    def with_neighbours(self, positions: np.ndarray, num_slices: int) -> np.ndarray:
        """What a network sees of some slices: `(batch, rows, columns, num_slices)` grey values, uint8.

        Neighbours are of the same case, chosen or not; beyond its ends the end slice again.
        """
        rows = self._rows[positions]
        first, last = (ends[rows] for ends in self._ends)
        around = neighbour_positions(rows, first=first, last=last, num_slices=num_slices)
        return np.moveaxis(self.grey[around], 1, -1)  # from (batch, num_slices, rows, columns)

    @functools.cached_property
    def pixels_per_class(self) -> np.ndarray:
        """`(slices, classes)` pixels that show each class."""
        if self.pixels is not None:
            return self.pixels[self._rows]
        return np.array(pixels_per_class(self.labels[self._rows]))

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        return np.arange(len(self.cases)) if self.chosen is None else np.asarray(self.chosen)

    @functools.cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last slice of each stored slice's case, `(stored,)` each."""
        runs = _runs(self.cases).values()
        lengths = [one.stop - one.start for one in runs]
        return np.repeat([one.start for one in runs], lengths), np.repeat([one.stop - 1 for one in runs], lengths)


def _runs(names: Sequence[str]) -> dict[str, slice]:
    found: dict[str, slice] = {}
    for number, name in enumerate(names):
        first = found[name].start if name in found else number
        found[name] = slice(first, number + 1)
    return found


def read_slices(store: PreparedStore, names: Sequence[str], *, margin_mm: float | None = None) -> SliceArrays:
    """The slices of some cases, memory-mapped; the first call decodes the whole store, see `slice_cache`.

    Args:
        store: the prepared slices.
        names: of cases.
        margin_mm: for training only: leave out slices further than this from the kidneys. None: whole cases.

    Raises:
        InputError: an unknown case, a margin and not one slice that shows a kidney, a store that is damaged, or no
            room for the decoded slices.
    """
    positions = store.positions_of(names, margin_mm=margin_mm)
    if margin_mm is not None and not positions:
        raise InputError(
            f"training_margin_mm: found {margin_mm:g}, but none of {len(names)} cases shows a kidney; leave it out"
        )
    grey, labels = open_cache(store)
    return SliceArrays(
        grey=grey,
        labels=labels,
        cases=tuple(row["case"] for row in store.index),
        chosen=np.array(positions, np.int64),
        pixels=np.array([[row[column] for column in PIXEL_COLUMNS] for row in store.index]),
    )


class ShuffledBatches(keras.utils.PyDataset):
    """Endless passes over the slices, each in a new order, cut into epochs of a fixed number of steps.

    Draw number `k` of the training is the same for the same seed, whatever the number of loader threads and wherever
    the training began.

    Args:
        slices: what to draw from.
        batch_size: slices a batch.
        steps_per_epoch: batches an epoch.
        seed: of the order.
        input_slices: slices the network sees at once.
        label_sizes: rows of each output of a network with deep supervision; the labels are then several, taken to
            each size by nearest neighbour. Without it, the labels as they are.
        augment: changes images and labels of a batch, called as `Augmentation` is. Without it, they stay.
        num_threads: threads that make the batches to come, see `Ahead`.

    Attributes:
        epoch: the epoch that batch numbers count from; `FollowEpochs` sets it.
        first_step: steps of each epoch that are left out, at its beginning: for what is left of an epoch that was
            interrupted.
    """

    def __init__(
        self,
        slices: SliceArrays,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        input_slices: int = 1,
        label_sizes: Sequence[int] | None = None,
        augment: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None,
        num_threads: int = 1,
    ):
        super().__init__(workers=1)  # Keras' own would lose to the first epoch what it fetches to build the model
        self.slices = slices
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.input_slices = input_slices
        self.label_sizes = label_sizes
        self.augment = augment
        self.epoch = 0
        self.first_step = 0
        self._ahead = Ahead(self.batch, num_threads=num_threads)

    @property
    def num_batches(self) -> int:
        return self.steps_per_epoch - self.first_step

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray | tuple[np.ndarray, ...]]:
        return self._ahead.get(self.epoch * self.steps_per_epoch + self.first_step + step)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray | tuple[np.ndarray, ...]]:
        """Batch number `step` of the whole training, its draws are `draws(step)`: images, and labels."""
        chosen = self.positions(step)
        images = network_input(self.slices.with_neighbours(chosen, self.input_slices))
        labels = self.slices.labels_of(chosen)
        if self.augment is not None:
            images, labels = self.augment(images, labels, first_draw=step * self.batch_size)
        if self.label_sizes is None:
            return images, labels
        return images, tuple(shrink_labels(labels, size) for size in self.label_sizes)

    def draws(self, step: int) -> np.ndarray:
        """The numbers of the draws of batch number `step`, counted over the whole training; `(batch_size,)`."""
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def positions(self, step: int) -> np.ndarray:
        """Which slices batch number `step` of the whole training holds; `(batch_size,)`."""
        return shuffled_positions(len(self.slices), self.draws(step), seed=self.seed)


class FollowEpochs(keras.callbacks.Callback):
    """Tells batches which epoch they are in.

    The hooks of a `PyDataset` cannot: Keras calls them also when it builds the model, so an epoch would be skipped.
    """

    def __init__(self, batches: ShuffledBatches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch


def shuffled_positions(num_slices: int, draws: np.ndarray, *, seed: int) -> np.ndarray:
    """Some draws of an endless sequence that goes through all slices, again and again, each time in another order.

    Args:
        num_slices: what to draw from.
        draws: `(n,)` numbers of draws.
        seed: of the orders.

    Returns:
        `(n,)` positions, 0 to `num_slices - 1`.
    """
    passes, places = np.divmod(draws, num_slices)
    drawn = np.empty(len(draws), np.int64)
    for number in np.unique(passes):
        now = passes == number
        drawn[now] = order(num_slices, seed, int(number))[places[now]]
    return drawn


@functools.lru_cache(maxsize=16)
def order(num_slices: int, *key: int) -> np.ndarray:
    """A random order of `0` to `num_slices - 1`, the same for the same key; kept, for the next batch wants it too."""
    found = np.random.default_rng(key).permutation(num_slices)
    found.setflags(write=False)
    return found


def shrink_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """`(batch, rows, columns)` -> `(batch, size, size)`: from each square the pixel right below its middle."""
    step = labels.shape[1] // size
    return labels[:, step // 2 :: step, step // 2 :: step]


def describe(slices: SliceArrays) -> Mapping[str, Any]:
    """How many slices and patients, and how many slices show each label."""
    shown = (slices.pixels_per_class > 0).sum(axis=0)
    return {
        "num_slices": len(slices),
        "num_cases": len(slices.ranges()),
        "slices_with_kidney": int(shown[KIDNEY]),
        "slices_with_tumour": int(shown[TUMOUR]),
    }
