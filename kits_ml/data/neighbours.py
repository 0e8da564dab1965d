"""Slices with their neighbours: what a 2.5-D network sees of a case. Beyond the ends the end slices are repeated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def neighbour_positions(positions: np.ndarray, *, first: np.ndarray, last: np.ndarray, num_slices: int) -> np.ndarray:
    """Where a slice and its neighbours stand, among the slices of several cases.

    Args:
        positions: `(batch,)` slices.
        first, last: `(batch,)` first and last slice of each one's case.
        num_slices: how many to see, an odd number.

    Returns:
        `(batch, num_slices)`; the slice itself in the middle.
    """
    offsets = np.arange(num_slices) - num_slices // 2
    return np.clip(positions[:, None] + offsets, first[:, None], last[:, None])


def stack_neighbours(blocks: Iterator[np.ndarray], *, num_slices: int, batch_size: int) -> Iterator[np.ndarray]:
    """Cuts a case that comes block by block into batches of slices with their neighbours.

    Holds no more than a block, a batch and the neighbours at a time.

    Args:
        blocks: `(block, rows, columns)` each, in order; all of one case.
        num_slices: how many to see, an odd number.
        batch_size: slices a batch; the last batch holds what is left.

    Yields:
        `(batch, rows, columns, num_slices)`; the slice itself is channel `num_slices // 2`.
    """
    reach = num_slices // 2
    waiting = None  # slices that are still to come, and those before and after that they need
    for block in blocks:
        waiting = np.concatenate([*[block[:1]] * reach, block] if waiting is None else [waiting, block])
        while len(waiting) >= batch_size + 2 * reach:
            yield _windows(waiting[: batch_size + 2 * reach], num_slices)
            waiting = waiting[batch_size:]
    waiting = np.concatenate([waiting, *[waiting[-1:]] * reach])
    while len(waiting) > 2 * reach:
        yield _windows(waiting[: batch_size + 2 * reach], num_slices)
        waiting = waiting[batch_size:]


def _windows(slices: np.ndarray, num_slices: int) -> np.ndarray:
    """`(batch + num_slices - 1, rows, columns)` -> `(batch, rows, columns, num_slices)`; a view."""
    return np.lib.stride_tricks.sliding_window_view(slices, num_slices, axis=0)
