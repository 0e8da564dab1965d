"""Trainings in processes of their own: several devices, determinism, the other backends."""

import os
import subprocess
import sys

import numpy as np
import pytest

#: Arguments: the file to write, settings as Python, how many devices the processor plays.
TRAINING = """
import ast, os, sys
path, settings, num_logical = sys.argv[1], ast.literal_eval(sys.argv[2]), int(sys.argv[3])
backend = os.environ["KERAS_BACKEND"]
if backend == "jax":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_logical}"
if backend == "tensorflow":
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_logical)
import numpy as np
from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.training.batches import SliceArrays
from kits_ml.training.fit import fit
size = {"image_size": 16, "base_filters": 4, "depth": 2, "batch_size": 4, "epochs": 2, "steps_per_epoch": 6}
settings = TrainSettings(**{**size, "precision": "float32", "num_threads": 1, **settings})
runtime.configure(
    precision=settings.precision,
    deterministic=settings.deterministic,
    num_devices=settings.num_devices,
    num_threads=settings.num_threads,
)
if settings.deterministic:
    if backend == "tensorflow":
        from tensorflow.python.framework import config
        assert config.is_op_determinism_enabled()
    elif backend == "torch":
        import torch
        assert torch.are_deterministic_algorithms_enabled()
    else:
        assert "--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"]
runtime.seed_everything(settings.seed)
def slices(seed):
    labels = np.random.default_rng(seed).integers(0, 3, (7, 16, 16)).astype(np.uint8)
    return SliceArrays(grey=60 + 70 * labels, labels=labels, cases=("a",) * 4 + ("b",) * 3)
with runtime.device_scope():
    model = models.build(settings)
fitted = fit(model, slices(0), slices(1), settings)
model = fitted.model
model(np.zeros((1, 16, 16, 1), np.float32))
np.savez(path, *model.get_weights(), loss=fitted.history["loss"], devices=runtime.num_devices())
"""


def _train(tmp_path, name, *, backend="tensorflow", num_logical=1, **settings):
    """Losses by epoch, weights, and the number of devices."""
    path = tmp_path / f"{name}.npz"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINING, path, repr(settings), str(num_logical)],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        timeout=600,
    )
    found = dict(np.load(path))
    return found.pop("loss"), int(found.pop("devices")), found


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_train_as_one(backend, tmp_path):
    pytest.importorskip(backend)
    settings = {"optimizer": "sgd", "momentum": 0.9, "ema_momentum": 0.5}
    if backend == "tensorflow":
        # cross-entropy is a mean over slices, and normalisation sees the whole batch: halves add up
        settings |= {"loss": "categorical_crossentropy"}
    else:  # Dice is of the batch as one, and gradients are clipped together
        settings |= {"loss": "dice_crossentropy", "clip_norm": 0.5, "accumulation_steps": 2}
    loss, num_devices, weights = _train(
        tmp_path, "two", backend=backend, num_logical=2, num_devices=0, learning_rate=0.05, **settings
    )
    expected_loss, one, expected = _train(tmp_path, "one", backend=backend, learning_rate=0.05, **settings)
    assert (num_devices, one) == (2, 1)
    assert loss[-1] < loss[0]
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-3)
    for name, values in weights.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(tmp_path):
    first, again, other = (
        _train(tmp_path, name, deterministic=True, num_threads=2, seed=seed, ema_momentum=0.5)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert all(np.array_equal(first[2][name], again[2][name]) for name in first[2])
    assert not all(np.array_equal(first[2][name], other[2][name]) for name in first[2])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_other_backends_do_it_all(backend, tmp_path):
    pytest.importorskip(backend)
    settings = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "learning_rate": 0.05,
        "weight_decay": 1e-3,
        "clip_norm": 1.0,
        "ema_momentum": 0.5,
        "accumulation_steps": 2,
        "learning_rate_schedule": "one_cycle",
        "max_steps": 10,
    }
    loss, _, weights = _train(tmp_path, "other", backend=backend, deterministic=True, **settings)
    expected_loss, _, expected = _train(tmp_path, "tensorflow", **settings)
    assert len(loss) == 2
    # weights start from other random numbers
    assert {name: values.shape for name, values in weights.items()} == {
        name: values.shape for name, values in expected.items()
    }
    assert loss[-1] < loss[0]
    assert expected_loss[-1] < expected_loss[0]
