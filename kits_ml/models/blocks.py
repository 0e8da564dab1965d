"""Building blocks that several architectures share. Plain keras layers, so a saved model needs no code of ours."""

from keras import layers

#: Averages over the last few hundred steps; Keras' default of 0.99 is too slow for short trainings.
BATCH_NORM_MOMENTUM = 0.9


def convolution(x, filters: int, *, kernel_size: int = 3):
    """Convolution, batch normalisation, ReLU.

    Args:
        x: `(batch, rows, columns, channels)`.

    Returns:
        `(batch, rows, columns, filters)`.
    """
    x = layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x)
    return layers.ReLU()(x)


def double_convolution(x, filters: int):
    """The U-Net's two 3x3 convolutions."""
    return convolution(convolution(x, filters), filters)


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
