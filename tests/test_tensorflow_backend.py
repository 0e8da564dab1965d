"""Keras on TensorFlow, quicker: the same values by the fused kernel, the same batches without waiting."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from kits_ml import runtime

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a kernel of TensorFlow")

SHAPE = (3, 5, 4, 6)

#: Trains a layer for two steps, with Keras' own layer where the first argument is "plain".
SCRIPT = """
import sys
import numpy as np
from kits_ml import runtime, tensorflow_backend
if sys.argv[1] == "plain":
    tensorflow_backend.use_fused_batch_normalization = lambda: None
runtime.configure(precision="float32")
import keras
import tensorflow as tf
rng = np.random.default_rng(0)
layer = keras.layers.BatchNormalization(momentum=0.8, epsilon=0.01, **eval(sys.argv[2]))
layer.build((None, 5, 4, 6))
for variable in layer.trainable_variables:
    variable.assign(rng.uniform(0.5, 1.5, variable.shape))
images = tf.constant(rng.normal(3, 2, (3, 5, 4, 6)), tf.float32)
pull = tf.constant(rng.normal(size=(3, 5, 4, 6)), tf.float32)
kept = []
for _ in range(2):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs * pull)
    kept += [outputs, *tape.gradient(loss, [images, *[one.value for one in layer.trainable_variables]])]
kept += [*layer.variables, layer(images, training=False)]
graph = tf.function(lambda given: layer(given, training=True)).get_concrete_function(images).graph
print(sorted({node.type for node in graph.get_operations() if "BatchNorm" in node.type}))
np.savez(sys.argv[3], *[np.asarray(one) for one in kept])
"""


def _trained(which: str, options: dict, folder) -> tuple[str, list[np.ndarray]]:
    path = folder / f"{which}.npz"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, which, repr(options), str(path)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    with np.load(path) as arrays:
        return done.stdout.splitlines()[-1], [arrays[name] for name in arrays.files]


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_values_gradients_and_statistics_are_keras_own(options, tmp_path):
    plain, expected = _trained("plain", options, tmp_path)
    fused, found = _trained("fused", options, tmp_path)
    assert plain == "[]"
    assert fused == "['FusedBatchNormV3']"
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"axis": 1}, SHAPE), ({"dtype": "mixed_bfloat16"}, SHAPE), ({}, (4, 6)), ({"trainable": False}, SHAPE)],
)
def test_what_the_kernel_cannot_do_keras_does(options, shape):
    runtime.configure(precision="float32")
    layer = layers.BatchNormalization(**options)
    images = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    outputs = np.asarray(layer(images, training=True), np.float32)
    assert outputs.shape == shape
    if layer.trainable:
        axes = tuple(axis for axis in range(len(shape)) if axis != layer.axis % len(shape))
        np.testing.assert_allclose(outputs.mean(axis=axes), 0, atol=0.02)


def test_a_layer_saves_as_keras_own():
    runtime.configure(precision="float32")
    config = keras.saving.serialize_keras_object(layers.BatchNormalization())
    assert (config["module"], config["class_name"]) == ("keras.layers", "BatchNormalization")


class _Batches(keras.utils.PyDataset):
    """Numbered batches, with labels of two sizes."""

    num_batches = 3

    def __getitem__(self, step):
        images = np.full((2, 4, 4, 1), step, np.float32)
        return images, (np.full((2, 4, 4), step, np.uint8), np.full((2, 2, 2), step, np.uint8))


def test_batches_come_in_order_anew_in_each_epoch_and_nothing_tunes_itself():
    batches = _Batches()
    dataset = runtime.feed(batches)
    assert int(dataset.cardinality()) == 3
    assert dataset.options().autotune.enabled is False
    for _ in range(2):
        found = list(dataset.as_numpy_iterator())
        assert [images[0, 0, 0, 0] for images, _ in found] == [0, 1, 2]
        assert [tuple(one.shape for one in labels) for _, labels in found] == [((2, 4, 4), (2, 2, 2))] * 3
        assert {one.dtype for _, labels in found for one in labels} == {np.dtype(np.uint8)}
