"""A network for prediction alone gives what the trained one gives, with fewer layers that compute."""

import keras
import numpy as np
import pytest
from keras import layers

from kits_ml.config import LossSettings
from kits_ml.models import ARCHITECTURES
from kits_ml.models.folding import folded
from kits_ml.training.losses import make_loss

RNG = np.random.default_rng(0)


def _as_if_trained(model: keras.Model) -> keras.Model:
    """With statistics and scales that a training would leave, and nothing at its initial 0 or 1."""
    for weights in model.weights:
        low, high = (0.5, 1.5) if weights.path.endswith(("variance", "gamma")) else (-0.3, 0.3)
        weights.assign(RNG.uniform(low, high, weights.shape) if len(weights.shape) == 1 else weights)
    return model


def _normalisations(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_an_architecture_gives_the_same(name):
    keras.utils.set_random_seed(0)
    build = ARCHITECTURES[name].builder
    size, depth = (64, 3) if name == "segformer" else (32, 2)  # which attends to one place in 32 pixels
    model = _as_if_trained(build(image_size=size, num_classes=3, base_filters=4, depth=depth))
    before = model.get_weights()
    image = RNG.random((2, size, size, 1), np.float32)
    found = folded(model)
    differences = np.asarray(found(image, training=False)) - np.asarray(model(image, training=False))
    assert abs(differences).max() < 1e-3  # random weights make logits of hundreds, which enlarge each rounding
    assert abs(differences).mean() < 1e-5
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    merges = _normalisations(model) and name != "dense_unet"  # which normalises before it convolves
    assert (_normalisations(found) < _normalisations(model)) == bool(merges)


def test_of_a_plain_unet_no_normalisation_is_left_and_it_can_be_saved(tmp_path):
    model = _as_if_trained(ARCHITECTURES["unet"].builder(image_size=16, num_classes=3, base_filters=4, depth=2))
    model.compile(loss=make_loss(LossSettings()))
    found = folded(model)
    assert _normalisations(model) == 10
    assert _normalisations(found) == 0
    found.save(tmp_path / "model.keras")
    image = RNG.random((1, 16, 16, 1), np.float32)
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(image)), np.asarray(found(image)))


def _used_twice(inputs):
    convolution = layers.Conv2D(4, 3, padding="same")
    first = layers.BatchNormalization()(convolution(inputs))
    return layers.BatchNormalization()(convolution(first))


def _used_by_another(inputs):
    x = layers.Conv2D(4, 1)(inputs)
    return layers.Add()([x, layers.BatchNormalization()(x)])


def _an_output_too(inputs):
    x = layers.Conv2D(4, 1)(inputs)
    return [x, layers.BatchNormalization()(x)]


def _with_an_activation(inputs):
    return layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(inputs))


def _of_another_axis(inputs):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 1)(inputs))


@pytest.mark.parametrize(
    "build", [_used_twice, _used_by_another, _an_output_too, _with_an_activation, _of_another_axis]
)
def test_what_cannot_be_merged_stays(build):
    inputs = keras.Input((8, 8, 4))
    model = _as_if_trained(keras.Model(inputs, build(inputs)))
    found = folded(model)
    assert _normalisations(found) == _normalisations(model)
    _give_the_same(found, model)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.1}])
@pytest.mark.parametrize("use_bias", [True, False])
def test_all_kinds_of_normalisation_and_convolution(options, use_bias):
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, strides=2, use_bias=use_bias)(inputs)
    model = _as_if_trained(keras.Model(inputs, layers.ReLU()(layers.BatchNormalization(**options)(x))))
    found = folded(model)
    assert _normalisations(found) == 0
    _give_the_same(found, model)


def _give_the_same(found: keras.Model, model: keras.Model) -> None:
    image = RNG.random((2, 8, 8, 4), np.float32)
    outputs = zip(_all(found(image, training=False)), _all(model(image, training=False)), strict=True)
    for one, other in outputs:
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)


def _all(outputs) -> list:
    return outputs if isinstance(outputs, list) else [outputs]
