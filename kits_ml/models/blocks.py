"""Building blocks that several architectures share. Plain keras layers, so a saved model needs no code of ours.

Feature maps are `(batch, rows, columns, channels)`.
"""

from keras import layers

#: Averages over the last few hundred steps; Keras' default of 0.99 is too slow for short trainings.
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
    """Batch normalisation with our momentum."""
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


def instance_norm(x):
    """Each channel of each image by itself to mean 0 and variance 1, then scale and shift."""
    return layers.GroupNormalization(groups=-1, epsilon=1e-5)(x)


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
    2x2 squares. Written so, it runs on every backend (`Conv2DTranspose` fails in training on PyTorch).

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
