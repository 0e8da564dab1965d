"""Changes the grey values of a slice as scanners and contrast phases do. Labels stay."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, kw_only=True)
class IntensityChange:
    """What happens to the grey values, in this order; the defaults change nothing.

    Attributes:
        brightness: factor of the grey values.
        contrast: factor of their distances from the mean.
        gamma: the power they are raised to; above 1 is darker.
        blur_sigma_px: standard deviation of a Gaussian blur.
        coarseness: size of a coarse pixel, in pixels.
        noise_std: standard deviation of Gaussian noise.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    blur_sigma_px: float = 0.0
    coarseness: float = 1.0
    noise_std: float = 0.0


def shade(image: np.ndarray, change: IntensityChange, rng: np.random.Generator) -> np.ndarray:
    """Applies one change to a slice and its neighbours, to all alike; only the noise of each is its own.

    Args:
        image: `(rows, columns, slices)` float32 in [0, 1].
        rng: of the noise, and used for nothing else.

    Returns:
        The same shape, float32 in [0, 1]; the same array where nothing changes.
    """
    if change.brightness != 1:
        image = np.clip(image * np.float32(change.brightness), 0, 1)
    if change.contrast != 1:
        image = with_contrast(image, change.contrast)
    if change.gamma != 1:
        image = np.power(image, np.float32(change.gamma))
    if change.blur_sigma_px > 0:
        image = blur(image, sigma_px=change.blur_sigma_px)
    if change.coarseness != 1:
        image = coarsen(image, change.coarseness)
    if change.noise_std > 0:
        noise = rng.standard_normal(image.shape, np.float32)
        image = np.clip(image + np.float32(change.noise_std) * noise, 0, 1)
    return image


def with_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Spreads (factor above 1) or gathers the grey values around their mean, within [0, 1]."""
    mean = image.mean(dtype=np.float64)
    return np.clip(image * np.float32(factor) + np.float32(mean * (1 - factor)), 0, 1)


def blur(image: np.ndarray, *, sigma_px: float) -> np.ndarray:
    """Gaussian blur in the plane, cut off at 4 standard deviations or somewhat less; edges are mirrored.

    Args:
        image: `(rows, columns, slices)` float32 in [0, 1].
    """
    blurred = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(blurred, 0, 1).reshape(image.shape)  # OpenCV drops a last axis of 1


def coarsen(image: np.ndarray, coarseness: float) -> np.ndarray:
    """Averages to fewer pixels, as a coarser scan does, and enlarges again, cubic.

    Args:
        image: `(rows, columns, slices)` float32 in [0, 1].
        coarseness: size of a coarse pixel, at least 1; a slice keeps one pixel.
    """
    num_rows, num_columns = image.shape[:2]
    coarse_size = tuple(max(1, round(length / coarseness)) for length in (num_columns, num_rows))
    coarse = [
        cv2.resize(one, coarse_size, interpolation=cv2.INTER_AREA) for one in np.moveaxis(image, -1, 0)
    ]  # one by one: OpenCV resizes no more than four together
    fine = [cv2.resize(one, (num_columns, num_rows), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return np.clip(np.stack(fine, axis=-1), 0, 1)
