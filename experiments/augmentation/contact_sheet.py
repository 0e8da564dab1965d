"""Shows what the augmentation of the defaults does to a slice, on a phantom case.

    python experiments/augmentation/contact_sheet.py

writes `experiments/augmentation/contact_sheet.png`: a slice as prepared, each change alone and as strong as it gets,
and the changes of the first draws of seed 0. Outlines are the labels, moved with the image.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kits_ml import figures, files
from kits_ml.config import AugmentationSettings, PreprocessingSettings
from kits_ml.data import frames, phantom, preprocessing
from kits_ml.training.augmentation import BENDING_POINTS, Augmentation
from kits_ml.training.intensity import IntensityChange, shade
from kits_ml.training.spatial import SpatialChange, move

OUTPUT = Path(__file__).with_suffix(".png")
NUM_ROWS, NUM_COLUMNS = 4, 6
CASE = 2


def telling_slice() -> tuple[np.ndarray, np.ndarray]:
    """The slice of a phantom case with the most kidney and tumour: `(256, 256, 1)` in [0, 1], and its labels."""
    case = phantom.generate_case(seed=0, index=CASE, distribution="small")
    settings = PreprocessingSettings()
    frame = frames.find_frame(case.image, settings, spacing_mm=case.spacing_mm)
    grey = np.concatenate(list(preprocessing.prepare_image(case.image, frame, settings)))
    labels = preprocessing.prepare_labels(case.label_map, frame)
    kidney, tumour = ((labels == label).sum(axis=(1, 2)) for label in (1, 2))
    number = int(np.sqrt(kidney * tumour).argmax())
    return preprocessing.network_input(grey[number, ..., None]), labels[number]


def strongest(settings: AugmentationSettings) -> dict[str, SpatialChange | IntensityChange]:
    """Each change alone, as strong as the settings allow."""
    bending = settings.elastic_fraction * np.random.default_rng(0).standard_normal(
        (BENDING_POINTS, BENDING_POINTS, 2)
    )
    degrees, scale, shift = settings.rotation_degrees, settings.scale_factor, settings.shift_fraction
    return {
        "flip left, right": SpatialChange(flip_left_right=True),
        "flip front, back (off)": SpatialChange(flip_up_down=True),
        f"rotation {degrees:g} degrees": SpatialChange(rotation_degrees=degrees),
        f"scale {scale:g}": SpatialChange(scale=scale),
        f"scale 1 / {scale:g}": SpatialChange(scale=1 / scale),
        f"shift {shift:g}, {shift:g}": SpatialChange(shift=(shift, shift)),
        f"elastic {settings.elastic_fraction:g}": SpatialChange(bending=bending),
        f"brightness {settings.brightness_factor:g}": IntensityChange(brightness=settings.brightness_factor),
        f"contrast {settings.contrast_factor:g}": IntensityChange(contrast=settings.contrast_factor),
        f"gamma {settings.gamma_factor:g}": IntensityChange(gamma=settings.gamma_factor),
        f"blur {settings.blur_sigma_px:g} px": IntensityChange(blur_sigma_px=settings.blur_sigma_px),
        f"low resolution {settings.low_resolution_factor:g}": IntensityChange(
            coarseness=settings.low_resolution_factor
        ),
        f"noise {settings.noise_std:g}": IntensityChange(noise_std=settings.noise_std),
    }


def panels(settings: AugmentationSettings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Titles, images and labels of the whole sheet."""
    image, label_map = telling_slice()
    found = {"as prepared": (image, label_map)}
    for title, change in strongest(settings).items():
        if isinstance(change, SpatialChange):
            found[title] = move(image, label_map, change)
        else:
            found[title] = shade(image, change, np.random.default_rng(0)), label_map
    num_draws = NUM_ROWS * NUM_COLUMNS - len(found)
    batch = np.stack([image] * num_draws), np.stack([label_map] * num_draws)
    for number, one in enumerate(zip(*Augmentation(settings, seed=0)(*batch, first_draw=0), strict=True)):
        found[f"draw {number}"] = one
    return found


def main() -> None:
    low, high = figures.WINDOW_HU
    figure = Figure(figsize=(11, 8), layout="constrained")
    shown = panels(AugmentationSettings())
    axes = figure.subplots(NUM_ROWS, NUM_COLUMNS).ravel()
    for one, (title, (image, label_map)) in zip(axes, shown.items(), strict=True):
        figures.overlay(low + image[..., 0] * (high - low), label_map, None, axes=one, spacing_mm=(1, 1), title=title)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(96).save(small, format="png", optimize=True)
    files.write_bytes(OUTPUT, small.getvalue())


if __name__ == "__main__":
    main()
