"""What a network costs to run, counted from its graph."""

from __future__ import annotations

import math

import keras
from keras import layers


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image through a functional model.

    Counted are convolutions, dense layers and attention: all that multiplies by weights, and attention's two products
    of activations. Biases, normalisation, activations, pooling, resizing, sums and products of feature maps are left
    out; together they are a few percent. A layer that is called several times counts as often.
    """
    return sum(
        _of_call(node.operation, [tuple(tensor.shape) for tensor in node.input_tensors], node.outputs[0].shape)
        for nodes in model._nodes_by_depth.values()
        for node in nodes
    )


def gflops(model: keras.Model) -> float:
    """10^9 floating-point operations of one image; a multiply-add is two."""
    return 2 * multiply_adds(model) / 1e9


def _of_call(layer: keras.layers.Layer, inputs: list[tuple], output: tuple) -> int:
    """Multiply-adds of one call of a layer, from its shapes; the first axis of each is the batch."""
    if isinstance(layer, layers.MultiHeadAttention):
        return _of_attention(layer, inputs)
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        return math.prod(output[1:3]) * math.prod(layer.kernel.shape)  # each place meets each weight once
    if isinstance(layer, layers.Dense):
        return math.prod(output[1:-1]) * math.prod(layer.kernel.shape)
    if layer.weights and not isinstance(layer, _WITHOUT_PRODUCTS):
        raise ValueError(f"{type(layer).__name__}: expected a layer whose multiply-adds are known")
    return 0


_WITHOUT_PRODUCTS = (layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization)


def _of_attention(layer: layers.MultiHeadAttention, inputs: list[tuple]) -> int:
    """Projections of queries, keys, values and result, then queries times keys, and weights times values."""
    num_queries, num_answers = inputs[0][1], inputs[1][1]
    query, value = inputs[0][2], inputs[1][2]
    width = layer.num_heads * layer.key_dim
    projections = 2 * num_queries * query * width + 2 * num_answers * value * width
    return projections + 2 * num_queries * num_answers * width
