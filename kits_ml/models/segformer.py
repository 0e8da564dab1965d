"""SegFormer (Xie et al. 2021, arXiv:2105.15203)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, convolution, depthwise_convolution, enlarge, linear_convolution

#: Of each stage, MiT-B0's: attention heads (`base_filters` wide each), and how much coarser keys and values are.
NUM_HEADS = (1, 2, 5, 8, 8, 8, 8)
REDUCTIONS = (8, 4, 2, 1, 1, 1, 1)
BLOCKS_PER_STAGE = 2


def segformer(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds SegFormer: a pyramid of transformer stages without position codes, and a decoder of 1x1 convolutions.

    The proportions are B0's: its decoder is eight times as wide as the first stage (256). As in the paper the logits
    have a quarter of the resolution and are enlarged linearly. Left out: dropout, stochastic depth and pretraining.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: width of the first stage and of an attention head; the paper's 32.
        depth: how often the resolution is halved: twice by the first stage, once by each other; the paper's 5.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    decoder_filters = 8 * base_filters
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = inputs
    stages = []
    for stage in range(max(1, depth - 1)):
        stride = 2 if stage else min(4, 2**depth)
        x = _patch_embedding(x, base_filters * NUM_HEADS[stage], kernel_size=3 if stage else 7, stride=stride)
        for _ in range(BLOCKS_PER_STAGE):
            x = layers.Add()([x, _attention(_layer_norm(x), NUM_HEADS[stage], REDUCTIONS[stage])])
            x = layers.Add()([x, _mix_feed_forward(_layer_norm(x))])
        x = _layer_norm(x)
        stages.append(x)

    finest = stages[0].shape[1]
    mixed = [enlarge(layers.Dense(decoder_filters)(x), finest // x.shape[1]) for x in reversed(stages)]
    x = layers.Concatenate()(mixed) if len(mixed) > 1 else mixed[0]
    x = convolution(x, decoder_filters, kernel_size=1)

    return keras.Model(inputs, classify(x, num_classes, scale=image_size // finest), name="segformer")


def _patch_embedding(x, filters: int, *, kernel_size: int, stride: int):
    """Overlapping patches to vectors."""
    return _layer_norm(linear_convolution(x, filters, kernel_size=kernel_size, stride=stride, use_bias=True))


def _attention(x, num_heads: int, reduction: int):
    """Every place asks; `reduction` times coarser patches answer. `(batch, rows, columns, filters)` in and out."""
    rows, columns, filters = x.shape[1:]
    coarse = x
    if reduction > 1:
        coarse = layers.Conv2D(filters, reduction, strides=reduction, padding="same")(x)
        coarse = _layer_norm(coarse)
    queries = layers.Reshape((rows * columns, filters))(x)
    answers = layers.Reshape((-1, filters))(coarse)
    attended = layers.MultiHeadAttention(num_heads, key_dim=filters // num_heads)(queries, answers)
    return layers.Reshape((rows, columns, filters))(attended)


def _mix_feed_forward(x):
    """A network for each place, with a 3x3 depthwise convolution in it that tells places apart."""
    filters = x.shape[-1]
    y = layers.Dense(4 * filters)(x)
    y = layers.Activation("gelu")(depthwise_convolution(y))
    return layers.Dense(filters)(y)


def _layer_norm(x):
    return layers.LayerNormalization(epsilon=1e-6)(x)
