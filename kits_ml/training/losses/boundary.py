"""A loss of boundaries that needs no distance map."""

from __future__ import annotations

from keras import ops

from kits_ml.training.losses.overlap import class_mean, pixel_axes
from kits_ml.training.losses.pixels import one_hot_labels


def boundary_f1(
    labels,
    probabilities,
    *,
    tolerance: int = 2,
    per_slice: bool = False,
    smoothing: float = 1.0,
    skip_absent: bool = False,
):
    """`1 - F1` of the boundaries, the mean of the foreground classes (Bokhovkin and Burnaev 2019, arXiv:1905.07852).

    A boundary is the pixels of a class that touch, also by a corner, one outside it; the image's edge is none. Two
    boundaries meet within a square of `2 tolerance + 1` pixels. It knows only boundaries: use it beside another part.
    Maxima are slow on a processor: for eight slices of 256 x 256 it takes ten times as long as Dice and cross-entropy
    together (1.0 s and 0.1 s of one core).

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        tolerance: pixels that boundaries may lie apart, in rows and in columns.
        per_slice: the mean over slices and classes; else sums over the batch.
        smoothing: pixels added above and below the fraction bars of precision and recall, above 0.
        skip_absent: leave classes without a boundary in the labels out of the mean.

    Returns:
        A scalar in [0, 1]. A class without a boundary in the labels has a recall of 1 and a precision that falls with
        the boundary that the network draws: it costs 0 if none; with no class left, the loss is 0.
    """
    true = _boundary(one_hot_labels(labels)[..., 1:])
    predicted = _boundary(ops.cast(probabilities, "float32")[..., 1:])
    axes = pixel_axes(per_slice=per_slice)

    def share(boundary, of_other):
        met = ops.sum(boundary * _highest_around(of_other, tolerance), axis=axes)
        return (met + smoothing) / (ops.sum(boundary, axis=axes) + smoothing)

    precision, recall = share(predicted, true), share(true, predicted)
    f1 = 2.0 * precision * recall / (precision + recall)
    return class_mean(1.0 - f1, ops.sum(true, axis=axes), skip_absent=skip_absent)


def _boundary(masks):
    """How much of each pixel is inside while a neighbour is outside; `(batch, rows, columns, classes)` in [0, 1]."""
    outside = 1.0 - masks
    return _highest_around(outside, 1) - outside


def _highest_around(values, radius: int):
    """The maximum of the square around each pixel; the image's edge cuts it."""
    return ops.max_pool(values, 2 * radius + 1, strides=1, padding="same", data_format="channels_last")
