"""The dense U-Net: FC-DenseNet (Jegou et al. 2017, "The One Hundred Layers Tiramisu", arXiv:1611.09326)."""

import keras
from keras import layers

from kits_ml.models.blocks import batch_norm, classify, enlarge, linear_convolution

#: Convolutions of a block; FC-DenseNet67's.
LAYERS_PER_BLOCK = 5


def dense_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds FC-DenseNet: densely connected blocks; on the way up only a block's new feature maps go on.

    The growth rate, the new filters of each layer, is a third of `base_filters`, as in the paper. Departures: a step
    up is repetition and a 3x3 convolution in place of a transposed one (the same weights), and there is no dropout.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first convolution; the paper's 48.
        depth: how often the resolution is halved; the paper's 5.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    growth_rate = max(1, base_filters // 3)
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = linear_convolution(inputs, base_filters, use_bias=True)
    skips = []
    for _ in range(depth):
        new = _dense_block(x, growth_rate)
        x = layers.Concatenate()([x, new])
        skips.append(x)
        x = layers.MaxPooling2D()(_normalised_convolution(x, x.shape[-1], kernel_size=1))

    new = _dense_block(x, growth_rate)

    for level in reversed(range(depth)):
        up = enlarge(new, 2, interpolation="nearest")
        up = linear_convolution(up, growth_rate * LAYERS_PER_BLOCK, use_bias=True)
        x = layers.Concatenate()([skips[level], up])
        new = _dense_block(x, growth_rate)

    x = layers.Concatenate()([x, new])
    return keras.Model(inputs, classify(x, num_classes), name="dense_unet")


def _dense_block(x, growth_rate: int):
    """Each layer sees the block's input and all layers before it; the result is the layers, without the input."""
    results = []
    for _ in range(LAYERS_PER_BLOCK):
        seen = layers.Concatenate()([x, *results]) if results else x
        results.append(_normalised_convolution(seen, growth_rate))
    return layers.Concatenate()(results)


def _normalised_convolution(x, filters: int, *, kernel_size: int = 3):
    """Batch normalisation, ReLU, convolution."""
    x = layers.ReLU()(batch_norm(x))
    return linear_convolution(x, filters, kernel_size=kernel_size, use_bias=True)
