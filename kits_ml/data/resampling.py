"""Resampling along one axis as a matrix, so that a slice is resized by two matrix products.

A weight matrix has shape `(size_out, size_in)` and rows that sum to 1: `resized = weights @ samples`.
"""

from functools import lru_cache

import numpy as np


def area_windows(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Which input samples each output sample covers in PyTorch's and MONAI's mode `area`.

    Returns:
        The first sample, `floor(i n / m)`, and the one past the last, `ceil((i + 1) n / m)`; `(size_out,)` int64.
    """
    index = np.arange(size_out)
    return index * size_in // size_out, -((-(index + 1) * size_in) // size_out)


@lru_cache(maxsize=64)
def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """Mean over the samples that each output sample covers, see `area_windows`.

    Returns:
        `(size_out, size_in)` float32.
    """
    starts, stops = area_windows(size_in, size_out)
    samples = np.arange(size_in)
    covered = (samples >= starts[:, None]) & (samples < stops[:, None])
    return _frozen(covered / covered.sum(axis=1, keepdims=True))


def nearest_index(size_in: int, size_out: int) -> np.ndarray:
    """Which input sample each output sample takes, as PyTorch's and MONAI's mode `nearest`: `floor(i n / m)`.

    PyTorch computes `floor(i * scale)` with a float32 scale, which this follows bit for bit.

    Returns:
        `(size_out,)` int64.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    return np.minimum((np.arange(size_out, dtype=np.float32) * scale).astype(np.int64), size_in - 1)


@lru_cache(maxsize=64)
def nearest_inverse_weights(size_in: int, size_out: int) -> np.ndarray:
    """Undoes `nearest_index(size_out, size_in)`: linear interpolation between the very samples that it took.

    The mode `nearest` takes each output sample from the upper left of what it covers, not from its middle. Labels
    made so lie up to half an output sample beside the image, and a network that learned from them says so: they have
    to be put back where they were taken from, or the segmentation is shifted.

    Args:
        size_in: samples of the resized axis.
        size_out: samples of the axis before it was resized.

    Returns:
        `(size_out, size_in)` float32.
    """
    taken = nearest_index(size_out, size_in)
    origins, group = np.unique(taken, return_inverse=True)  # enlarging takes a sample several times: their mean
    means = (group == np.arange(len(origins))[:, None]).astype(float)
    means /= means.sum(axis=1, keepdims=True)
    between = np.apply_along_axis(lambda hat: np.interp(np.arange(size_out), origins, hat), 1, np.eye(len(origins)))
    return _frozen(between.T @ means)


def resize_slices(slices: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
    """Resizes the last two axes.

    Args:
        slices: `(..., rows_in, columns_in)` float32.
        row_weights: `(rows_out, rows_in)`.
        column_weights: `(columns_out, columns_in)`.

    Returns:
        `(..., rows_out, columns_out)` float32.
    """
    narrowed = slices.reshape(-1, slices.shape[-1]) @ column_weights.T
    narrowed = narrowed.reshape(*slices.shape[:-1], len(column_weights))
    return np.matmul(row_weights, narrowed)


def _frozen(weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float32)
    weights.flags.writeable = False
    return weights
