"""Losses of overlap: probabilities for masks, one fraction a class.

Sums run over the batch as one, so that a slice without tumour does not ask for a Dice of nothing over nothing, or
over each slice by itself (`per_slice`).

A class that the labels do not show costs `P / (P + smoothing)` with `P`, the sum of its probabilities: little
where the network is sure, nearly 1 where it is not. Its pull on the logits is bounded all the same: on `P` it is
`smoothing / (P + smoothing)^2`, so that the class's own logits together feel at most 1/4 of the class's share in the
mean, and those of the other classes as much the other way; less the further `P` lies from `smoothing`. Where most
slices lack a class and `per_slice` counts each, that is most of the loss: `skip_absent` takes such classes out of
the mean.
"""

from __future__ import annotations

from keras import ops

from kits_ml.training.losses.pixels import one_hot_labels


def soft_dice(labels, probabilities, *, per_slice: bool = False, smoothing: float = 1.0, skip_absent: bool = False):
    """`1 - Dice`, the mean of the foreground classes (Drozdzal et al. 2016, arXiv:1608.04117).

    Below the fraction bar are sums, as in nnU-Net and MONAI; V-Net (Milletari et al. 2016, arXiv:1606.04797) has sums
    of squares there.

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        per_slice: the mean over slices and classes; else sums over the batch.
        smoothing: pixels added above and below the fraction bar, above 0.
        skip_absent: leave classes that the labels do not show out of the mean.

    Returns:
        A scalar in [0, 1]. A class that neither the labels nor the network show costs 0, one that the labels alone do
        not show up to 1, and nothing with `skip_absent`; with no class left, it is 0.
    """
    return tversky(
        labels,
        probabilities,
        alpha=0.5,
        beta=0.5,
        per_slice=per_slice,
        smoothing=smoothing,
        skip_absent=skip_absent,
    )


def tversky(
    labels,
    probabilities,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    per_slice: bool = False,
    smoothing: float = 1.0,
    skip_absent: bool = False,
):
    """`1 - TP / (TP + alpha FP + beta FN)`, mean of the foreground classes (Salehi et al. 2017, arXiv:1706.05721).

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        alpha: what a false positive costs.
        beta: what a false negative costs; alpha = beta = 1/2 is Dice, alpha = beta = 1 is IoU.
        per_slice: the mean over slices and classes; else sums over the batch.
        smoothing: pixels added to twice TP above and below the fraction bar, as in Dice; above 0.
        skip_absent: leave classes that the labels do not show out of the mean.

    Returns:
        A scalar in [0, 1]; classes that are not there as in `soft_dice`, with `2 alpha P` for `P`.
    """
    both, true, predicted = foreground_sums(labels, probabilities, per_slice=per_slice)
    index = _tversky_index(both, true, predicted, alpha=alpha, beta=beta, smoothing=smoothing)
    return class_mean(1.0 - index, true, skip_absent=skip_absent)


def focal_tversky(
    labels,
    probabilities,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    per_slice: bool = False,
    smoothing: float = 1.0,
    skip_absent: bool = False,
):
    """`(1 - Tversky) ** (1 / gamma)` of each foreground class, their mean (Abraham and Khan 2019, arXiv:1810.07842).

    The names are Salehi's, as in `tversky`: the paper calls alpha what is beta here.

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        alpha: what a false positive costs.
        beta: what a false negative costs.
        gamma: 1 to 3; 1 is `tversky`, more gives classes that go well less of a pull.
        per_slice: the mean over slices and classes; else sums over the batch.
        smoothing: as in `tversky`.
        skip_absent: leave classes that the labels do not show out of the mean.

    Returns:
        A scalar in [0, 1]; classes that are not there as in `tversky`, to the power.
    """
    both, true, predicted = foreground_sums(labels, probabilities, per_slice=per_slice)
    loss = 1.0 - _tversky_index(both, true, predicted, alpha=alpha, beta=beta, smoothing=smoothing)
    # the power's slope at 0 is infinite: below 1e-6 a straight line goes on to 0
    powered = loss * ops.maximum(loss, 1e-6) ** (1.0 / gamma - 1.0)
    return class_mean(powered, true, skip_absent=skip_absent)


def generalized_dice(labels, probabilities, *, per_slice: bool = False, skip_absent: bool = False):
    """`1 - Dice` of all classes in one fraction, each over its squared size (Sudre et al. 2017, arXiv:1707.03237).

    Background is a class here, as in the paper. A class of very few pixels outweighs all others: that is the method.

    Args:
        labels: `(batch, rows, columns)` whole numbers.
        probabilities: `(batch, rows, columns, classes)`, summing to 1.
        per_slice: the mean over slices; else sums over the batch.
        skip_absent: classes that the labels do not show weigh 0.

    Returns:
        A scalar in [0, 1]. The weight of a class that the labels do not show would be infinite: it is that of the
        smallest class that they do show, so that its probabilities cost as much as those of that one. Needs no
        smoothing: some class is always there.
    """
    both, true, predicted = _sums(one_hot_labels(labels), ops.cast(probabilities, "float32"), per_slice=per_slice)
    shown = ops.cast(true > 0, "float32")
    smallest = ops.min(ops.where(true > 0, true, float("inf")), axis=-1, keepdims=True)
    weights = (
        smallest / ops.maximum(true, smallest)
    ) ** 2  # over the largest of them: float32 has no room for 1 / n^2
    if skip_absent:
        weights = weights * shown
    dice = 2.0 * ops.sum(weights * both, axis=-1) / ops.sum(weights * (true + predicted), axis=-1)
    return 1.0 - ops.mean(dice)


def foreground_sums(labels, probabilities, *, per_slice: bool):
    """Sums of the product, the labels and the probabilities: `(classes - 1,)` each, or `(batch, classes - 1)`."""
    return _sums(one_hot_labels(labels)[..., 1:], ops.cast(probabilities, "float32")[..., 1:], per_slice=per_slice)


def pixel_axes(*, per_slice: bool) -> tuple[int, ...]:
    """The axes of `(batch, rows, columns, classes)` that a sum runs over."""
    return (1, 2) if per_slice else (0, 1, 2)


def class_mean(losses, true, *, skip_absent: bool):
    """Mean of a loss a class (and slice); with `skip_absent` of those whose labels' sum, `true`, is above 0."""
    if not skip_absent:
        return ops.mean(losses)
    shown = ops.cast(true > 0, "float32")
    return ops.sum(losses * shown) / ops.maximum(ops.sum(shown), 1.0)


def _sums(one_hot, probabilities, *, per_slice: bool):
    axes = pixel_axes(per_slice=per_slice)
    return ops.sum(one_hot * probabilities, axis=axes), ops.sum(one_hot, axis=axes), ops.sum(probabilities, axis=axes)


def _tversky_index(both, true, predicted, *, alpha: float, beta: float, smoothing: float):
    # FP = predicted - both, FN = true - both
    bottom = 2.0 * (1.0 - alpha - beta) * both + 2.0 * alpha * predicted + 2.0 * beta * true
    return (2.0 * both + smoothing) / (bottom + smoothing)
