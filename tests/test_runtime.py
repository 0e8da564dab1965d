"""Precision by device, and what a device cannot do, said in one line."""

import keras
import numpy as np
import pytest

from kits_ml import runtime
from kits_ml.errors import InputError
from kits_ml.runtime import resolve_precision


@pytest.mark.parametrize(
    ("precision", "backend", "kind", "capability", "cpu_bfloat16", "expected"),
    [
        ("auto", "tensorflow", "cpu", (0, 0), True, "bfloat16"),
        ("auto", "tensorflow", "cpu", (0, 0), False, "float32"),
        ("bfloat16", "tensorflow", "cpu", (0, 0), False, "bfloat16"),
        ("float32", "tensorflow", "cpu", (0, 0), True, "float32"),
        ("auto", "torch", "cpu", (0, 0), True, "float32"),
        ("auto", "jax", "cpu", (0, 0), True, "float32"),
        ("auto", "tensorflow", "gpu", (9, 0), False, "bfloat16"),  # H100
        ("auto", "torch", "gpu", (8, 0), False, "bfloat16"),  # A100
        ("auto", "tensorflow", "gpu", (7, 5), False, "float16"),  # T4
        ("auto", "tensorflow", "gpu", (6, 1), True, "float32"),  # GTX 1080
        ("auto", "jax", "gpu", (0, 0), True, "float32"),  # not known
        ("auto", "jax", "tpu", (0, 0), False, "bfloat16"),
        ("float16", "tensorflow", "gpu", (8, 0), False, "float16"),
        ("float32", "tensorflow", "gpu", (8, 0), False, "float32"),
    ],
)
def test_the_precision_is_right_for_the_device(precision, backend, kind, capability, cpu_bfloat16, expected):
    found = resolve_precision(precision, backend=backend, kind=kind, capability=capability, cpu_bfloat16=cpu_bfloat16)
    assert found == expected


@pytest.mark.parametrize(
    ("precision", "backend", "message"),
    [
        ("float16", "tensorflow", "precision: found float16 on a CPU, expected auto, float32 or bfloat16"),
        ("float16", "torch", "precision: found float16 on a CPU, expected auto, float32"),
        ("bfloat16", "torch", "precision: found bfloat16 on a CPU with torch, expected auto or float32"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(precision, backend, message):
    with pytest.raises(InputError, match=message):
        resolve_precision(precision, backend=backend, kind="cpu", capability=(0, 0), cpu_bfloat16=True)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(InputError, match=r"num_devices: found 99, expected at most \d+ \((c|g)pu:0"):
        runtime.configure(precision="float32", num_devices=99)


@pytest.mark.parametrize(
    ("capability", "policy"), [((8, 0), "mixed_bfloat16"), ((7, 0), "mixed_float16"), ((6, 0), "float32")]
)
def test_a_gpu_gets_a_policy(capability, policy, monkeypatch):
    monkeypatch.setattr(runtime, "accelerator", lambda: runtime.Accelerator("gpu", ("gpu:0",), capability))
    try:
        runtime.configure()
        assert keras.config.dtype_policy().name == policy
        assert runtime.describe()["dtype_policy"] == policy
    finally:
        monkeypatch.undo()
        runtime.configure(precision="float32")


def test_what_is_used_is_described():
    runtime.configure(precision="float32")
    found = runtime.describe()
    assert found["precision_used"] == "float32"
    assert found["num_devices"] == runtime.num_devices() == 1
    assert found["deterministic_operations"] is False
    assert found["dtype_policy"] == "float32"


def _is_bfloat16(values: np.ndarray) -> bool:
    """Whether float32 numbers have the 16 leading bits of a bfloat16 and nothing behind them."""
    return not (np.ascontiguousarray(values, np.float32).view(np.uint32) & 0xFFFF).any()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's rewrite")
def test_the_loss_stays_in_float32_where_convolutions_are_in_bfloat16():
    """On any processor: one without bfloat16 computes it slowly."""
    import tensorflow as tf

    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    logits = keras.layers.Conv2D(3, 1)(hidden)
    model = keras.Model(inputs, [logits, keras.layers.Softmax()(logits)])

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            logits, probabilities = model(images, training=True)
            loss = -tf.reduce_mean(tf.math.log(probabilities[..., 1]))
        return logits, probabilities, loss, tape.gradient(loss, model.trainable_variables)

    images = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    try:
        runtime.configure(precision="bfloat16")
        logits, probabilities, loss, gradients = step(images)
    finally:
        runtime.configure(precision="float32")
    assert _is_bfloat16(logits.numpy())
    assert not _is_bfloat16(probabilities.numpy())
    by_hand = keras.ops.softmax(logits.numpy(), axis=-1)
    np.testing.assert_allclose(probabilities, by_hand, rtol=1e-5)
    assert float(loss) == pytest.approx(-np.log(np.asarray(by_hand)[..., 1]).mean(), rel=1e-5)
    # the bias before the softmax: the mean of p - y
    expected = np.asarray(by_hand).mean(axis=(0, 1, 2)) - [0, 1, 0]
    np.testing.assert_allclose(gradients[-1], expected, rtol=0.01)
