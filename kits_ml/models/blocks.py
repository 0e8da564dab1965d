"""Building blocks that several architectures share. Plain keras layers, so a saved model needs no code of ours.

Feature maps are `(batch, rows, columns, channels)`.
"""

import math

import keras
from keras import layers

#: Averages over the last ten steps or so, as PyTorch does by default (its 0.1); Keras' 0.99 takes hundreds to forget
#: the start, too slow for short trainings.
BATCH_NORM_MOMENTUM = 0.9


def linear_convolution(
    x, filters: int, *, kernel_size: int = 3, stride: int = 1, dilation: int = 1, use_bias: bool = False
):
    """A convolution alone, that pads both sides alike.

    With a stride, `padding="same"` would pad the lower right side only and shift the image by half a pixel. A 1x1
    convolution with a stride is one without, of every `stride`-th pixel: of fewer than 16 channels (8 with AVX2) its
    gradient makes oneDNN write beyond its memory, and TensorFlow dies (github.com/uxlfoundation/oneDNN/issues/6035).

    Returns:
        `(batch, rows / stride, columns / stride, filters)`.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    elif stride > 1:
        x = layers.AveragePooling2D(1, strides=stride)(x)
        stride = 1
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        dilation_rate=dilation,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer="he_normal",
    )(x)


def batch_norm(x):
    """Batch normalisation with our momentum, and Keras' epsilon of 0.001, where PyTorch's is 0.00001."""
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)


def convolution(x, filters: int, *, kernel_size: int = 3, stride: int = 1, dilation: int = 1):
    """Convolution, batch normalisation, ReLU.

    Returns:
        `(batch, rows / stride, columns / stride, filters)`.
    """
    x = linear_convolution(x, filters, kernel_size=kernel_size, stride=stride, dilation=dilation)
    return layers.ReLU()(batch_norm(x))


def double_convolution(x, filters: int):
    """The U-Net's two 3x3 convolutions."""
    return convolution(convolution(x, filters), filters)


def depthwise_convolution(x, *, stride: int = 1):
    """A 3x3 convolution of each channel by itself, with bias, that pads both sides alike.

    Its weights are He's for the nine values that each is fed. Keras' default takes the channels for inputs too, and
    draws weights that are too small by the root of their number.

    Returns:
        `(batch, rows / stride, columns / stride, channels)`.
    """
    padding = "same"
    if stride > 1:
        x = layers.ZeroPadding2D(1)(x)
        padding = "valid"
    initializer = keras.initializers.RandomNormal(stddev=math.sqrt(2 / 9))
    return layers.DepthwiseConv2D(3, strides=stride, padding=padding, depthwise_initializer=initializer)(x)


def instance_norm(x, *, gamma: str = "ones"):
    """Each channel of each image by itself to mean 0 and variance 1, then scale (at first `gamma`) and shift."""
    return layers.GroupNormalization(groups=-1, epsilon=1e-5, gamma_initializer=gamma)(x)


def instance_convolution(x, filters: int, *, stride: int = 1):
    """nnU-Net's block: 3x3 convolution with bias, instance normalisation, leaky ReLU.

    Returns:
        `(batch, rows / stride, columns / stride, filters)`.
    """
    x = instance_norm(linear_convolution(x, filters, stride=stride, use_bias=True))
    return layers.LeakyReLU(negative_slope=0.01)(x)


def up_convolution(x, filters: int):
    """The U-Net's 2x2 up-convolution: a transposed convolution of stride 2.

    Its windows don't overlap, so it is a 1x1 convolution to four times the filters whose outputs are laid out as
    2x2 squares. Written so, it runs on every backend (`Conv2DTranspose` fails in training on PyTorch), and has a bias
    for each of a filter's four pixels where a transposed convolution has one.

    Args:
        x: `(batch, rows, columns, channels)`.

    Returns:
        `(batch, 2 rows, 2 columns, filters)`.
    """
    rows, columns = x.shape[1:3]
    x = layers.Conv2D(4 * filters, 1, kernel_initializer="he_normal")(x)
    x = layers.Reshape((rows, columns, 2, 2, filters))(x)
    x = layers.Permute((1, 3, 2, 4, 5))(x)  # (rows, 2, columns, 2, filters)
    return layers.Reshape((2 * rows, 2 * columns, filters))(x)


def hidden_units(filters: int) -> int:
    """Of the small network that judges channels: a 16th of them, as in both papers (squeeze and excitation, CBAM).

    Never fewer than 4: one alone, in a narrow network, may never fire.
    """
    return max(4, filters // 16)


def enlarge(x, factor: int, *, interpolation: str = "bilinear"):
    """Up-samples by a whole number; 1 leaves it as it is."""
    return x if factor == 1 else layers.UpSampling2D(factor, interpolation=interpolation)(x)


def classify(x, num_classes: int, *, head: int = 0, kernel_size: int = 1, scale: int = 1):
    """A convolution to classes and a softmax.

    Args:
        head: 0 is the head of the result; the others serve deep supervision.
        kernel_size: of the convolution.
        scale: how much the logits are enlarged, linearly, before the softmax.

    Returns:
        Probabilities `(batch, scale * rows, scale * columns, num_classes)`, float32.
    """
    suffix = f"_{head}" if head else ""
    logits = layers.Conv2D(num_classes, kernel_size, padding="same", name=f"logits{suffix}")(x)
    return layers.Softmax(dtype="float32", name=f"probabilities{suffix}")(enlarge(logits, scale))
