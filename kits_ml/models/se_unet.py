"""The squeeze-and-excitation U-Net (Hu et al. 2018, arXiv:1709.01507; in U-Nets Rundo et al. 2019, 1904.08254)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, double_convolution, hidden_units, up_convolution


def se_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the U-Net with squeeze and excitation after each pair of convolutions (USE-Net's "Enc-Dec").

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below.
        depth: how often the resolution is halved.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = inputs
    skips = []
    for level in range(depth):
        x = _excite(double_convolution(x, base_filters * 2**level))
        skips.append(x)
        x = layers.MaxPooling2D()(x)

    x = _excite(double_convolution(x, base_filters * 2**depth))

    for level in reversed(range(depth)):
        x = up_convolution(x, base_filters * 2**level)
        x = layers.Concatenate()([skips[level], x])
        x = _excite(double_convolution(x, base_filters * 2**level))

    return keras.Model(inputs, classify(x, num_classes), name="se_unet")


def _excite(x):
    """Scales each channel by a number in (0, 1) that the means of all channels decide."""
    filters = x.shape[-1]
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    hidden = layers.Dense(hidden_units(filters), activation="relu")(squeezed)
    return layers.Multiply()([x, layers.Dense(filters, activation="sigmoid")(hidden)])
