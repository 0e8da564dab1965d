"""What lies near a mask, in millimetres, a slab at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

#: Of a distance: spacings come as float32, so slices that are meant to be just within reach may lie beyond it.
_ROUNDING = 1e-6


class Nearness:
    """Which voxels touch a mask or lie near it.

    Touching voxels share a face, an edge or a corner; near ones have middles at most `distance_mm` apart. The squared
    distance within a slice is measured once a slice, and that between slices is added (as in Felzenszwalb and
    Huttenlocher, Theory of Computing 8 (2012)), so only the slices within reach are kept.

    Args:
        mask: boolean, `(slices, rows, columns)`; not changed meanwhile.
        spacing_mm: distance between slices, rows and columns.
        distance_mm: how near; 0: only what touches.
    """

    def __init__(self, mask: np.ndarray, *, spacing_mm: Sequence[float], distance_mm: float):
        self._mask = mask
        self._spacing_mm = tuple(spacing_mm)
        self._distance_mm = distance_mm * (1 + _ROUNDING)
        self._reach = math.floor(self._distance_mm / self._spacing_mm[0])
        self._squares: dict[int, np.ndarray | None] = {}

    def __call__(self, part: slice) -> np.ndarray:
        """The slices of a part, bool; the mask itself is near."""
        near = self._touching(part)
        if self._distance_mm > 0:
            for place, index in enumerate(range(part.start, part.stop)):
                self._add_near(near[place], index)
        return near

    def _touching(self, part: slice) -> np.ndarray:
        first, last = max(part.start - 1, 0), min(part.stop + 1, len(self._mask))
        touching = ndimage.binary_dilation(self._mask[first:last], ndimage.generate_binary_structure(3, 3))
        return touching[part.start - first : part.stop - first]

    def _add_near(self, near: np.ndarray, index: int) -> None:
        within = range(max(index - self._reach, 0), min(index + self._reach + 1, len(self._mask)))
        self._squares = {one: square for one, square in self._squares.items() if one in within}
        for other in within:
            if other not in self._squares:
                self._squares[other] = self._squares_mm2(other)
            if self._squares[other] is not None:
                left_mm2 = self._distance_mm**2 - ((other - index) * self._spacing_mm[0]) ** 2
                near |= self._squares[other] <= np.float32(left_mm2)

    def _squares_mm2(self, index: int) -> np.ndarray | None:
        """Squared distance of each pixel to the mask's in the same slice; None where there is none."""
        if not self._mask[index].any():
            return None
        distances = ndimage.distance_transform_edt(~self._mask[index], sampling=self._spacing_mm[1:])
        return np.square(distances).astype(np.float32)
