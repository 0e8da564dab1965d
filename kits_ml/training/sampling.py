"""How the slices of a batch are drawn: in turn, with some foreground in each, or as many of each class.

In each of the ways a draw depends on its number and the seed alone, as with `ShuffledBatches`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kits_ml import runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.labels import BACKGROUND
from kits_ml.training.augmentation import Augmentation
from kits_ml.training.batches import ShuffledBatches, SliceArrays, order, shuffled_positions


class ForegroundBatches(ShuffledBatches):
    """Batches of which a fixed part shows kidney or tumour, as nnU-Net draws them (Isensee et al. 2021).

    `ceil(foreground_fraction * batch_size)` of each batch are forced: kidney or tumour is picked at random (among
    those that any slice shows), then a slice that shows it, with replacement. So every second forced slice shows a
    tumour, few as they are. (nnU-Net picks a patient first, then a class, then a voxel.) They lie evenly in the
    batch, so that each of several devices gets its share. The others are drawn as by `ShuffledBatches`, endless
    passes over all slices.

    Args:
        slices: what to draw from.
        foreground_fraction: in [0, 1].
        options: as of `ShuffledBatches`.

    Raises:
        InputError: no slice shows kidney or tumour.
    """

    def __init__(self, slices: SliceArrays, *, foreground_fraction: float, **options: Any):
        super().__init__(slices, **options)
        self.num_forced = math.ceil(foreground_fraction * self.batch_size - 1e-9)
        self.forced = (2 * np.arange(self.num_forced) + 1) * self.batch_size // (2 * max(1, self.num_forced))
        self.free = np.delete(np.arange(self.batch_size), self.forced)
        self.showing = slices_showing(slices.pixels_per_class)
        if self.num_forced and not self.showing:
            raise InputError(
                f"sampling: found foreground, but none of {len(slices)} training slices shows kidney or tumour"
            )

    def positions(self, step: int) -> np.ndarray:
        """Which slices batch number `step` of the whole training holds; `(batch_size,)`, at `forced` the forced."""
        found, num_free = np.empty(self.batch_size, int), len(self.free)
        in_turn = np.arange(step * num_free, (step + 1) * num_free)
        found[self.free] = shuffled_positions(len(self.slices), in_turn, seed=self.seed)
        found[self.forced] = [
            forced_position(self.showing, int(draw), seed=self.seed) for draw in self.draws(step)[self.forced]
        ]
        return found


class BalancedBatches(ShuffledBatches):
    """Batches of as many slices with tumour, with kidney but no tumour, and with neither.

    The three groups are drawn from in turn, so a batch holds as many of each, one more or less. Within a group there
    are endless passes, each in a new order: no slice is drawn again before all others of its group were. A group
    without slices is left out.

    Args:
        slices: what to draw from.
        options: as of `ShuffledBatches`.
    """

    def __init__(self, slices: SliceArrays, **options: Any):
        super().__init__(slices, **options)
        self.groups = group_by_class(slices.pixels_per_class)

    def positions(self, step: int) -> np.ndarray:
        """Which slices batch number `step` of the whole training holds; `(batch_size,)`."""
        return balanced_positions(self.groups, self.draws(step), seed=self.seed)


#: By the setting `sampling`.
SAMPLINGS = {"shuffled": ShuffledBatches, "foreground": ForegroundBatches, "balanced": BalancedBatches}


def make_batches(
    slices: SliceArrays, settings: TrainSettings, *, label_sizes: Sequence[int] | None = None
) -> ShuffledBatches:
    """The batches of a training as its settings say; `label_sizes` as of `ShuffledBatches`."""
    only_foreground = {"foreground_fraction": settings.foreground_fraction}
    return SAMPLINGS[settings.sampling](
        slices,
        batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
        input_slices=settings.input_slices,
        label_sizes=label_sizes,
        augment=Augmentation(settings, seed=settings.seed) if settings.augmentation else None,
        num_threads=settings.num_loader_threads or runtime.loader_threads(),
        **(only_foreground if settings.sampling == "foreground" else {}),
    )


def slices_showing(pixels: np.ndarray) -> dict[int, np.ndarray]:
    """By foreground label, the positions of the slices that show any of it; labels that no slice shows are left out.

    Args:
        pixels: `(slices, classes)` pixels of each class. A slice that shows kidney and tumour counts for both.
    """
    shown = {label: np.flatnonzero(pixels[:, label]) for label in range(pixels.shape[1]) if label != BACKGROUND}
    return {label: found for label, found in shown.items() if len(found)}


def forced_position(showing: Mapping[int, np.ndarray], draw: int, *, seed: int) -> int:
    """The slice of a draw that must show foreground: a class at random, then one of the slices that show it."""
    # the 1 keeps it apart from the orders of passes, whose key (seed, pass) a generator takes for (seed, pass, 0)
    rng = np.random.default_rng([seed, draw, 1])
    return int(rng.choice(showing[int(rng.choice(list(showing)))]))


def group_by_class(pixels: np.ndarray) -> dict[int, np.ndarray]:
    """Positions of the slices by the highest label that they show; labels that no slice shows are left out.

    Args:
        pixels: `(slices, classes)` pixels of each class.
    """
    shown = ((pixels > 0) * np.arange(pixels.shape[1])).max(axis=1)
    return {int(label): np.flatnonzero(shown == label) for label in np.unique(shown)[::-1]}


def balanced_positions(groups: Mapping[int, np.ndarray], draws: np.ndarray, *, seed: int) -> np.ndarray:
    """Some draws of an endless sequence that takes one of each group in turn.

    Draw `k` is draw `k // G` of group `k % G` of the `G` groups, and a group of `n` slices goes through all of them
    in draws `0` to `n - 1`, again in another order in draws `n` to `2 n - 1`, and so on.

    Args:
        groups: positions of slices by label.
        draws: `(n,)` numbers of draws.
        seed: of the orders.

    Returns:
        `(n,)` positions.
    """
    labels = list(groups)
    drawn = np.empty(len(draws), np.int64)
    for number, draw in enumerate(draws):
        turn, rank = divmod(int(draw), len(labels))
        group = groups[labels[rank]]
        passes, place = divmod(turn, len(group))
        drawn[number] = group[order(len(group), seed, labels[rank], passes)[place]]
    return drawn
