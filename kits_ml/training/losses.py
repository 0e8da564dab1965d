"""Losses of whole-number labels against softmax probabilities.

Each is a pure function of `labels`, `(batch, rows, columns)` whole numbers, and `probabilities`,
`(batch, rows, columns, classes)` in [0, 1] summing to 1, and gives a scalar.
"""

from __future__ import annotations

from keras import ops

from kits_ml.labels import NUM_CLASSES

EPSILON = 1e-6


def categorical_crossentropy(labels, probabilities):
    """Mean over all pixels of `-log p(true class)`; the report's loss."""
    one_hot = ops.one_hot(ops.cast(labels, "int32"), NUM_CLASSES, dtype="float32")
    probabilities = ops.clip(ops.cast(probabilities, "float32"), EPSILON, 1.0)
    return -ops.mean(ops.sum(one_hot * ops.log(probabilities), axis=-1))


def soft_dice(labels, probabilities):
    """`1 - Dice` with probabilities for masks, averaged over the foreground classes; in [0, 1].

    Sums run over the whole batch, so that a slice without tumour does not ask for a Dice of nothing over nothing.
    A class that neither the labels nor the network show costs 0 (Milletari et al. 2016, arXiv:1606.04797).
    """
    one_hot = ops.one_hot(ops.cast(labels, "int32"), NUM_CLASSES, dtype="float32")[..., 1:]
    foreground = ops.cast(probabilities, "float32")[..., 1:]
    axes = (0, 1, 2)
    intersection = ops.sum(one_hot * foreground, axis=axes)
    total = ops.sum(one_hot, axis=axes) + ops.sum(foreground, axis=axes)
    return 1.0 - ops.mean((2.0 * intersection + 1.0) / (total + 1.0))


def dice_crossentropy(labels, probabilities):
    """Cross-entropy plus soft Dice in equal parts, as nnU-Net (Isensee et al. 2021, arXiv:1904.08128)."""
    return categorical_crossentropy(labels, probabilities) + soft_dice(labels, probabilities)


LOSSES = {
    "categorical_crossentropy": categorical_crossentropy,
    "dice_crossentropy": dice_crossentropy,
}
