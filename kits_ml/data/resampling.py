"""Resampling along one axis as a matrix, so that a slice is resized by two matrix products.

A weight matrix has shape `(size_out, size_in)` and rows that sum to 1: `resized = weights @ samples`.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

#: Output samples whose weights are multiplied together.
_BAND = 32


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
    return _frozen(_between(nearest_index(size_out, size_in), np.arange(size_out)))


@lru_cache(maxsize=64)
def window_weights(window: tuple[float, float], inside: tuple[int, int], size_out: int) -> np.ndarray:
    """Resamples a window that may begin and end between samples, or beyond them, where values count as 0.

    Shrinking takes the mean of what each output sample covers, fractions of samples included; enlarging interpolates
    linearly between the samples' middles. At the same size the two are the same.

    Args:
        window: begin and end in samples: sample `k` reaches from `k` to `k + 1`.
        inside: first and one past the last sample that the weights are for.
        size_out: samples that the window becomes.

    Returns:
        `(size_out, inside[1] - inside[0])` float32. Rows sum to 1, to less where values beyond `inside` count.
    """
    step = (window[1] - window[0]) / size_out
    middles = window[0] + (np.arange(size_out) + 0.5)[:, None] * step
    samples = np.arange(*inside)
    if step > 1:
        starts, stops = np.maximum(middles - step / 2, samples), np.minimum(middles + step / 2, samples + 1)
        return _frozen(np.maximum(stops - starts, 0) / step)
    return _frozen(np.maximum(1 - np.abs(middles - (samples + 0.5)), 0))


def window_index(window: tuple[float, float], size_out: int) -> np.ndarray:
    """Which sample lies under the middle of each output sample of a window; may lie beyond the samples.

    Returns:
        `(size_out,)` int64.
    """
    step = (window[1] - window[0]) / size_out
    return np.floor(window[0] + (np.arange(size_out) + 0.5) * step).astype(np.int64)


@lru_cache(maxsize=64)
def window_inverse_weights(window: tuple[float, float], inside: tuple[int, int], size_out: int) -> np.ndarray:
    """Undoes `window_index`: linear interpolation between the very samples that it took.

    Args:
        window: begin and end in samples.
        inside: first and one past the last sample to restore.
        size_out: samples that the window became.

    Returns:
        `(inside[1] - inside[0], size_out)` float32; rows sum to 1.
    """
    return _frozen(_between(window_index(window, size_out), np.arange(*inside)))


def _between(taken: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation at some places between the places that samples were taken from.

    Args:
        taken: `(samples,)`, ascending.
        wanted: `(places,)`; beyond the first and the last sample, that sample counts.

    Returns:
        `(places, samples)`.
    """
    origins, group = np.unique(taken, return_inverse=True)  # enlarging takes a sample several times: their mean
    means = (group == np.arange(len(origins))[:, None]).astype(float)
    means /= means.sum(axis=1, keepdims=True)
    between = np.apply_along_axis(lambda hat: np.interp(wanted, origins, hat), 1, np.eye(len(origins)))
    return between.T @ means


def resize_slices(slices: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
    """Resizes the last two axes.

    Args:
        slices: `(..., rows_in, columns_in)` float32.
        row_weights: `(rows_out, rows_in)`.
        column_weights: `(columns_out, columns_in)`.

    Returns:
        `(..., rows_out, columns_out)` float32.
    """
    flat = slices.reshape(-1, slices.shape[-1])
    narrowed = np.empty((len(flat), len(column_weights)), np.float32)
    for covered, samples, weights in _bands(column_weights):
        np.matmul(flat[:, samples], weights.T, out=narrowed[:, covered])
    narrowed = narrowed.reshape(*slices.shape[:-1], len(column_weights))
    resized = np.empty((*slices.shape[:-2], len(row_weights), len(column_weights)), np.float32)
    for covered, samples, weights in _bands(row_weights):
        np.matmul(weights, narrowed[..., samples, :], out=resized[..., covered, :])
    return resized


def _bands(weights: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yields some output samples, the input samples that they are made of, and those weights.

    Neighbours are made of neighbours: away from the diagonal a weight matrix is zero, and the products are six times
    as fast without.
    """
    for first in range(0, len(weights), _BAND):
        band = weights[first : first + _BAND]
        used = np.flatnonzero(band.any(axis=0))
        samples = slice(used[0], used[-1] + 1) if len(used) else slice(0)
        yield slice(first, first + len(band)), samples, band[:, samples]


def _frozen(weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float32)
    weights.flags.writeable = False
    return weights
