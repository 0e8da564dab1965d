"""UNet 3+ (Huang et al. 2020, arXiv:2004.08790)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, convolution, double_convolution, enlarge


def unet_3_plus(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    deep_supervision: bool = False,
) -> keras.Model:
    """Builds UNet 3+: each decoder level sees every scale, finer ones of the encoder and coarser ones of the decoder.

    The paper's classification-guided module is left out: it is an output of another kind, with a loss of its own.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below, and of each branch of the decoder;
            the paper's 64.
        depth: how often the resolution is halved; the paper's 4.
        input_channels: channels of a slice: the slice and its neighbours.
        deep_supervision: one output for each level, the finest first, all enlarged to the full resolution.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`, or to a list of `depth + 1` of them.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    encoder = []
    for level in range(depth + 1):
        x = layers.MaxPooling2D()(encoder[-1]) if level else inputs
        encoder.append(double_convolution(x, base_filters * 2**level))

    decoder = {depth: encoder[depth]}
    for level in reversed(range(depth)):
        branches = [
            convolution(_to_level(decoder.get(source, encoder[source]), source, level), base_filters)
            for source in range(depth + 1)
        ]
        decoder[level] = convolution(layers.Concatenate()(branches), base_filters * (depth + 1))

    outputs = [
        classify(decoder[level], num_classes, head=level, kernel_size=3, scale=2**level) for level in range(depth + 1)
    ]
    return keras.Model(inputs, outputs if deep_supervision else outputs[0], name="unet_3_plus")


def _to_level(x, source: int, target: int):
    """Max-pools a finer level, enlarges a coarser one."""
    if source < target:
        return layers.MaxPooling2D(2 ** (target - source))(x)
    return enlarge(x, 2 ** (source - target))
