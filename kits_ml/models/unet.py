"""The plain U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, double_convolution, up_convolution


def unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the U-Net of the paper, with padded convolutions and batch normalisation, and without its dropout.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; the paper's 64.
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
        x = double_convolution(x, base_filters * 2**level)
        skips.append(x)
        x = layers.MaxPooling2D()(x)

    x = double_convolution(x, base_filters * 2**depth)

    for level in reversed(range(depth)):
        x = up_convolution(x, base_filters * 2**level)
        x = layers.Concatenate()([skips[level], x])
        x = double_convolution(x, base_filters * 2**level)

    return keras.Model(inputs, classify(x, num_classes), name="unet")
