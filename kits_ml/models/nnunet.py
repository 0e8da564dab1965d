"""nnU-Net's 2-D U-Net (Isensee et al. 2021, arXiv:1904.08128)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, instance_convolution, up_convolution


def nnunet(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    max_filters: int = 512,
    deep_supervision: bool = False,
) -> keras.Model:
    """Builds the `PlainConvUNet` of nnU-Net's 2-D plans: instance normalisation, leaky ReLU, strided convolutions.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; nnU-Net's 32.
        depth: how often the resolution is halved; nnU-Net's 6 for 256 pixels and 7 for 512.
        input_channels: channels of a slice: the slice and its neighbours.
        max_filters: where doubling stops.
        deep_supervision: one output for each level of the decoder but the coarsest, each half as large as the last.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`, or to a list of them and of coarser ones.
    """
    filters = [min(base_filters * 2**level, max_filters) for level in range(depth + 1)]
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = inputs
    skips = []
    for level in range(depth + 1):
        x = instance_convolution(x, filters[level], stride=2 if level else 1)
        x = instance_convolution(x, filters[level])
        skips.append(x)

    decoded = {}
    for level in reversed(range(depth)):
        x = up_convolution(x, filters[level])
        x = layers.Concatenate()([x, skips[level]])
        x = instance_convolution(x, filters[level])
        x = instance_convolution(x, filters[level])
        decoded[level] = x

    outputs = [classify(decoded[level], num_classes, head=level) for level in range(max(1, depth - 1))]
    return keras.Model(inputs, outputs if deep_supervision else outputs[0], name="nnunet")
