"""Random changes of training slices, the same for the same seed and draw wherever and whenever they are made."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from kits_ml.config import AugmentationSettings
from kits_ml.training.intensity import IntensityChange, shade
from kits_ml.training.spatial import SpatialChange, move

#: Points a side of the coarse grid on which a slice is bent: one in 32 pixels at 256.
BENDING_POINTS = 8
#: Tells the random numbers of augmentation from those of the order, which has the same seed.
_STREAM = 0x41554721


class Augmentation:
    """Changes batches of slices; draw number `k` of the training gets the `k`-th change of its seed.

    Holds no state that changes, so any number of threads may use it, and a training that goes on in the middle gets
    what it would have got.

    Args:
        settings: what happens how often and how strongly; whether at all is `make_batches`' to decide.
        seed: of all changes.
    """

    def __init__(self, settings: AugmentationSettings, *, seed: int):
        self.settings = settings
        self.seed = seed
        cv2.setNumThreads(1)  # its own threads would only take the cores from the training step

    def __call__(self, images: np.ndarray, labels: np.ndarray, *, first_draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Changes each slice of a batch.

        Args:
            images: `(batch, rows, columns, slices)` float32 in [0, 1].
            labels: `(batch, rows, columns)` uint8.
            first_draw: number of the batch's first slice, counted from the start of the training.

        Returns:
            New arrays of the same shapes and types.
        """
        changed_images, changed_labels = np.empty_like(images), np.empty_like(labels)
        for number, (image, label_map) in enumerate(zip(images, labels, strict=True)):
            rng = np.random.default_rng([_STREAM, self.seed, first_draw + number])
            changed_images[number], changed_labels[number] = augment(image, label_map, self.settings, rng)
        return changed_images, changed_labels


def augment(
    image: np.ndarray, label_map: np.ndarray, settings: AugmentationSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Changes one slice with its neighbours, and its labels, as the settings allow and the generator decides.

    Args:
        image: `(rows, columns, slices)` float32 in [0, 1].
        label_map: `(rows, columns)` uint8.

    Returns:
        The same shapes and types, the image in [0, 1]; the same arrays where nothing was to be changed.
    """
    spatial, intensity = draw_spatial(settings, rng), draw_intensity(settings, rng)
    image, label_map = move(image, label_map, spatial)
    return shade(image, intensity, rng), label_map


def draw_spatial(settings: AugmentationSettings, rng: np.random.Generator) -> SpatialChange:
    """What a slice's places go through.

    The generator gives the same numbers whatever the settings are: a change that is switched off, or stronger, leaves
    the others as they were.
    """
    shift = tuple(settings.shift_fraction * share for share in rng.uniform(-1, 1, 2).tolist())
    bending = settings.elastic_fraction * rng.standard_normal((BENDING_POINTS, BENDING_POINTS, 2))
    scale = _factor(settings.scale_factor, rng)
    rotation_degrees = settings.rotation_degrees * rng.uniform(-1, 1)
    return SpatialChange(
        flip_left_right=_happens(settings.flip_left_right_probability, rng),
        flip_up_down=_happens(settings.flip_up_down_probability, rng),
        rotation_degrees=_sometimes(rotation_degrees, 0.0, settings.rotation_probability, rng),
        scale=_sometimes(scale, 1.0, settings.scale_probability, rng),
        shift=_sometimes(shift, (0.0, 0.0), settings.shift_probability, rng),
        bending=_sometimes(bending, None, settings.elastic_probability, rng),
    )


def draw_intensity(settings: AugmentationSettings, rng: np.random.Generator) -> IntensityChange:
    """What a slice's grey values go through; the generator as in `draw_spatial`."""
    brightness, contrast, gamma = (
        _factor(most, rng) for most in (settings.brightness_factor, settings.contrast_factor, settings.gamma_factor)
    )
    blur, coarser, noise = rng.uniform(0, 1, 3).tolist()
    return IntensityChange(
        brightness=_sometimes(brightness, 1.0, settings.brightness_probability, rng),
        contrast=_sometimes(contrast, 1.0, settings.contrast_probability, rng),
        gamma=_sometimes(gamma, 1.0, settings.gamma_probability, rng),
        blur_sigma_px=_sometimes(blur * settings.blur_sigma_px, 0.0, settings.blur_probability, rng),
        coarseness=_sometimes(
            1 + coarser * (settings.low_resolution_factor - 1), 1.0, settings.low_resolution_probability, rng
        ),
        noise_std=_sometimes(noise * settings.noise_std, 0.0, settings.noise_probability, rng),
    )


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return bool(rng.random() < probability)


def _sometimes(value: Any, otherwise: Any, probability: float, rng: np.random.Generator) -> Any:
    return value if _happens(probability, rng) else otherwise


def _factor(most: float, rng: np.random.Generator) -> float:
    """From 1 / most to most, as often below 1 as above."""
    return math.exp(rng.uniform(-1, 1) * math.log(most))
