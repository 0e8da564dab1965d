"""Settings make the loss they name, or are refused in one line."""

from functools import partial
from typing import get_args, get_type_hints

import numpy as np
import pytest

from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS, PART_WEIGHTS, parse_class_weights
from kits_ml.errors import InputError
from kits_ml.training.losses import PARTS, boundary, make_loss, overlap, pixels
from kits_ml.training.losses.supervision import head_weights
from tests.training.loss_inputs import LABELS, PROBABILITIES, random_batch, value_of


def test_the_compound_is_the_weighted_sum():
    parts = value_of(pixels.categorical_crossentropy), value_of(overlap.soft_dice)
    assert value_of(make_loss(LossSettings())) == pytest.approx(sum(parts))
    settings = LossSettings(pixel_weight=0.5, overlap_weight=2)
    assert value_of(make_loss(settings)) == pytest.approx(0.5 * parts[0] + 2 * parts[1])
    settings = LossSettings(loss="categorical_crossentropy")
    assert value_of(make_loss(settings)) == parts[0]


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        (
            {"loss": "focal", "focal_gamma": 3, "class_weights": "1,2,3"},
            partial(pixels.focal, gamma=3, class_weights=(1, 2, 3)),
        ),
        ({"loss": "topk_crossentropy", "topk_percent": 50}, partial(pixels.topk_crossentropy, percent=50)),
        ({"loss": "tversky", "tversky_alpha": 0.1, "tversky_beta": 2}, partial(overlap.tversky, alpha=0.1, beta=2)),
        ({"loss": "focal_tversky", "focal_tversky_gamma": 2.5}, partial(overlap.focal_tversky, gamma=2.5)),
        ({"loss": "generalized_dice", "overlap_per_slice": True}, partial(overlap.generalized_dice, per_slice=True)),
        (
            {"loss": "dice", "overlap_per_slice": True, "overlap_smoothing": 0.1, "skip_absent_classes": True},
            partial(overlap.soft_dice, per_slice=True, smoothing=0.1, skip_absent=True),
        ),
        (
            {"loss": "dice_crossentropy_boundary", "pixel_weight": 0, "overlap_weight": 0, "boundary_tolerance": 0},
            partial(boundary.boundary_f1, tolerance=0),
        ),
    ],
)  # fmt: skip
def test_settings_reach_the_function(settings, function):
    labels, probabilities = random_batch(4)
    found = value_of(make_loss(LossSettings(**settings)), labels, probabilities)
    assert found == pytest.approx(value_of(function, labels, probabilities), rel=1e-6)
    default = value_of(make_loss(LossSettings(loss=settings["loss"])), labels, probabilities)
    assert found != pytest.approx(default, rel=1e-3)


def test_the_tables_name_the_same_losses_and_parts():
    assert get_args(get_type_hints(LossSettings)["loss"]) == tuple(LOSS_PARTS)
    assert {part for parts in LOSS_PARTS.values() for part in parts} == set(PART_WEIGHTS) == set(PARTS)


def test_sample_weights_are_refused():
    with pytest.raises(InputError, match=r"sample_weight: the loss dice_focal takes none; use class_weights"):
        make_loss(LossSettings(loss="dice_focal"))(LABELS, PROBABILITIES, np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, r"loss: found 'hinge', expected one of dice_crossentropy, "),
        ({"class_weights": "1,2"}, r"class_weights: found '1,2', expected 3 .*\(background, kidney, tumour\)"),
        ({"class_weights": "1,2,x"}, r"class_weights: found '1,2,x', expected 3 numbers"),
        ({"class_weights": "1,-2,3"}, r"class_weights: found '1,-2,3', .* none negative"),
        ({"class_weights": "0,0,0"}, r"class_weights: found '0,0,0', .* one above 0"),
        ({"class_weights": "1,nan,1"}, r"class_weights: found '1,nan,1'"),
        ({"class_weights": "1,1,2", "loss": "dice"}, r"class_weights: given with the loss dice, which has no cross-"),
        ({"class_weights": "1,2,3", "pixel_weight": 0}, r"class_weights: found 1,2,3 with pixel_weight 0, exp"),
        ({"tversky_alpha": 0.0, "tversky_beta": 0}, r"tversky_alpha: found 0 with tversky_beta 0"),
        ({"tversky_beta": -1.0}, r"tversky_beta: found -1.0, expected at least 0"),
        ({"pixel_weight": float("inf")}, r"pixel_weight: found inf, expected a finite number"),
        ({"focal_gamma": float("inf")}, r"focal_gamma: found inf, expected a finite number"),
        ({"overlap_smoothing": float("inf")}, r"overlap_smoothing: found inf, expected a finite number"),
        ({"loss": "tversky", "overlap_weight": 0}, r"overlap_weight: found 0, but nothing else is in the loss tv"),
        ({"overlap_weight": 0, "pixel_weight": 0}, r"overlap_weight: found 0, but nothing else is in the loss di"),
        ({"overlap_smoothing": 0}, r"overlap_smoothing: found 0, expected at least 1e-05"),
        ({"focal_tversky_gamma": 0.5}, r"focal_tversky_gamma: found 0.5, expected 1 to 3"),
        ({"topk_percent": 0}, r"topk_percent: found 0, expected 1 to 100"),
    ],
)  # fmt: skip
def test_bad_settings_get_one_line(change, message):
    with pytest.raises(InputError, match=message) as found:
        LossSettings(**change)
    assert "\n" not in str(found.value)


def test_class_weights_are_read():
    assert parse_class_weights("0.2, 1,3") == (0.2, 1, 3)
    assert parse_class_weights(None) is None


def test_heads_weigh_as_asked():
    assert head_weights([64, 32, 16], "resolution") == [4 / 7, 2 / 7, 1 / 7]  # halved from one to the next
    assert head_weights([32, 32], "resolution") == [0.5, 0.5]
    assert head_weights([32, 32, 32], "halving") == [4 / 7, 2 / 7, 1 / 7]
    assert head_weights([64, 32], "equal") == [0.5, 0.5]
