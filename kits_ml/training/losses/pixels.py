"""Losses that are a mean over pixels: what the probability of a pixel's true class costs.

A class that the labels do not show has no pixel here: it costs only what its probability takes from the true class.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from kits_ml.labels import NUM_CLASSES

# Where a probability is clipped it has no gradient: a floor of 1e-6 would leave the pixels that are most wrong, such
# as tumour taken for background with certainty, wrong for ever. Down to here 1 / p and its products fit float32.
SMALLEST_PROBABILITY = 1e-30


def categorical_crossentropy(labels, probabilities, *, class_weights: Sequence[float] | None = None):
    """Mean over all pixels of `-log p(true class)`; the report's loss.

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        class_weights: what a pixel of each class weighs in the mean, which stays a mean: all weights doubled change
            nothing. None: all the same.

    Returns:
        A scalar, 0 to 69 (`-log 1e-30`). Where all pixels weigh 0, it is 0.
    """
    return _weighted_mean(_crossentropy(_true_probability(labels, probabilities)), labels, class_weights)


def focal(labels, probabilities, *, gamma: float = 2.0, class_weights: Sequence[float] | None = None):
    """Cross-entropy times `(1 - p(true class)) ** gamma`: easy pixels count less (Lin et al. 2017, arXiv:1708.02002).

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        gamma: how much less, at least 0; 0 is cross-entropy.
        class_weights: as in `categorical_crossentropy`; the paper's alpha.

    Returns:
        A scalar, 0 to 69. Where all pixels weigh 0, it is 0.
    """
    true_probability = _true_probability(labels, probabilities)
    # between 0 and 1 a power's slope at 0 is infinite; float32's smallest step below 1 is 6e-8
    doubt = ops.clip(1.0 - true_probability, 1e-8, 1.0)
    return _weighted_mean(doubt**gamma * _crossentropy(true_probability), labels, class_weights)


def topk_crossentropy(labels, probabilities, *, percent: int = 10, class_weights: Sequence[float] | None = None):
    """Cross-entropy of the pixels that cost most, as nnU-Net's `TopKLoss` (Isensee et al. 2021, arXiv:1904.08128).

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        percent: the share of all pixels of the batch, 1 to 100, rounded up to whole pixels; 100 is cross-entropy.
        class_weights: what the pixels' costs are multiplied by before the worst are chosen. As in nnU-Net the sum is
            divided by the number of pixels and not by their weights.

    Returns:
        A scalar, 0 to 69 times the largest weight.
    """
    costs = _crossentropy(_true_probability(labels, probabilities))
    if class_weights is not None:
        costs = costs * _pixel_weights(labels, class_weights)
    costs = ops.reshape(costs, (-1,))
    # in whole numbers, since TensorFlow may not know the batch size yet; hundreds apart, so that no product overflows
    hundreds, rest = ops.shape(costs)[0] // 100, ops.shape(costs)[0] % 100
    num_worst = hundreds * percent + (rest * percent + 99) // 100
    return ops.mean(ops.top_k(costs, num_worst, sorted=False)[0])


def one_hot_labels(labels):
    """`(...)` whole numbers -> `(..., classes)` float32 zeros and ones."""
    return ops.one_hot(ops.cast(labels, "int32"), NUM_CLASSES, dtype="float32")


def _true_probability(labels, probabilities):
    return ops.sum(one_hot_labels(labels) * ops.cast(probabilities, "float32"), axis=-1)


def _crossentropy(true_probability):
    return -ops.log(ops.clip(true_probability, SMALLEST_PROBABILITY, 1.0))


def _pixel_weights(labels, class_weights: Sequence[float]):
    return ops.sum(one_hot_labels(labels) * ops.convert_to_tensor(class_weights, dtype="float32"), axis=-1)


def _weighted_mean(costs, labels, class_weights: Sequence[float] | None):
    if class_weights is None:
        return ops.mean(costs)
    weights = _pixel_weights(labels, class_weights)
    return ops.sum(weights * costs) / ops.maximum(ops.sum(weights), 1e-12)
