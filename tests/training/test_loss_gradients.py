"""Losses and their gradients at the ends of the number range."""

import math
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS
from kits_ml.training.losses import make_loss, overlap, pixels
from tests.training.loss_inputs import one_hot, random_batch, value_of

NAMES = list(LOSS_PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_something(name):
    loss = make_loss(LossSettings(loss=name))
    labels, _ = random_batch(8)
    assert value_of(loss, labels, one_hot(labels)) == pytest.approx(0, abs=1e-5)
    assert 0.5 < value_of(loss, labels, one_hot((labels + 1) % 3)) < 72  # 69.08 is -log 1e-30


def _gradient(loss, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of the loss of softmax probabilities, with respect to the logits."""
    import tensorflow as tf

    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = loss(tf.constant(labels), ops.softmax(logits, axis=-1))
    return tape.gradient(found, logits).numpy()


on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes TensorFlow's gradients")


@on_tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite_at_saturated_probabilities(name):
    # gammas below 1 and above have an infinite slope at 0, where a careless power gives 0 * inf
    loss = make_loss(LossSettings(loss=name, focal_gamma=0.5, focal_tversky_gamma=3))
    for labels in (np.arange(32).reshape(2, 4, 4) % 3, np.zeros((2, 4, 4), int)):
        for predicted in (labels, (labels + 1) % 3):
            for gap in (20, 60, 1000):  # probabilities of 2e-9, 9e-27 and 0
                logits = gap * one_hot(predicted)
                assert math.isfinite(value_of(loss, labels, np.asarray(ops.softmax(logits))))
                assert np.isfinite(_gradient(loss, labels, logits)).all()


@on_tensorflow
@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0])
def test_a_pixel_that_is_certainly_wrong_still_learns(gap):
    # tumour (2) taken for background: the slope of cross-entropy is p - y, -1 and 1 where p is 0 and 1
    found = _gradient(pixels.categorical_crossentropy, np.full((1, 1, 1), 2), np.array([[[[gap, 0, 0]]]], np.float32))
    other = math.exp(-gap) / (1 + 2 * math.exp(-gap))
    np.testing.assert_allclose(found[0, 0, 0], [1 - 2 * other, other, other - 1], rtol=1e-5, atol=1e-9)


@on_tensorflow
@pytest.mark.parametrize("per_slice", [False, True])
@pytest.mark.parametrize(
    "loss", [overlap.soft_dice, overlap.tversky, overlap.focal_tversky, overlap.generalized_dice]
)
def test_the_pull_of_an_absent_tumour_is_bounded(loss, per_slice):
    labels = np.zeros((2, 16, 16), np.uint8)
    most = 1 / 4 if loss is overlap.generalized_dice else 1 / 4 / 2  # there one fraction, else a mean of two
    for probability in (1e-6, 1e-4, 1 / 512, 1 / 256, 0.1, 0.5):  # P is 1 a batch or a slice at the third and fourth
        logits = np.tile(np.log([1 - probability, 1e-7, probability]).astype(np.float32), (2, 16, 16, 1))
        pull = np.abs(_gradient(partial(loss, per_slice=per_slice), labels, logits)[..., 2]).sum()
        assert 0 < pull <= most
