"""Multiply-adds by hand, by the papers and by TensorFlow's own count."""

import keras
import pytest
from keras import layers

from kits_ml.models import ARCHITECTURES, cost


def _model(build) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, build(inputs))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(5, 3, padding="same"), 64 * 9 * 3 * 5),
        (layers.Conv2D(5, 3, strides=2, padding="same"), 16 * 9 * 3 * 5),
        (layers.Conv2D(6, 3, groups=3), 36 * 9 * 1 * 6),  # valid: 6x6 places
        (layers.DepthwiseConv2D(3, padding="same"), 64 * 9 * 3),
        (layers.Dense(7), 64 * 3 * 7),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(), 0),
    ],
)
def test_a_layer(layer, expected):
    assert cost.multiply_adds(_model(layer)) == expected


def test_attention():
    # 64 queries and answers 3 wide, 2 heads of 4: four projections between 3 and 8; queries times keys; weights times
    # values
    def build(x):
        x = layers.Reshape((64, 3))(x)
        return layers.MultiHeadAttention(2, key_dim=4)(x, x)

    assert cost.multiply_adds(_model(build)) == 4 * 64 * 3 * 8 + 2 * 64 * 64 * 8


def test_a_layer_that_is_called_twice_counts_twice():
    shared = layers.Conv2D(3, 1)
    assert cost.multiply_adds(_model(lambda x: shared(shared(x)))) == 2 * 64 * 3 * 3


def test_an_unknown_layer_is_an_error():
    with pytest.raises(ValueError, match="SeparableConv2D: expected a layer whose multiply-adds are known"):
        cost.multiply_adds(_model(layers.SeparableConv2D(3, 3)))


def test_segformer_costs_what_the_paper_says():
    # 8.4 G for B0 with 150 classes at 512x512 (2105.15203, table 1), which are multiply-adds
    model = ARCHITECTURES["segformer"].builder(
        image_size=512, num_classes=150, base_filters=32, depth=5, input_channels=3
    )
    assert cost.multiply_adds(model) == pytest.approx(8.4e9, rel=0.01)
    assert cost.gflops(model) == pytest.approx(16.8, rel=0.01)


def test_tensorflow_counts_the_same():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's profiler sees TensorFlow's graphs only")
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = ARCHITECTURES["unet"].builder(image_size=32, num_classes=3, base_filters=8, depth=2)
    function = tf.function(lambda x: model(x, training=False))
    graph = convert_variables_to_constants_v2(function.get_concrete_function(tf.zeros((1, 32, 32, 1)))).graph
    options = {**tf.compat.v1.profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    with graph.as_default():
        found = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    # TensorFlow also counts what we leave out: biases, normalisation, softmax
    assert 2 * cost.multiply_adds(model) < found < 2.1 * cost.multiply_adds(model)
