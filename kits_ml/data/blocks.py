"""A scan a few slices at a time, each slice contiguous: files lie across the slices in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: What is turned at once on the way to a file.
_FILE_BLOCK_BYTES = 1 << 21

#: Rows that are turned together, so that source and target stay in the processor's cache.
_ROWS = 4


def contiguous_blocks(array: np.ndarray, num_slices: int = 32) -> Iterator[np.ndarray]:
    """Yields the slices in contiguous copies, several times as fast as by `np.ascontiguousarray`.

    Args:
        array: `(slices, rows, columns)` in any memory order.
        num_slices: slices a block. A cache line of int16 holds 32: fewer make every line be fetched repeatedly.

    Yields:
        `(block, rows, columns)`, C order; the same memory each time where the block's size is, so use it or copy it.
    """
    block = np.empty((0, *array.shape[1:]), array.dtype)
    for first in range(0, len(array), num_slices):
        part = array[first : first + num_slices]
        if len(block) != len(part):
            block = np.empty(part.shape, array.dtype)
        yield turn(part, out=block)


def in_file_order(stored: np.ndarray) -> Iterator[np.ndarray]:
    """Yields a volume's voxels as they lie in a file, the first axis fastest, some MiB at a time.

    Args:
        stored: of three axes, those of the file, in any memory order.

    Yields:
        One axis, contiguous; the same memory each time where the size is, so use it or copy it.
    """
    slabs = stored.transpose(2, 1, 0)  # the last axis first: in C order what a file has in Fortran's
    size = max(1, _FILE_BLOCK_BYTES // (stored.shape[0] * stored.shape[1] * stored.itemsize))
    for block in contiguous_blocks(slabs, size):
        yield block.reshape(-1)


def turn(array: np.ndarray, *, out: np.ndarray) -> np.ndarray:
    """Copies between memory orders, some rows at a time.

    Args:
        array: of three axes, in any memory order.
        out: of the same shape.

    Returns:
        `out`.
    """
    for row in range(0, array.shape[1], _ROWS):
        out[:, row : row + _ROWS] = array[:, row : row + _ROWS]
    return out
