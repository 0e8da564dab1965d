"""U-Net++ (Zhou et al. 2018, arXiv:1807.10165, and 2020, arXiv:1912.05074)."""

import keras
from keras import layers

from kits_ml.models.blocks import classify, double_convolution, up_convolution


def unet_plus_plus(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
    deep_supervision: bool = False,
) -> keras.Model:
    """Builds U-Net++: U-Nets of every depth, nested, each node fed by all nodes of its level to its left.

    With batch normalisation, and without the dropout and the L2 penalty of the paper's code.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below; the paper's 32.
        depth: how often the resolution is halved; the paper's 4.
        input_channels: channels of a slice: the slice and its neighbours.
        deep_supervision: one output for each nested U-Net, the deepest first, all of the full resolution. The deepest
            is the one to predict with; the paper's "accurate mode", which averages them, is not offered.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`, or to a list of `depth` of them.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    node = {}  # X(i, j) of the paper: level, and column counted from the encoder
    for level in range(depth + 1):
        x = layers.MaxPooling2D()(node[level - 1, 0]) if level else inputs
        node[level, 0] = double_convolution(x, base_filters * 2**level)

    for column in range(1, depth + 1):
        for level in range(depth - column + 1):
            filters = base_filters * 2**level
            left = [node[level, earlier] for earlier in range(column)]
            below = up_convolution(node[level + 1, column - 1], filters)
            node[level, column] = double_convolution(layers.Concatenate()([*left, below]), filters)

    outputs = [classify(node[0, depth - head], num_classes, head=head) for head in range(depth)]
    return keras.Model(inputs, outputs if deep_supervision else outputs[0], name="unet_plus_plus")
