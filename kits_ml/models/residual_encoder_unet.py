"""nnU-Net's residual-encoder U-Net, in 2-D (Isensee et al. 2024, "nnU-Net Revisited", arXiv:2404.09556)."""

import keras
from keras import layers

from kits_ml.models.blocks import (
    classify,
    instance_convolution,
    instance_norm,
    linear_convolution,
    up_convolution,
)

#: Residual blocks of each level of the encoder, as the ResEnc presets have them.
NUM_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6)


def residual_encoder_unet(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    max_filters: int = 512,
    deep_supervision: bool = False,
) -> keras.Model:
    """Builds the `ResidualEncoderUNet` of nnU-Net's 2-D plans: a deep residual encoder, a light decoder.

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

    x = instance_convolution(inputs, filters[0])
    skips = []
    for level in range(depth + 1):
        for block in range(NUM_BLOCKS[level]):
            x = _residual_block(x, filters[level], stride=2 if level and not block else 1)
        skips.append(x)

    decoded = {}
    for level in reversed(range(depth)):
        x = up_convolution(x, filters[level])
        x = layers.Concatenate()([x, skips[level]])
        x = instance_convolution(x, filters[level])
        decoded[level] = x

    outputs = [classify(decoded[level], num_classes, head=level) for level in range(max(1, depth - 1))]
    return keras.Model(inputs, outputs if deep_supervision else outputs[0], name="residual_encoder_unet")


def _residual_block(x, filters: int, *, stride: int):
    """Two convolutions plus the input, which is averaged and projected where its shape differs (ResNet-D).

    The last scale is 0 at first, as in nnU-Net: a block begins as its shortcut.
    """
    y = instance_convolution(x, filters, stride=stride)
    y = instance_norm(linear_convolution(y, filters, use_bias=True), gamma="zeros")
    shortcut = layers.AveragePooling2D(2)(x) if stride == 2 else x
    if shortcut.shape[-1] != filters:
        shortcut = instance_norm(linear_convolution(shortcut, filters, kernel_size=1))
    return layers.LeakyReLU(negative_slope=0.01)(layers.Add()([y, shortcut]))
