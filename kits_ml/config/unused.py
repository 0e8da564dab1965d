"""Settings that were chosen and change nothing: only some optimisers, schedules, losses and networks look at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from kits_ml.config.augmentation import AugmentationSettings
from kits_ml.config.losses import LOSS_PARTS, PART_WEIGHTS
from kits_ml.config.training import TrainSettings


class _Users(NamedTuple):
    """Who looks at some settings.

    Attributes:
        names: of the settings.
        has: whether a training has one of them.
        title: of them, in words.
    """

    names: tuple[str, ...]
    has: Callable[[TrainSettings], bool]
    title: str


def _parts(*parts: str) -> Callable[[TrainSettings], bool]:
    """Whether one of them is in the loss and weighs something."""
    return lambda settings: bool(set(parts) & set(settings.loss_parts))


def _weighed_by(*weights: str) -> Callable[[TrainSettings], bool]:
    return _parts(*(part for part, weight in PART_WEIGHTS.items() if weight in weights))


def _weighs(weight: str) -> Callable[[TrainSettings], bool]:
    """Whether a part of this weight is in the loss; to take it out by a weight of 0 is an effect."""
    return lambda settings: weight in {PART_WEIGHTS[part] for part in LOSS_PARTS[settings.loss]}


def _happens(change: str) -> Callable[[TrainSettings], bool]:
    return lambda settings: getattr(settings, f"{change}_probability") > 0


#: How strong each change of augmentation is, by its name.
_STRENGTHS = {
    "rotation": "rotation_degrees",
    "scale": "scale_factor",
    "shift": "shift_fraction",
    "elastic": "elastic_fraction",
    "brightness": "brightness_factor",
    "contrast": "contrast_factor",
    "gamma": "gamma_factor",
    "blur": "blur_sigma_px",
    "low_resolution": "low_resolution_factor",
    "noise": "noise_std",
}

_USERS = (
    _Users(("pixel_spacing_mm",), lambda settings: settings.framing == "spacing", "framing spacing"),
    _Users(("momentum",), lambda settings: settings.optimizer == "sgd", "optimizer sgd"),
    _Users(
        ("polynomial_power",),
        lambda settings: settings.learning_rate_schedule == "polynomial",
        "learning_rate_schedule polynomial",
    ),
    _Users(("overlap_weight",), _weighs("overlap_weight"), "a loss with overlap"),
    _Users(
        ("overlap_per_slice", "skip_absent_classes"),
        _weighed_by("overlap_weight", "boundary_weight"),
        "a loss with overlap",
    ),
    _Users(
        ("overlap_smoothing",),
        _parts("dice", "tversky", "focal_tversky", "boundary"),
        "a loss with Dice, Tversky or boundary",
    ),
    _Users(("pixel_weight",), _weighs("pixel_weight"), "a loss with cross-entropy or focal"),
    _Users(("tversky_alpha", "tversky_beta"), _parts("tversky", "focal_tversky"), "a Tversky loss"),
    _Users(("focal_tversky_gamma",), _parts("focal_tversky"), "a focal Tversky loss"),
    _Users(("focal_gamma",), _parts("focal"), "a focal loss"),
    _Users(("topk_percent",), _parts("topk_crossentropy"), "a top-k loss"),
    _Users(("boundary_weight",), _weighs("boundary_weight"), "a loss with boundary"),
    _Users(("boundary_tolerance",), _parts("boundary"), "a loss with boundary"),
    _Users(("deep_supervision_weights",), lambda settings: settings.deep_supervision, "deep_supervision true"),
    _Users(
        tuple(name for name in AugmentationSettings.names() if name != "augmentation"),
        lambda settings: settings.augmentation,
        "augmentation true",
    ),
    *(
        _Users((strength,), _happens(change), f"{change}_probability above 0")
        for change, strength in _STRENGTHS.items()
    ),
)


def unused_settings(settings: TrainSettings) -> list[str]:
    """A line for each setting that is not its default and that nothing in this training looks at, and each reason."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return [
        f"{name}: {getattr(settings, name)} has no effect without {users.title}"
        for users in _USERS
        if not users.has(settings)
        for name in users.names
        if getattr(settings, name) != defaults[name]
    ]
