"""A setting that was chosen and changes nothing is named."""

import pytest

from kits_ml.config import TrainSettings
from kits_ml.config.unused import unused_settings


def test_the_defaults_and_what_is_used_are_silent():
    assert unused_settings(TrainSettings()) == []
    assert unused_settings(TrainSettings(optimizer="sgd", momentum=0.9, loss="focal", focal_gamma=1.0)) == []
    assert unused_settings(TrainSettings(loss="tversky_crossentropy", tversky_alpha=0.5, overlap_smoothing=2.0)) == []


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
