"""The attention U-Net (Oktay et al. 2018, arXiv:1804.03999)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, double_convolution, enlarge, up_convolution


def attention_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the U-Net with an additive attention gate on each skip connection but the first, as the paper has it.

    Left out of what the paper's code has beyond its figure: a 1x1 convolution before and after each gate, one of the
    gating signal, and deep supervision.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below.
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
        skip = _attention_gate(skips[level], x) if level else skips[level]
        x = up_convolution(x, base_filters * 2**level)
        x = layers.Concatenate()([skip, x])
        x = double_convolution(x, base_filters * 2**level)

    return keras.Model(inputs, classify(x, num_classes), name="attention_unet")


def _attention_gate(x, gating):
    """Scales a skip connection by what the coarser level makes of it, the paper's figure 2.

    The coefficients are found on the gating signal's grid (the paper's code takes the features there by a 2x2
    convolution of stride 2, and as many intermediate filters as `x` has), and interpolated linearly back. At first
    they are near 1, as the paper wants them; the bias of 3 is its authors'.

    Args:
        x: the skip connection, `(batch, rows, columns, filters)`.
        gating: the level below, `(batch, rows / 2, columns / 2, 2 filters)`.

    Returns:
        `x` times coefficients in (0, 1) that its channels share.
    """
    filters = x.shape[-1]
    theta = layers.Conv2D(filters, 2, strides=2, use_bias=False, kernel_initializer="he_normal")(x)
    phi = layers.Conv2D(filters, 1, kernel_initializer="he_normal")(gating)
    summed = layers.ReLU()(layers.Add()([theta, phi]))
    open_at_first = keras.initializers.Constant(3.0)
    coefficients = layers.Conv2D(1, 1, activation="sigmoid", bias_initializer=open_at_first)(summed)
    return layers.Multiply()([x, enlarge(coefficients, 2)])
