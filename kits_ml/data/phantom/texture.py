"""Random fields: smooth ones that bend anatomy and mottle tissue, and the noise of the scanner."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_BLOCK_SIZE = 32
_BLOCK_SIGMA = 1.1


class SmoothNoise:
    """A smooth periodic random field in three dimensions, of mean 0 and standard deviation 1.

    Args:
        block: `(n, n, n)` lattice of values, periodic; see `noise_block`.
        pitch_mm: distance between lattice points; structures are about three pitches wide.
        offset: lattice units added along z, y, x, so that fields from one block differ.
    """

    def __init__(self, block: np.ndarray, pitch_mm: float, offset: tuple[float, float, float] = (0, 0, 0)):
        self.block, self.pitch_mm, self.offset = block, pitch_mm, offset

    def plane(self, z_mm: float, y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
        """The field on the grid `y_mm` x `x_mm` at one height: `(len(y_mm), len(x_mm))` float32."""
        low, high, weight = self._lattice(np.array([z_mm]), 0)
        plane = self.block[low[0]] * (1 - weight[0]) + self.block[high[0]] * weight[0]
        low, high, weight = self._lattice(y_mm, 1)
        plane = plane[low] * (1 - weight)[:, None] + plane[high] * weight[:, None]
        low, high, weight = self._lattice(x_mm, 2)
        first = plane.take(low, axis=1)
        second = plane.take(high, axis=1)
        second -= first
        second *= weight
        second += first
        return second

    def _lattice(self, position_mm: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = position_mm / self.pitch_mm + self.offset[axis]
        whole = np.floor(position)
        low = whole.astype(np.intp) % _BLOCK_SIZE
        return low, (low + 1) % _BLOCK_SIZE, (position - whole).astype(np.float32)


def noise_block(rng: np.random.Generator) -> np.ndarray:
    """The lattice that `SmoothNoise` interpolates: `(32, 32, 32)` float32."""
    block = gaussian_filter(rng.standard_normal((_BLOCK_SIZE,) * 3), _BLOCK_SIGMA, mode="wrap")
    return ((block - block.mean()) / block.std()).astype(np.float32)


class ScannerNoise:
    """Correlated CT noise, slice after slice.

    The spectrum is that of filtered back projection with a soft kernel: nothing at zero frequency, a broad
    hump, nothing beyond. Neighbouring thin slices share part of it.

    Args:
        rng: the source of all randomness.
        shape: `(rows, columns)`.
        sigma_pixels: grain, the standard deviation of the in-plane smoothing.
        correlation: between neighbouring slices, in [0, 1).
    """

    def __init__(self, rng: np.random.Generator, *, shape: tuple[int, int], sigma_pixels: float, correlation: float):
        self._rng, self._shape, self._correlation = rng, shape, correlation
        tile = rng.standard_normal((2 * max(shape) + 7,) * 2, dtype=np.float32)
        tile = gaussian_filter(tile, sigma_pixels, mode="wrap", truncate=3.0)
        tile -= 0.8 * gaussian_filter(tile, 2.5 * sigma_pixels, mode="wrap", truncate=2.0)
        self._tile = tile / tile.std()
        self._state = self._fresh()

    def next_slice(self) -> np.ndarray:
        """The noise of the next slice: `(rows, columns)` float32, standard deviation 1; valid until the next call."""
        fresh = self._fresh()
        if self._correlation > 0:
            fresh *= np.float32(np.sqrt(1 - self._correlation**2))
            self._state *= np.float32(self._correlation)
            fresh += self._state
        self._state = fresh
        return self._state

    def _fresh(self) -> np.ndarray:
        """Two random pieces of the tile, mirrored at random, so that no two slices look alike."""
        total = self._piece() + self._piece()
        total *= np.float32(np.sqrt(0.5))
        return total

    def _piece(self) -> np.ndarray:
        size, (rows, columns) = len(self._tile), self._shape
        row, column = self._rng.integers(size - rows), self._rng.integers(size - columns)
        flip_rows, flip_columns = self._rng.choice([-1, 1], 2)
        return self._tile[row : row + rows, column : column + columns][::flip_rows, ::flip_columns]
