"""A ConvNeXt U-Net after MedNeXt (Roy et al. 2023, arXiv:2303.09975)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, depthwise_convolution, enlarge, instance_norm, linear_convolution

#: MedNeXt-S's: how much wider the middle of a block is, and blocks between two changes of resolution.
EXPANSION = 2
BLOCKS_PER_LEVEL = 2


def convnext_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds MedNeXt-S with 3x3 kernels in 2-D: inverted bottlenecks everywhere, also where the resolution changes.

    Departures: a step up repeats pixels, before its depthwise convolution and in its shortcut, where MedNeXt's are
    transposed convolutions (the weights are as many), and there is no deep supervision.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; the paper's 32.
        depth: how often the resolution is halved; the paper's 4.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = linear_convolution(inputs, base_filters, kernel_size=1, use_bias=True)
    skips = []
    for _ in range(depth):
        x = _blocks(x)
        skips.append(x)
        x = _down_block(x)

    x = _blocks(x)

    for level in reversed(range(depth)):
        x = layers.Add()([skips[level], _up_block(x)])
        x = _blocks(x)

    return keras.Model(inputs, classify(x, num_classes), name="convnext_unet")


def _blocks(x):
    for _ in range(BLOCKS_PER_LEVEL):
        x = _block(x)
    return x


def _block(x):
    return layers.Add()([x, _bottleneck(depthwise_convolution(x), x.shape[-1])])


def _down_block(x):
    filters = 2 * x.shape[-1]
    y = _bottleneck(depthwise_convolution(x, stride=2), filters)
    return layers.Add()([linear_convolution(x, filters, kernel_size=1, stride=2, use_bias=True), y])


def _up_block(x):
    filters = x.shape[-1] // 2
    y = _bottleneck(depthwise_convolution(enlarge(x, 2, interpolation="nearest")), filters)
    shortcut = linear_convolution(x, filters, kernel_size=1, use_bias=True)
    return layers.Add()([enlarge(shortcut, 2, interpolation="nearest"), y])


def _bottleneck(x, filters: int):
    """Normalises each channel, widens with GELU, and narrows to `filters`."""
    wide = layers.Dense(EXPANSION * x.shape[-1], activation="gelu")(instance_norm(x))
    return layers.Dense(filters)(wide)
