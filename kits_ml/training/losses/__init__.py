"""Losses of whole-number labels against softmax probabilities.

Each is a pure function of `labels`, `(batch, rows, columns)` whole numbers below the number of classes, and
`probabilities`, `(batch, rows, columns, classes)` in [0, 1] summing to 1, and gives a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
from keras import ops

from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS, PART_WEIGHTS, parse_class_weights
from kits_ml.errors import InputError
from kits_ml.training.losses import boundary, overlap, pixels

#: Of labels and probabilities.
LossFunction = Callable[[Any, Any], Any]


def make_loss(settings: LossSettings) -> SummedLoss:
    """The loss that the settings ask for: the weighted sum of its parts.

    Args:
        settings: which loss, and the numbers in it.

    Returns:
        A Keras loss of labels and probabilities. `dice_crossentropy` with all defaults is cross-entropy plus soft
        Dice in equal parts, as nnU-Net (Isensee et al. 2021, arXiv:1904.08128).
    """
    parts = {name: PARTS[name](settings) for name in LOSS_PARTS[settings.loss]}
    weights = {name: getattr(settings, PART_WEIGHTS[name]) for name in parts}
    return SummedLoss(parts, weights, name=settings.loss)


class SummedLoss(keras.losses.Loss):
    """A weighted sum of losses.

    It takes no sample weights: sums over a batch have no slices left to weigh, and Keras would multiply the result
    with the mean weight and say nothing.

    Args:
        parts: functions of labels and probabilities that give a scalar.
        weights: of the parts, by the same names; parts of weight 0 are not computed.
        name: of the loss.
    """

    def __init__(self, parts: Mapping[str, LossFunction], weights: Mapping[str, float], *, name: str):
        super().__init__(name=name)
        self.parts = dict(parts)
        self.weights = dict(weights)

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise InputError(f"sample_weight: the loss {self.name} takes none; use class_weights")
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        used = [name for name, weight in self.weights.items() if weight]
        total = sum(self.weights[name] * self.parts[name](y_true, y_pred) for name in used)
        # with an axis, Keras divides it by the number of devices that each add their gradient
        return ops.reshape(total, (1,))


def _fraction(settings: LossSettings) -> dict[str, Any]:
    return {
        "per_slice": settings.overlap_per_slice,
        "smoothing": settings.overlap_smoothing,
        "skip_absent": settings.skip_absent_classes,
    }


def _dice(settings: LossSettings) -> LossFunction:
    return partial(overlap.soft_dice, **_fraction(settings))


def _generalized_dice(settings: LossSettings) -> LossFunction:
    return partial(
        overlap.generalized_dice, per_slice=settings.overlap_per_slice, skip_absent=settings.skip_absent_classes
    )


def _tversky(settings: LossSettings) -> LossFunction:
    return partial(overlap.tversky, alpha=settings.tversky_alpha, beta=settings.tversky_beta, **_fraction(settings))


def _focal_tversky(settings: LossSettings) -> LossFunction:
    return partial(
        overlap.focal_tversky,
        alpha=settings.tversky_alpha,
        beta=settings.tversky_beta,
        gamma=settings.focal_tversky_gamma,
        **_fraction(settings),
    )


def _boundary(settings: LossSettings) -> LossFunction:
    return partial(boundary.boundary_f1, tolerance=settings.boundary_tolerance, **_fraction(settings))


def _crossentropy(settings: LossSettings) -> LossFunction:
    return partial(pixels.categorical_crossentropy, class_weights=parse_class_weights(settings.class_weights))


def _topk_crossentropy(settings: LossSettings) -> LossFunction:
    return partial(
        pixels.topk_crossentropy,
        percent=settings.topk_percent,
        class_weights=parse_class_weights(settings.class_weights),
    )


def _focal(settings: LossSettings) -> LossFunction:
    return partial(
        pixels.focal, gamma=settings.focal_gamma, class_weights=parse_class_weights(settings.class_weights)
    )


#: Makes each part from the settings.
PARTS: Mapping[str, Callable[[LossSettings], LossFunction]] = {
    "dice": _dice,
    "generalized_dice": _generalized_dice,
    "tversky": _tversky,
    "focal_tversky": _focal_tversky,
    "boundary": _boundary,
    "crossentropy": _crossentropy,
    "topk_crossentropy": _topk_crossentropy,
    "focal": _focal,
}
