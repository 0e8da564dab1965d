"""The CBAM U-Net: convolutional block attention (Woo et al. 2018, arXiv:1807.06521) in a U-Net."""

import keras
from keras import layers

from kits_ml.models.blocks import batch_norm, classify, double_convolution, hidden_units, up_convolution


def cbam_unet(
    *, image_size: int, num_classes: int, base_filters: int = 16, depth: int = 4, input_channels: int = 1
) -> keras.Model:
    """Builds the U-Net with attention over channels, then over places, after each pair of convolutions.

    Args:
        image_size: rows and columns of a slice; a multiple of `2 ** depth`.
        num_classes: classes of the softmax.
        base_filters: filters of the first level, doubled at each level below.
        depth: how often the resolution is halved.
        input_channels: channels of a slice: the slice and its neighbours.

    Returns:
        A model from `(batch, image_size, image_size, input_channels)` to probabilities
        `(batch, image_size, image_size, num_classes)`.
    """
    inputs = keras.Input((image_size, image_size, input_channels), name="image")

    x = inputs
    skips = []
    for level in range(depth):
        x = _attend(double_convolution(x, base_filters * 2**level))
        skips.append(x)
        x = layers.MaxPooling2D()(x)

    x = _attend(double_convolution(x, base_filters * 2**depth))

    for level in reversed(range(depth)):
        x = up_convolution(x, base_filters * 2**level)
        x = layers.Concatenate()([skips[level], x])
        x = _attend(double_convolution(x, base_filters * 2**level))

    return keras.Model(inputs, classify(x, num_classes), name="cbam_unet")


def _attend(x):
    return _attend_places(_attend_channels(x))


def _attend_channels(x):
    """One small network judges the channels by their means and by their maxima; the sum decides."""
    filters = x.shape[-1]
    hidden = layers.Dense(hidden_units(filters), activation="relu")
    judge = layers.Dense(filters)
    mean = judge(hidden(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    highest = judge(hidden(layers.GlobalMaxPooling2D(keepdims=True)(x)))
    return layers.Multiply()([x, layers.Activation("sigmoid")(layers.Add()([mean, highest]))])


def _attend_places(x):
    """A 7x7 convolution judges the places by the mean and the maximum over the channels."""
    rows, columns, filters = x.shape[1:]
    places = layers.Reshape((rows * columns, filters))(x)  # places as "channels", so that pooling is over the filters
    mean = layers.GlobalAveragePooling1D(data_format="channels_first")(places)
    highest = layers.GlobalMaxPooling1D(data_format="channels_first")(places)
    both = layers.Concatenate()([layers.Reshape((rows, columns, 1))(pooled) for pooled in (mean, highest)])
    judged = batch_norm(layers.Conv2D(1, 7, padding="same", use_bias=False)(both))
    return layers.Multiply()([x, layers.Activation("sigmoid")(judged)])
