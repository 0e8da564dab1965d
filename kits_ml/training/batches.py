"""Batches of prepared slices for Keras, channels last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from kits_ml.data.neighbours import neighbour_positions
from kits_ml.data.preprocessing import network_input
from kits_ml.data.slices import PreparedStore
from kits_ml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SliceArrays:
    """The slices of some cases, decoded.

    Attributes:
        grey: `(slices, image_size, image_size)` uint8 grey values.
        labels: `(slices, image_size, image_size)` uint8, values 0, 1, 2.
        cases: the case of each slice, in runs: all slices of a case stand together.
    """

    grey: np.ndarray
    labels: np.ndarray
    cases: tuple[str, ...]

    def ranges(self) -> dict[str, slice]:
        """Where each case's slices stand."""
        found: dict[str, slice] = {}
        for number, name in enumerate(self.cases):
            first = found[name].start if name in found else number
            found[name] = slice(first, number + 1)
        return found

    def with_neighbours(self, positions: np.ndarray, num_slices: int) -> np.ndarray:
        """What a network sees of some slices: `(batch, rows, columns, num_slices)` grey values, uint8."""
        first, last = (ends[positions] for ends in self._ends)
        around = neighbour_positions(positions, first=first, last=last, num_slices=num_slices)
        return np.moveaxis(self.grey[around], 1, -1)  # from (batch, num_slices, rows, columns)

    @functools.cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last slice of each slice's case, `(slices,)` each."""
        ranges = self.ranges().values()
        lengths = [one.stop - one.start for one in ranges]
        return np.repeat([one.start for one in ranges], lengths), np.repeat([one.stop - 1 for one in ranges], lengths)


def read_slices(
    store: PreparedStore, names: Sequence[str], *, description: str, margin_mm: float | None = None
) -> SliceArrays:
    """Decodes the PNGs of some cases, in parallel.

    Args:
        store: the prepared slices.
        names: of cases.
        description: what the progress bar says.
        margin_mm: for training only: leave out slices further than this from the kidneys. None: whole cases.

    Raises:
        InputError: an unknown case, or a margin and not one slice that shows a kidney.
    """
    rows = store.rows_of(names, margin_mm=margin_mm)
    if margin_mm is not None and not rows:
        raise InputError(
            f"training_margin_mm: found {margin_mm:g}, but none of {len(names)} cases shows a kidney; leave it out"
        )
    size = store.settings.image_size
    grey = np.empty((len(rows), size, size), np.uint8)
    labels = np.empty_like(grey)

    def read(number: int) -> None:
        grey[number], labels[number] = store.read_slice(rows[number])

    with ThreadPoolExecutor(4) as pool:
        for _ in tqdm(pool.map(read, range(len(rows))), total=len(rows), desc=description, unit="slice"):
            pass
    return SliceArrays(grey=grey, labels=labels, cases=tuple(row["case"] for row in rows))


class ShuffledBatches(keras.utils.PyDataset):
    """Endless passes over the slices, each in a new order, cut into epochs of a fixed number of steps.

    Slice number `k` of the training is the same for the same seed, whatever the number of loader threads.

    Args:
        slices: what to draw from.
        batch_size: slices a batch.
        steps_per_epoch: batches an epoch.
        seed: of the order.
        input_slices: slices the network sees at once.
        label_sizes: rows of each output of a network with deep supervision; the labels are then several, taken to
            each size by nearest neighbour. Without it, the labels as they are.
        augment: changes images and labels of a batch, called as `Augmentation` is. Without it, they stay.
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
    ):
        super().__init__(workers=1)  # with more, what Keras fetches to build the model is lost to the first epoch
        self.slices = slices
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.input_slices = input_slices
        self.label_sizes = label_sizes
        self.augment = augment
        self.epoch = 0

    @property
    def num_batches(self) -> int:
        return self.steps_per_epoch

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray | tuple[np.ndarray, ...]]:
        number = self.epoch * self.steps_per_epoch + step
        chosen = self.positions(number)
        images = network_input(self.slices.with_neighbours(chosen, self.input_slices))
        labels = self.slices.labels[chosen]
        if self.augment is not None:
            images, labels = self.augment(images, labels, first_draw=number * self.batch_size)
        if self.label_sizes is None:
            return images, labels
        return images, tuple(shrink_labels(labels, size) for size in self.label_sizes)

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def positions(self, step: int) -> np.ndarray:
        """Which slices batch number `step` of the whole training holds; `(batch_size,)`."""
        num_slices = len(self.slices.grey)
        wanted = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        orders = {number: self._order(int(number)) for number in np.unique(wanted // num_slices)}
        return np.array([orders[position // num_slices][position % num_slices] for position in wanted])

    def _order(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(len(self.slices.grey))


def shrink_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """`(batch, rows, columns)` -> `(batch, size, size)`: from each square the pixel right below its middle."""
    step = labels.shape[1] // size
    return labels[:, step // 2 :: step, step // 2 :: step]


def describe(slices: SliceArrays) -> Mapping[str, Any]:
    """How many slices and patients, and how many slices show each label."""
    return {
        "num_slices": len(slices.grey),
        "num_cases": len(set(slices.cases)),
        "slices_with_kidney": int((slices.labels == 1).any(axis=(1, 2)).sum()),
        "slices_with_tumour": int((slices.labels == 2).any(axis=(1, 2)).sum()),
    }
