"""Every architecture builds, learns, is saved and reloaded, and does the same on every backend."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from kits_ml import models
from kits_ml.config import LossSettings, TrainSettings
from kits_ml.errors import InputError
from kits_ml.models import ARCHITECTURES
from kits_ml.training.losses import make_loss

NAMES = list(ARCHITECTURES)
SUPERVISED = [name for name, architecture in ARCHITECTURES.items() if architecture.deep_supervision]


#: Of a network that in 32 pixels has one place to attend to.
SIZES = {"segformer": {"image_size": 64, "depth": 4}}
#: And of one whose dilations see padding alone there.
SIZES_TO_LEARN_AT = {**SIZES, "deeplab_v3_plus": {"image_size": 64, "depth": 3}}


def _build(name: str, **options) -> keras.Model:
    options = {"image_size": 32, "num_classes": 3, "base_filters": 4, "depth": 2, **options}
    keras.utils.set_random_seed(0)
    return ARCHITECTURES[name].builder(**options)


def _image(channels: int = 1, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).random((2, size, size, channels), np.float32)


def _image_for(model: keras.Model) -> np.ndarray:
    return _image(model.input_shape[-1], model.input_shape[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("depth", "base_filters", "image_size"), [(1, 1, 16), (3, 6, 48)])
def test_any_depth_width_and_number_of_slices(name, depth, base_filters, image_size):
    model = _build(name, depth=depth, base_filters=base_filters, image_size=image_size, input_channels=3)
    assert model.input_shape == (None, image_size, image_size, 3)
    assert model.output_shape == (None, image_size, image_size, 3)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_with_all_its_weights_and_comes_back_from_disk(name, tmp_path):
    model = _build(name, input_channels=3, **SIZES_TO_LEARN_AT.get(name, {}))
    image = _image_for(model)
    labels = np.random.default_rng(1).integers(0, 3, image.shape[:3]).astype(np.uint8)
    before = model.get_weights()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=make_loss(LossSettings()), run_eagerly=True)
    losses = [float(model.train_on_batch(image, labels)) for _ in range(3)]
    assert losses[-1] < losses[0]
    still = [
        weights.path
        for weights, old in zip(model.weights, before, strict=True)
        if not _moved(weights.numpy(), old, at_each_place=weights.path.endswith("kernel"))
    ]
    assert not still

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    found = np.asarray(model(image, training=False))
    np.testing.assert_array_equal(found, np.asarray(reloaded(image, training=False)))
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    assert {type(layer).__module__.split(".")[0] for layer in reloaded.layers} == {"keras"}  # none of ours


def _moved(now: np.ndarray, before: np.ndarray, *, at_each_place: bool) -> bool:
    """Whether a training changed a weight; of a convolution, at each of its places: no tap sees padding alone."""
    changed = now != before
    return bool(changed.any(axis=(-2, -1)).all() if at_each_place and now.ndim == 4 else changed.any())


@pytest.mark.parametrize("name", SUPERVISED)
def test_heads_of_deep_supervision(name):
    model = _build(name, depth=3, deep_supervision=True)
    assert len(model.outputs) > 1
    single = models.without_supervision(model)
    assert single.output_shape == (None, 32, 32, 3)
    np.testing.assert_array_equal(np.asarray(single(_image())), np.asarray(model(_image())[0]))
    assert models.without_supervision(single) is single
    assert [weights.shape for weights in single.weights] == [
        weights.shape for weights in _build(name, depth=3).weights
    ]


def test_sizes_of_the_heads():
    sizes = {
        name: [shape[1] for shape in _build(name, depth=3, deep_supervision=True).output_shape] for name in SUPERVISED
    }
    assert sizes == {
        "unet_plus_plus": [32, 32, 32],  # one a nested U-Net
        "unet_3_plus": [32, 32, 32, 32],  # one a level, enlarged
        "nnunet": [32, 16],  # one a level of the decoder but the coarsest
        "residual_encoder_unet": [32, 16],
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_1x1_convolution_has_a_stride(name):
    """TensorFlow dies of its gradient where oneDNN takes AVX-512, see `linear_convolution`."""
    strided = [
        layer.name
        for layer in _build(name, depth=3, image_size=64).layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) and layer.strides != (1, 1)
    ]
    assert not strided


def test_settings_reach_the_builder():
    settings = TrainSettings(
        architecture="nnunet", image_size=32, base_filters=4, depth=3, input_slices=5, deep_supervision=True
    )
    model = models.build(settings)
    assert model.input_shape == (None, 32, 32, 5)
    assert model.output_shape == [(None, 32, 32, 3), (None, 16, 16, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 100}, "expected a multiple of 16"),
        ({"image_size": 64, "depth": 6}, "found 64, expected a multiple of 64 for depth 6, and at least 128"),
        ({"architecture": "vnet"}, "unknown 'vnet'"),
        ({"architecture": "r2_unet", "deep_supervision": True}, "not for r2_unet, expected one of unet_plus_plus"),
        (
            {"architecture": "nnunet", "depth": 2, "deep_supervision": True},
            "deep_supervision: found true, but nnunet of depth 2 has one output; expected a greater depth",
        ),
        ({"input_slices": 2}, "input_slices: found 2, expected an odd number"),
    ],
)
def test_what_cannot_be_built_is_said(change, message):
    with pytest.raises(InputError, match=message):
        models.build(TrainSettings(**change))


STEPS = """
import sys
from pathlib import Path
import keras, numpy as np
from kits_ml import runtime
from kits_ml.config import LossSettings
from kits_ml.training.losses import make_loss
runtime.configure(precision="float32")
for path in sorted(Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(path, compile=False)
    image = np.load(path.with_suffix(".npy"))
    labels = np.random.default_rng(1).integers(0, 3, image.shape[:3]).astype(np.uint8)
    optimizer = keras.optimizers.Adam(3e-3)
    model.compile(optimizer=optimizer, loss=make_loss(LossSettings()), jit_compile=runtime.jit_compile())
    found = np.asarray(model.predict_on_batch(image))
    losses = [float(model.train_on_batch(image, labels)) for _ in range(4)]
    assert losses[-1] < losses[0], (path.stem, losses)
    np.save(Path(sys.argv[2]) / path.stem, found)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_every_backend_trains_and_agrees(backend, tmp_path):
    pytest.importorskip(backend)
    expected = {}
    for name in NAMES:
        model = _build(name, **SIZES.get(name, {}))
        image = _image_for(model)
        for _ in range(30):  # normalisation sees the data; else R2U-Net's sums grow, and rounding with them
            model(image, training=True)
        np.save(tmp_path / name, image)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = np.asarray(model(image, training=False))
    found = tmp_path / "found"
    found.mkdir()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEPS, tmp_path, found],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        timeout=800,
    )
    for name in NAMES:
        np.testing.assert_allclose(np.load(found / f"{name}.npy"), expected[name], atol=1e-4, err_msg=name)
