"""Where Keras 3 makes TensorFlow slower than it is: a kernel that it leaves out, and data that keep it waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Batches that lie ready for the network.
_NUM_READY = 2


def use_fused_batch_normalization() -> None:
    """From here on Keras' layer trains with TensorFlow's fused batch normalisation, where it can.

    Keras computes it, and TensorFlow its gradient, from some twenty operations that each go through the whole batch:
    a third of the time that a U-Net trains on a processor (experiments/benchmarks/throughput.md). Values, gradients
    and running statistics are the same up to rounding. Layers, files and configurations stay Keras' own, and in
    prediction nothing changes. Calling it again has no effect.
    """
    import keras
    import tensorflow as tf

    layer_class = keras.layers.BatchNormalization
    plain = layer_class.call
    if getattr(plain, "is_fused", False):
        return

    def call(self: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None):
        if mask is not None or not training or not _fits(self, inputs):
            return plain(self, inputs, training=training, mask=mask)
        num_channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(num_channels),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros(num_channels),
            mean=tf.zeros(0),  # of its own running statistics, which it shall not keep
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // num_channels, tf.float32)
        variance = variance * ((count - 1) / count)  # it divides by count - 1, Keras by count
        for average, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + found * (1 - self.momentum))
        return outputs

    call.is_fused = True
    layer_class.call = call


def as_dataset(batches: Any) -> Any:
    """Batches as a dataset for `keras.Model.fit`: the same ones in the same order, made ahead by a thread.

    Of a `PyDataset` Keras makes a dataset that tunes itself. The thread that does so sleeps for 10 ms, then each time
    twice as long, and the end of an epoch may wait until it wakes: up to as long as the epoch took. In epochs of
    three seconds two of eight waited for two and a half (experiments/benchmarks/throughput.md).

    Args:
        batches: a `keras.utils.PyDataset` of finite length; its batches are asked for anew in each epoch.

    Returns:
        A `tf.data.Dataset`.
    """
    import tensorflow as tf

    def generate() -> Iterator[Any]:
        for step in range(batches.num_batches):
            yield batches[step]

    def spec(array: Any) -> tf.TensorSpec:
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    dataset = tf.data.Dataset.from_generator(generate, output_signature=tf.nest.map_structure(spec, batches[0]))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.num_batches)).prefetch(_NUM_READY)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _fits(layer: Any, inputs: Any) -> bool:
    """Whether the kernel can do what the layer does: maps with the channels last, in float32, on one device alone."""
    return (
        layer.trainable
        and not layer.synchronized
        and not layer.renorm
        and inputs.dtype == "float32" == layer.compute_dtype
        and len(inputs.shape) == 4
        and inputs.shape[-1] is not None
        and layer.axis in (-1, 3)
    )
