"""MultiResUNet (Ibtehaz and Rahman 2019, arXiv:1902.04049)."""

import keras
from keras import layers

from kits_ml.models.blocks import batch_norm, classify, convolution, linear_convolution, up_convolution

#: The paper's alpha, which brings the parameters near those of a U-Net of the same width.
WIDTH_FACTOR = 1.67


def multires_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the U-Net of MultiRes blocks, with convolutions along the skip connections (Res paths).

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

    x = inputs
    skips = []
    for level in range(depth):
        x = _multires_block(x, base_filters * 2**level)
        skips.append(_res_path(x, base_filters * 2**level, length=depth - level))
        x = layers.MaxPooling2D()(x)

    x = _multires_block(x, base_filters * 2**depth)

    for level in reversed(range(depth)):
        x = up_convolution(x, base_filters * 2**level)
        x = layers.Concatenate()([skips[level], x])
        x = _multires_block(x, base_filters * 2**level)

    return keras.Model(inputs, classify(x, num_classes), name="multires_unet")


def _multires_block(x, filters: int):
    """Three 3x3 convolutions in a row, which stand for 3x3, 5x5 and 7x7; all three results and a shortcut count."""
    widths = [max(1, int(WIDTH_FACTOR * filters * share)) for share in (0.167, 0.333, 0.5)]
    results = []
    y = x
    for width in widths:
        y = convolution(y, width)
        results.append(y)
    y = batch_norm(layers.Concatenate()(results))
    shortcut = batch_norm(linear_convolution(x, sum(widths), kernel_size=1))
    return batch_norm(layers.ReLU()(layers.Add()([shortcut, y])))


def _res_path(x, filters: int, *, length: int):
    """A chain of 3x3 convolutions with 1x1 shortcuts; the longer, the further encoder and decoder are apart."""
    for _ in range(length):
        shortcut = batch_norm(linear_convolution(x, filters, kernel_size=1))
        y = convolution(x, filters)
        x = batch_norm(layers.ReLU()(layers.Add()([shortcut, y])))
    return x
