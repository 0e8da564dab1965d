"""Two faults of the report's preparation, as pure functions.

The chain names `Resized` and `ScaleIntensityRanged`. By MONAI's defaults the first takes the mean of label *numbers*,
and the second does not clip, so that the gamma that follows refers to the darkest and brightest voxel of the scan.
"""

from __future__ import annotations

import numpy as np

from kits_ml.config import PreprocessingSettings
from kits_ml.data import resampling
from kits_ml.data.frames import Frame
from kits_ml.labels import NUM_CLASSES

#: MONAI's `AdjustContrast` adds it to the range.
EPSILON = 1e-7


def unclipped_grey(
    hu: np.ndarray, *, lowest_hu: float, highest_hu: float, settings: PreprocessingSettings
) -> np.ndarray:
    """What `ScaleIntensityRanged` without `clip` and `AdjustContrastd` make of HU.

    With x = (HU - window_min) / (window_max - window_min), and a and b the x of the scan's extremes, it is
    ((x - a) / (b - a)) ^ gamma * (b - a) + a: the same tissue gets another value in each scan.

    Args:
        hu: any shape.
        lowest_hu, highest_hu: extremes of the (cropped) scan.
        settings: the window and gamma.

    Returns:
        float32 of the same shape; a network's slice shows 0 as black and 1 as white, and much lies beyond.
    """
    width = settings.window_max_hu - settings.window_min_hu
    scaled, low, high = ((np.float32(one) - settings.window_min_hu) / width for one in (hu, lowest_hu, highest_hu))
    relative = np.clip((scaled - low) / (high - low + EPSILON), 0, 1)
    return (relative**settings.gamma * (high - low) + low).astype(np.float32)


def clipped_grey(hu: np.ndarray, *, settings: PreprocessingSettings) -> np.ndarray:
    """The same with the window's ends in place of the scan's extremes: one value for one tissue, in [0, 1]."""
    low, high = settings.window_min_hu, settings.window_max_hu
    return unclipped_grey(np.clip(hu, low, high), lowest_hu=low, highest_hu=high, settings=settings)


def mean_of_numbers(label_map: np.ndarray, frame: Frame) -> np.ndarray:
    """Labels resized as grey values are, by the mean of the numbers that each pixel covers, as `Resized` does.

    Args:
        label_map: `(slices, rows, columns)` of the scan, values 0, 1, 2.

    Returns:
        `(slices, image_size, image_size)` float32: fractions, where a pixel covers more than one label.
    """
    return resampling.resize_slices(frame.crop(label_map).astype(np.float32), *frame.image_weights())


def covered_fractions(label_map: np.ndarray, frame: Frame) -> np.ndarray:
    """Which part of each resized pixel each label covers: `(classes, slices, image_size, image_size)` float32."""
    return np.stack([mean_of_numbers(label_map == label, frame) for label in range(NUM_CLASSES)])


def rounded(labels: np.ndarray) -> np.ndarray:
    """The nearest whole number; a half goes up."""
    return np.floor(labels + np.float32(0.5)).astype(np.uint8)


def unclipped_slices(image: np.ndarray, frame: Frame, settings: PreprocessingSettings) -> np.ndarray:
    """Prepared slices without clipping, as MONAI's PNG writer leaves them: below 0 is black, above 1 is white.

    Args:
        image: `(slices, rows, columns)` in HU.
        frame: of the same image, stretched.
        settings: the window and gamma.

    Returns:
        `(slices, image_size, image_size)` uint8.
    """
    extremes = {"lowest_hu": frame.lowest_hu, "highest_hu": frame.highest_hu}
    grey = unclipped_grey(frame.crop(image), **extremes, settings=settings)
    resized = resampling.resize_slices(grey, *frame.image_weights())
    return np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8)
