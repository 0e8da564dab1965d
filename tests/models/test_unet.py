"""The U-Net has the paper's figure, and runs, saves and reloads on every backend."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from kits_ml import models
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.models.blocks import up_convolution
from kits_ml.models.unet import unet


def test_parameters_are_the_papers():
    # The paper's network has 31,030,658 parameters with 1 input channel and 2 classes. Ours adds
    # - batch normalisation's four numbers a filter in place of the bias of each 3x3 convolution: 3 more a filter;
    # - a bias for each of the four pixels of an up-convolution in place of one for all: 3 more a filter.
    model = unet(image_size=32, num_classes=2, base_filters=64, depth=4)
    convolutions = 2 * (64 + 128 + 256 + 512 + 1024 + 512 + 256 + 128 + 64)
    up_convolutions = 512 + 256 + 128 + 64
    assert model.count_params() == 31_030_658 + 3 * convolutions + 3 * up_convolutions


@pytest.mark.parametrize(("depth", "base_filters", "image_size"), [(1, 2, 16), (2, 4, 48), (4, 3, 32)])
def test_any_depth_and_width(depth, base_filters, image_size):
    model = unet(image_size=image_size, num_classes=3, base_filters=base_filters, depth=depth, input_channels=2)
    image = np.random.default_rng(0).random((2, image_size, image_size, 2), np.float32)
    probabilities = np.asarray(model.predict_on_batch(image))
    assert probabilities.shape == (2, image_size, image_size, 3)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_up_convolution_is_a_transposed_convolution():
    inputs = keras.Input((5, 6, 3))
    ours = keras.Model(inputs, up_convolution(inputs, 4))
    theirs = keras.Sequential([keras.Input((5, 6, 3)), keras.layers.Conv2DTranspose(4, 2, strides=2)])
    kernel, bias = np.random.default_rng(0).random((3, 2, 2, 4)), np.zeros(4)
    ours.layers[1].set_weights([kernel.reshape(1, 1, 3, 16), np.tile(bias, 4)])  # (in, row, column, out)
    theirs.layers[0].set_weights([kernel.transpose(1, 2, 3, 0), bias])  # (row, column, out, in)
    image = np.random.default_rng(1).random((2, 5, 6, 3), np.float32)
    np.testing.assert_allclose(ours.predict_on_batch(image), theirs.predict_on_batch(image), rtol=1e-5)


def test_it_is_saved_and_reloaded_as_it_is(tmp_path):
    model = unet(image_size=32, num_classes=3, base_filters=4, depth=2)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    image = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(image), reloaded.predict_on_batch(image))


@pytest.mark.parametrize("change", [{"image_size": 100}, {"architecture": "vnet"}])
def test_what_cannot_be_built_is_said(change):
    with pytest.raises(InputError, match=r"expected a multiple of 16|unknown 'vnet'"):
        models.build(TrainSettings(**change))


STEP = """
import numpy as np, keras, sys
from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.training.losses import LOSSES
settings = TrainSettings(image_size=32, base_filters=4, depth=2)
runtime.configure(precision="float32")
model = keras.saving.load_model(sys.argv[1], compile=False)
rng = np.random.default_rng(0)
image, labels = rng.random((2, 32, 32, 1), np.float32), rng.integers(0, 3, (2, 32, 32)).astype(np.uint8)
np.save(sys.argv[2], np.asarray(model.predict_on_batch(image)))
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=LOSSES["dice_crossentropy"])
losses = [float(model.train_on_batch(image, labels)) for _ in range(8)]
assert losses[-1] < losses[0], losses
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_every_backend_trains_and_agrees(backend, tmp_path):
    pytest.importorskip(backend)
    model = unet(image_size=32, num_classes=3, base_filters=4, depth=2)
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    expected = model.predict_on_batch(image)
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-W", "ignore", "-c", STEP, tmp_path / "model.keras", tmp_path / "found.npy"]
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)
