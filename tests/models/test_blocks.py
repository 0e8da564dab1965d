"""Blocks that are written another way than the papers write them compute the same."""

import keras
import numpy as np
import pytest

from kits_ml.models.blocks import depthwise_convolution, linear_convolution, up_convolution


def test_up_convolution_is_a_transposed_convolution():
    inputs = keras.Input((5, 6, 3))
    ours = keras.Model(inputs, up_convolution(inputs, 4))
    theirs = keras.Sequential([keras.Input((5, 6, 3)), keras.layers.Conv2DTranspose(4, 2, strides=2)])
    kernel, bias = np.random.default_rng(0).random((3, 2, 2, 4)), np.arange(4.0)
    ours.layers[1].set_weights([kernel.reshape(1, 1, 3, 16), np.tile(bias, 4)])  # (in, row, column, out)
    theirs.layers[0].set_weights([kernel.transpose(1, 2, 3, 0), bias])  # (row, column, out, in)
    image = np.random.default_rng(1).random((2, 5, 6, 3), np.float32)
    np.testing.assert_allclose(ours.predict_on_batch(image), theirs.predict_on_batch(image), rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_linear_convolution_of_one_pixel_with_a_stride(stride):
    inputs = keras.Input((6, 8, 3))
    ours = keras.Model(inputs, linear_convolution(inputs, 4, kernel_size=1, stride=stride))
    theirs = keras.Sequential([keras.Input((6, 8, 3)), keras.layers.Conv2D(4, 1, strides=stride, use_bias=False)])
    theirs.set_weights(ours.get_weights())
    image = np.random.default_rng(1).random((2, 6, 8, 3), np.float32)
    np.testing.assert_allclose(ours.predict_on_batch(image), theirs.predict_on_batch(image), rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 64])
def test_a_depthwise_convolution_keeps_the_size_of_its_numbers_whatever_the_number_of_channels(channels):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, channels))
    image = np.random.default_rng(0).normal(size=(8, 32, 32, channels)).astype(np.float32)
    ours = (keras.Model(inputs, depthwise_convolution(inputs)) for _ in range(64 // channels))
    deviations = [np.std(model(image)) for model in ours]
    assert np.mean(deviations) == pytest.approx(np.sqrt(2), rel=0.15)  # of which ReLU leaves as much as came in
