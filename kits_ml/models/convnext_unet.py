"""A ConvNeXt U-Net after MedNeXt (Roy et al. 2023, arXiv:2303.09975)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, enlarge, instance_norm, linear_convolution


def convnext_unet(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    expansion: int = 2,
    blocks_per_level: int = 2,
) -> keras.Model:
    """Builds MedNeXt-S with 3x3 kernels in 2-D: inverted bottlenecks everywhere, also where the resolution changes.

    Departure: a step up repeats pixels before its depthwise convolution, where MedNeXt's is a transposed one; the
    weights are as many.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; the paper's 32.
        depth: how often the resolution is halved; the paper's 4.
        input_channels: channels of a slice: the slice and its neighbours.
        expansion: how much wider the middle of a block is; 2 in MedNeXt-S.
        blocks_per_level: blocks between two changes of resolution; 2 in MedNeXt-S.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = linear_convolution(inputs, base_filters, kernel_size=1, use_bias=True)
    skips = []
    for _ in range(depth):
        x = _blocks(x, blocks_per_level, expansion)
        skips.append(x)
        x = _down_block(x, expansion)

    x = _blocks(x, blocks_per_level, expansion)

    for level in reversed(range(depth)):
        x = layers.Add()([skips[level], _up_block(x, expansion)])
        x = _blocks(x, blocks_per_level, expansion)

    return keras.Model(inputs, classify(x, num_classes), name="convnext_unet")


def _blocks(x, number: int, expansion: int):
    for _ in range(number):
        x = layers.Add()([x, _bottleneck(_depthwise(x), x.shape[-1], expansion)])
    return x


def _down_block(x, expansion: int):
    filters = 2 * x.shape[-1]
    y = _bottleneck(_depthwise(x, stride=2), filters, expansion)
    return layers.Add()([linear_convolution(x, filters, kernel_size=1, stride=2, use_bias=True), y])


def _up_block(x, expansion: int):
    filters = x.shape[-1] // 2
    y = _bottleneck(_depthwise(enlarge(x, 2, interpolation="nearest")), filters, expansion)
    shortcut = linear_convolution(x, filters, kernel_size=1, use_bias=True)
    return layers.Add()([enlarge(shortcut, 2, interpolation="nearest"), y])


def _depthwise(x, *, stride: int = 1):
    if stride == 1:
        return layers.DepthwiseConv2D(3, padding="same")(x)
    return layers.DepthwiseConv2D(3, strides=stride)(layers.ZeroPadding2D(1)(x))


def _bottleneck(x, filters: int, expansion: int):
    """Normalises each channel, widens with GELU, and narrows to `filters`."""
    wide = layers.Dense(expansion * x.shape[-1], activation="gelu")(instance_norm(x))
    return layers.Dense(filters)(wide)
