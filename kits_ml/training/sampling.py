"""Batches that draw as often from the slices of each class, however few of them there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from kits_ml.training.batches import ShuffledBatches, SliceArrays


class BalancedBatches(ShuffledBatches):
    """Batches of as many slices with tumour, with kidney but no tumour, and with neither.

    The three groups are drawn from in turn, so a batch holds as many of each, one more or less. Within a group there
    are endless passes, each in a new order: no slice is drawn again before all others of its group were. A group
    without slices is left out. As with `ShuffledBatches`, draw number `k` depends on the seed alone.

    Args:
        slices: what to draw from.
        options: as of `ShuffledBatches`.
    """

    def __init__(self, slices: SliceArrays, **options: Any):
        super().__init__(slices, **options)
        self.groups = group_by_class(slices.labels)

    def positions(self, step: int) -> np.ndarray:
        """Which slices batch number `step` of the whole training holds; `(batch_size,)`."""
        return balanced_positions(
            self.groups, first=step * self.batch_size, num_draws=self.batch_size, seed=self.seed
        )


def group_by_class(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Positions of the slices by the highest label that they show; labels that no slice shows are left out.

    Args:
        labels: `(slices, rows, columns)`, values 0, 1, 2.
    """
    shown = np.array([one.max() for one in labels])
    return {int(label): np.flatnonzero(shown == label) for label in np.unique(shown)[::-1]}


def balanced_positions(groups: dict[int, np.ndarray], *, first: int, num_draws: int, seed: int) -> np.ndarray:
    """Some consecutive draws of an endless sequence that takes one of each group in turn.

    Draw `k` is draw `k // G` of group `k % G` of the `G` groups, and a group of `n` slices goes through all of them
    in draws `0` to `n - 1`, again in another order in draws `n` to `2 n - 1`, and so on.

    Args:
        groups: positions of slices by label.
        first: number of the first draw.
        num_draws: how many.
        seed: of the orders.

    Returns:
        `(num_draws,)` positions.
    """
    labels = list(groups)
    orders: dict[tuple[int, int], np.ndarray] = {}
    drawn = np.empty(num_draws, np.int64)
    for number in range(num_draws):
        turn, rank = divmod(first + number, len(labels))
        label = labels[rank]
        passes, place = divmod(turn, len(groups[label]))
        if (label, passes) not in orders:
            orders[label, passes] = np.random.default_rng([seed, label, passes]).permutation(groups[label])
        drawn[number] = orders[label, passes][place]
    return drawn
