"""R2U-Net, the recurrent residual U-Net (Alom et al. 2018, arXiv:1802.06955)."""

import keras
from keras import layers

from kits_ml.models.blocks import BATCH_NORM_MOMENTUM, classify, convolution, enlarge, linear_convolution


def r2_unet(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    recurrent_steps: int = 2,
) -> keras.Model:
    """Builds the U-Net of recurrent convolutions inside residual units.

    The figure leaves open how an up-convolution and the change of filters are made; both are as in LeeJunHyun's
    widely used implementation: enlarged by repetition and convolved by 3x3, and a 1x1 convolution in front.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; 64 in that implementation.
        depth: how often the resolution is halved; 4 in that implementation.
        input_channels: channels of a slice: the slice and its neighbours.
        recurrent_steps: how often a convolution gets its own output back; the paper's t = 2.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = inputs
    skips = []
    for level in range(depth):
        x = _recurrent_residual_unit(x, base_filters * 2**level, recurrent_steps)
        skips.append(x)
        x = layers.MaxPooling2D()(x)

    x = _recurrent_residual_unit(x, base_filters * 2**depth, recurrent_steps)

    for level in reversed(range(depth)):
        x = convolution(enlarge(x, 2, interpolation="nearest"), base_filters * 2**level)
        x = layers.Concatenate()([skips[level], x])
        x = _recurrent_residual_unit(x, base_filters * 2**level, recurrent_steps)

    return keras.Model(inputs, classify(x, num_classes), name="r2_unet")


def _recurrent_residual_unit(x, filters: int, steps: int):
    x = linear_convolution(x, filters, kernel_size=1, use_bias=True)
    y = _recurrent_convolution(x, filters, steps)
    y = _recurrent_convolution(y, filters, steps)
    return layers.Add()([x, y])


def _recurrent_convolution(x, filters: int, steps: int):
    """Convolution, normalisation, ReLU of `x`, then `steps` times of `x` plus the result, with the same weights."""
    convolve = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")
    normalise = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)
    y = layers.ReLU()(normalise(convolve(x)))
    for _ in range(steps):
        y = layers.ReLU()(normalise(convolve(layers.Add()([x, y]))))
    return y
