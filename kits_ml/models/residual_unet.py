"""The deep residual U-Net (Zhang, Liu and Wang 2018, "Road Extraction by Deep Residual U-Net", arXiv:1711.10684)."""

import keras
from keras import layers

from kits_ml.models.blocks import batch_norm, classify, enlarge, linear_convolution


def residual_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the paper's ResUnet: pre-activated residual units, halving by a stride, doubling by repetition.

    The shortcut is a 1x1 convolution; the paper's figure leaves open what it is.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; the paper's 64.
        depth: how often the resolution is halved; the paper's 3.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = _first_unit(inputs, base_filters)
    skips = []
    for level in range(1, depth + 1):
        skips.append(x)
        x = _residual_unit(x, base_filters * 2**level, stride=2)

    for level in reversed(range(depth)):
        x = enlarge(x, 2, interpolation="nearest")
        x = layers.Concatenate()([skips[level], x])
        x = _residual_unit(x, base_filters * 2**level)

    return keras.Model(inputs, classify(x, num_classes), name="residual_unet")


def _first_unit(x, filters: int):
    """The unit of the first level, which gets the image without activation."""
    y = linear_convolution(x, filters)
    y = linear_convolution(_activate(y), filters)
    return layers.Add()([linear_convolution(x, filters, kernel_size=1), y])


def _residual_unit(x, filters: int, *, stride: int = 1):
    """Twice batch normalisation, ReLU and 3x3 convolution, plus the shortcut."""
    y = linear_convolution(_activate(x), filters, stride=stride)
    y = linear_convolution(_activate(y), filters)
    return layers.Add()([linear_convolution(x, filters, kernel_size=1, stride=stride), y])


def _activate(x):
    return layers.ReLU()(batch_norm(x))
