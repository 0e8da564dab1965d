"""A setting that was chosen and changes nothing is named."""

import pytest

from kits_ml.config import AugmentationSettings, TrainSettings
from kits_ml.config.unused import unused_settings


def test_the_defaults_and_what_is_used_are_silent():
    assert unused_settings(TrainSettings()) == []
    assert unused_settings(TrainSettings(optimizer="sgd", momentum=0.9, loss="focal", focal_gamma=1.0)) == []
    assert unused_settings(TrainSettings(loss="tversky_crossentropy", tversky_alpha=0.5, overlap_smoothing=2.0)) == []
    assert unused_settings(TrainSettings(framing="spacing", pixel_spacing_mm=3.0, rotation_degrees=40.0)) == []
    boundary_smoothed = {"loss": "dice_crossentropy_boundary", "overlap_weight": 0.0, "overlap_smoothing": 0.1}
    assert unused_settings(TrainSettings(**boundary_smoothed)) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"momentum": 0.9}, ["momentum: 0.9 has no effect without optimizer sgd"]),
        (
            {"polynomial_power": 2.0},
            ["polynomial_power: 2.0 has no effect without learning_rate_schedule polynomial"],
        ),
        (
            {"loss": "generalized_dice", "overlap_smoothing": 2.0, "pixel_weight": 0.5},
            [
                "overlap_smoothing: 2.0 has no effect without a loss with Dice, Tversky or boundary",
                "pixel_weight: 0.5 has no effect without a loss with cross-entropy or focal",
            ],
        ),
        ({"topk_percent": 20}, ["topk_percent: 20 has no effect without a top-k loss"]),
        ({"boundary_weight": 0.5}, ["boundary_weight: 0.5 has no effect without a loss with boundary"]),
        (
            {"loss": "focal", "overlap_weight": 0.5, "overlap_per_slice": True},
            [
                "overlap_weight: 0.5 has no effect without a loss with overlap",
                "overlap_per_slice: True has no effect without a loss with overlap",
            ],
        ),
        (
            {"overlap_weight": 0.0, "overlap_smoothing": 0.1},
            ["overlap_smoothing: 0.1 has no effect without a loss with Dice, Tversky or boundary"],
        ),
        (
            {"loss": "dice_crossentropy_boundary", "boundary_weight": 0.0, "boundary_tolerance": 5},
            ["boundary_tolerance: 5 has no effect without a loss with boundary"],
        ),
        (
            {"loss": "dice_focal", "pixel_weight": 0.0, "focal_gamma": 3.0},
            ["focal_gamma: 3.0 has no effect without a focal loss"],
        ),
        ({"pixel_spacing_mm": 3.0}, ["pixel_spacing_mm: 3.0 has no effect without framing spacing"]),
        (
            {"rotation_probability": 0.0, "rotation_degrees": 40.0},
            ["rotation_degrees: 40.0 has no effect without rotation_probability above 0"],
        ),
        (
            {"deep_supervision_weights": "equal"},
            ["deep_supervision_weights: equal has no effect without deep_supervision true"],
        ),
        (
            {"augmentation": False, "noise_std": 0.1},
            ["noise_std: 0.1 has no effect without augmentation true"],
        ),
    ],
)
def test_what_nothing_looks_at_is_named(settings, expected):
    assert unused_settings(TrainSettings(**settings)) == expected


def test_every_strength_of_augmentation_needs_its_probability():
    names = [name for name in AugmentationSettings.names() if name != "augmentation"]
    never = {name: 0.0 for name in names if name.endswith("_probability")}
    strengths = [name for name in names if name not in never]
    stronger = {name: 1.01 * getattr(TrainSettings(), name) for name in strengths}
    lines = unused_settings(TrainSettings(**never, **stronger))
    assert [line.partition(":")[0] for line in lines] == strengths
    for name, line in zip(strengths, lines, strict=True):
        needed = line.removesuffix(" above 0").rpartition(" ")[2]
        assert needed in never
        assert name.startswith(needed.removesuffix("probability"))
