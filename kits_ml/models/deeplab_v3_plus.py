"""DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611) on a ResNet (He et al. 2016, arXiv:1512.03385)."""

import keras
from keras import layers

from kits_ml.models.blocks import batch_norm, classify, convolution, enlarge, linear_convolution

#: Bottleneck blocks of each stage: ResNet-50's four, and more for depths above 5.
NUM_BLOCKS = (3, 4, 6, 3, 3, 3, 3)
#: Dilations of the pyramid on the paper's features, of 33 rows and columns (513 at an output stride of 16).
RATES = (6, 12, 18)
RATES_SIDE = 33


def deeplab_v3_plus(
    *,
    image_size: int,
    num_classes: int,
    base_filters: int = 16,
    depth: int = 4,
    input_channels: int = 1,
) -> keras.Model:
    """Builds DeepLabV3+: a dilated ResNet, atrous spatial pyramid pooling, and a decoder of one skip connection.

    The blocks are ResNet-50's, with the stride in the 3x3 convolution (torchvision's "v1.5"; the paper has ResNet-101
    and Xception). The widths are the paper's relative to `base_filters`: 4 times for pyramid and decoder (256), 3/4
    for the skip connection (48). Convolutions of pyramid and decoder are whole ones; nothing is pretrained. The
    pyramid reaches as far in relation to the features as the paper's: dilations that are as many pixels on fewer
    features would see the padding alone (1706.05587, section 3.3).

    Train it with several slices a step: the pyramid's mean over the image is normalised too, one number a slice.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the ResNet's first convolution; the paper's 64.
        depth: how often the resolution is halved; stages beyond it are dilated. 4 is the paper's output stride of 16.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = convolution(inputs, base_filters, kernel_size=7, stride=2)
    if depth > 1:
        x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))  # zeros are no maximum: x is a ReLU's
    stages = []
    dilation = 1
    for stage, num_blocks in enumerate(NUM_BLOCKS[: max(4, depth - 1)]):
        stride = 2 if 0 < stage < depth - 1 else 1
        for block in range(num_blocks):
            x = _bottleneck(x, base_filters * 2**stage, stride=stride if block == 0 else 1, dilation=dilation)
            if block == 0 and stage and stride == 1:
                dilation *= 2  # in place of the stride, for all that follows
        stages.append(x)

    x = _pyramid(x, 4 * base_filters)

    low_level = convolution(stages[0], max(1, base_filters * 3 // 4), kernel_size=1)
    x = enlarge(x, low_level.shape[1] // x.shape[1])
    x = layers.Concatenate()([x, low_level])
    x = convolution(convolution(x, 4 * base_filters), 4 * base_filters)

    return keras.Model(inputs, classify(x, num_classes, scale=image_size // x.shape[1]), name="deeplab_v3_plus")


def _bottleneck(x, filters: int, *, stride: int, dilation: int):
    """ResNet's 1x1, 3x3 and 1x1 convolutions, the last to four times the filters, plus the shortcut."""
    y = convolution(x, filters, kernel_size=1)
    y = convolution(y, filters, stride=stride, dilation=dilation)
    y = batch_norm(linear_convolution(y, 4 * filters, kernel_size=1))
    if stride > 1 or x.shape[-1] != 4 * filters:
        x = batch_norm(linear_convolution(x, 4 * filters, kernel_size=1, stride=stride))
    return layers.ReLU()(layers.Add()([x, y]))


def _pyramid(x, filters: int):
    """The same features at several dilations, and their mean over the whole image."""
    rates = [max(1, round(rate * x.shape[1] / RATES_SIDE)) for rate in RATES]
    branches = [convolution(x, filters, kernel_size=1)]
    branches += [convolution(x, filters, dilation=rate) for rate in rates]
    mean = convolution(layers.GlobalAveragePooling2D(keepdims=True)(x), filters, kernel_size=1)
    branches.append(enlarge(mean, x.shape[1], interpolation="nearest"))
    return convolution(layers.Concatenate()(branches), filters, kernel_size=1)
