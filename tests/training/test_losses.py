"""Losses by hand."""

import math

import numpy as np
import pytest
from keras import ops

from kits_ml.training import losses

# two pixels: the first is kidney, the second background
LABELS = np.array([[[1, 0]]], np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]]], np.float32)


def _value(loss, labels=LABELS, probabilities=PROBABILITIES) -> float:
    return float(ops.convert_to_numpy(loss(ops.convert_to_tensor(labels), ops.convert_to_tensor(probabilities))))


def test_categorical_crossentropy():
    # -(log 0.7 + log 0.6) / 2
    assert _value(losses.categorical_crossentropy) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)


def test_soft_dice():
    # kidney: (2 * 0.7 + 1) / (1 + (0.7 + 0.3) + 1) = 2.4 / 3; tumour: (0 + 1) / (0 + 0.2 + 1) = 1 / 1.2
    assert _value(losses.soft_dice) == pytest.approx(1 - (2.4 / 3 + 1 / 1.2) / 2, rel=1e-5)


def test_the_compound_is_the_sum():
    parts = _value(losses.categorical_crossentropy) + _value(losses.soft_dice)
    assert _value(losses.dice_crossentropy) == pytest.approx(parts)


@pytest.mark.parametrize("loss", losses.LOSSES.values())
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_something(loss):
    labels = np.random.default_rng(0).integers(0, 3, (2, 8, 8)).astype(np.uint8)
    perfect = np.eye(3, dtype=np.float32)[labels]
    assert _value(loss, labels, perfect) == pytest.approx(0, abs=1e-5)
    assert 0.5 < _value(loss, labels, np.eye(3, dtype=np.float32)[(labels + 1) % 3]) < 20


@pytest.mark.parametrize("loss", losses.LOSSES.values())
def test_saturated_wrong_probabilities_stay_finite(loss):
    probabilities = np.zeros((1, 1, 2, 3), np.float32)
    probabilities[..., 2] = 1
    assert math.isfinite(_value(loss, LABELS, probabilities))
