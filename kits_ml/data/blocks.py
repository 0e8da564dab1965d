"""A volume a few slices at a time, so that what is computed from it takes little memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_SLICES = 8


def slice_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Contiguous copies of a few slices at a time (files store slices fastest, so a copy pays)."""
    for start in range(0, len(array), BLOCK_SLICES):
        yield np.ascontiguousarray(array[start : start + BLOCK_SLICES])
