"""Losses by hand."""

import math
from functools import partial

import numpy as np
import pytest
from keras import ops

from kits_ml.training.losses import boundary, overlap, pixels
from tests.training.loss_inputs import SLICES, one_hot, square, value_of


def test_categorical_crossentropy():
    # -(log 0.7 + log 0.6) / 2
    assert value_of(pixels.categorical_crossentropy) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)


def test_class_weights_make_a_weighted_mean():
    loss = partial(pixels.categorical_crossentropy, class_weights=(0.5, 3, 9))
    expected = -(3 * math.log(0.7) + 0.5 * math.log(0.6)) / 3.5
    assert value_of(loss) == pytest.approx(expected)
    assert value_of(partial(loss, class_weights=(1, 6, 18))) == pytest.approx(expected)  # all doubled
    assert value_of(partial(loss, class_weights=(0, 0, 1))) == 0  # no tumour there, and nothing else counts


def test_focal():
    # kidney 0.3^2 log 0.7, background 0.4^2 log 0.6
    kidney, background = -(0.3**2) * math.log(0.7), -(0.4**2) * math.log(0.6)
    assert value_of(pixels.focal) == pytest.approx((kidney + background) / 2, rel=1e-5)
    weighted = partial(pixels.focal, class_weights=(1, 4, 0))
    assert value_of(weighted) == pytest.approx((4 * kidney + background) / 5, rel=1e-5)
    assert value_of(partial(pixels.focal, gamma=0)) == pytest.approx(value_of(pixels.categorical_crossentropy))


def test_topk_crossentropy_is_the_mean_of_the_worst():
    kidney, background = -math.log(0.7), -math.log(0.6)
    for percent in (1, 50):  # of two pixels one: rounded up
        assert value_of(partial(pixels.topk_crossentropy, percent=percent)) == pytest.approx(background)
    assert value_of(partial(pixels.topk_crossentropy, percent=100)) == pytest.approx((kidney + background) / 2)
    weighted = partial(pixels.topk_crossentropy, percent=50, class_weights=(1, 3, 1))
    assert value_of(weighted) == pytest.approx(3 * kidney)  # 3 * 0.357 is more than 0.511


def test_soft_dice():
    # kidney: (2 * 0.7 + 1) / (1 + (0.7 + 0.3) + 1) = 2.4 / 3; tumour: (0 + 1) / (0 + 0.2 + 1) = 1 / 1.2
    assert value_of(overlap.soft_dice) == pytest.approx(1 - (2.4 / 3 + 1 / 1.2) / 2, rel=1e-5)
    # with 0.5: (1.4 + 0.5) / (2 + 0.5) and 0.5 / 0.7
    assert value_of(partial(overlap.soft_dice, smoothing=0.5)) == pytest.approx(
        1 - (1.9 / 2.5 + 0.5 / 0.7) / 2, rel=1e-5
    )


def test_soft_dice_of_each_slice():
    loss = partial(overlap.soft_dice, per_slice=True)
    # slice 1, kidney: 2.4 / 2.7, tumour: 1 / 1.1; slice 2, kidney: 1 / 1.3, tumour: 1 / 1.1
    assert value_of(loss, *SLICES) == pytest.approx(1 - (2.4 / 2.7 + 1 / 1.1 + 1 / 1.3 + 1 / 1.1) / 4, rel=1e-5)
    # kidney in slice 1 is all that the labels show
    assert value_of(partial(loss, skip_absent=True), *SLICES) == pytest.approx(1 - 2.4 / 2.7, rel=1e-5)
    # as one batch the slices are the two pixels above
    assert value_of(overlap.soft_dice, *SLICES) == pytest.approx(value_of(overlap.soft_dice))


def test_tversky():
    # kidney: TP 0.7, FP 0.3, FN 0.3; tumour: FP 0.2. One pixel of smoothing to twice TP
    loss = partial(overlap.tversky, alpha=0.2, beta=0.9)
    kidney = (2 * 0.7 + 1) / (2 * (0.7 + 0.2 * 0.3 + 0.9 * 0.3) + 1)
    tumour = 1 / (2 * 0.2 * 0.2 + 1)
    assert value_of(loss) == pytest.approx(1 - (kidney + tumour) / 2, rel=1e-5)
    assert value_of(partial(loss, skip_absent=True)) == pytest.approx(1 - kidney, rel=1e-5)
    assert value_of(partial(loss, alpha=0.5, beta=0.5)) == value_of(overlap.soft_dice)


def test_focal_tversky():
    index = [(1.4 + 1) / (2 * (0.7 + 0.2 * 0.3 + 0.9 * 0.3) + 1), 1 / (2 * 0.2 * 0.2 + 1)]
    loss = partial(overlap.focal_tversky, alpha=0.2, beta=0.9, gamma=2)
    assert value_of(loss) == pytest.approx((math.sqrt(1 - index[0]) + math.sqrt(1 - index[1])) / 2, rel=1e-5)
    plain = value_of(partial(overlap.tversky, alpha=0.2, beta=0.9))
    assert value_of(partial(loss, gamma=1)) == pytest.approx(plain, rel=1e-6)


def test_generalized_dice():
    # three background pixels and one kidney pixel: weights 1 / 9 and 1, tumour as kidney
    labels = np.array([[[0, 0, 0, 1]]])
    probabilities = np.array([[[[0.9, 0.1, 0], [0.8, 0.1, 0.1], [1, 0, 0], [0.3, 0.5, 0.2]]]], np.float32)
    background, kidney = 2.7, 0.5
    upper = 2 * (background / 9 + kidney)
    lower = (3 + 3.0) / 9 + (1 + 0.7)
    assert value_of(overlap.generalized_dice, labels, probabilities) == pytest.approx(
        1 - upper / (lower + 0.3), rel=1e-5
    )
    skipping = partial(overlap.generalized_dice, skip_absent=True)
    assert value_of(skipping, labels, probabilities) == pytest.approx(1 - upper / lower, rel=1e-5)


def test_generalized_dice_of_each_slice():
    # slice 1 is kidney, slice 2 background, one pixel each: all weights are 1, the lower half 1 + 1
    loss = partial(overlap.generalized_dice, per_slice=True)
    assert value_of(loss, *SLICES) == pytest.approx(1 - (2 * 0.7 / 2 + 2 * 0.6 / 2) / 2, rel=1e-5)


def test_boundaries_meet_within_the_tolerance():
    true, moved = square(3), one_hot(square(5))
    assert value_of(partial(boundary.boundary_f1, tolerance=2), true, moved) == pytest.approx(0, abs=1e-6)
    # without tolerance: of two rings of 16 the upper and lower sides share 3 pixels each, and the columns 5 and 7
    # cross no side of the other but at those; precision = recall = (6 + 1) / (16 + 1), and tumour costs nothing
    assert value_of(partial(boundary.boundary_f1, tolerance=0), true, moved) == pytest.approx(
        (1 - 7 / 17) / 2, rel=1e-5
    )


def test_a_soft_boundary():
    # 3 x 3, each row alike. Kidney true in the last column: 0 0 1, predicted as 0 1/2 1. A pixel's boundary is how
    # much its neighbourhood's most outside is more outside than itself: true 1 1 1 - 1 1 0 = 0 0 1,
    # predicted 1 1 1/2 - 1 1/2 0 = 0 1/2 1/2; over three rows both sum to 3
    kidney = np.array([0, 0.5, 1], np.float32) * np.ones((1, 3, 1), np.float32)
    labels, probabilities = (kidney == 1).astype(np.uint8), np.stack([1 - kidney, kidney, 0 * kidney], axis=-1)
    # without tolerance they share 3 x 1/2: precision = recall = (1.5 + 1) / (3 + 1) = F1; tumour costs nothing
    assert value_of(partial(boundary.boundary_f1, tolerance=0), labels, probabilities) == pytest.approx(
        (1 - 2.5 / 4) / 2, rel=1e-5
    )
    # with 1, around the true boundary is 0 1 1, so all that is predicted meets it: precision (3 + 1) / (3 + 1) = 1;
    # around the predicted one is 1/2 1/2 1/2, so half of the true one does: recall (1.5 + 1) / (3 + 1)
    f1 = 2 * 1 * 0.625 / (1 + 0.625)
    assert value_of(partial(boundary.boundary_f1, tolerance=1), labels, probabilities) == pytest.approx(
        (1 - f1) / 2, rel=1e-5
    )


def test_a_boundary_that_is_not_there():
    nothing, kidney = np.zeros((1, 16, 16), np.uint8), square(3)
    # missed: recall (0 + 1) / (16 + 1), precision (0 + 1) / (0 + 1); invented: the other way round
    f1 = 2 * (1 / 17) / (1 + 1 / 17)
    assert value_of(boundary.boundary_f1, kidney, one_hot(nothing)) == pytest.approx((1 - f1) / 2, rel=1e-5)
    assert value_of(boundary.boundary_f1, nothing, one_hot(kidney)) == pytest.approx((1 - f1) / 2, rel=1e-5)
    skipping = partial(boundary.boundary_f1, skip_absent=True)
    assert value_of(skipping, kidney, one_hot(nothing)) == pytest.approx(1 - f1, rel=1e-5)
    assert value_of(skipping, nothing, one_hot(kidney)) == 0


EVERY_LOSS = [
    pixels.categorical_crossentropy,
    pixels.focal,
    pixels.topk_crossentropy,
    partial(pixels.categorical_crossentropy, class_weights=(0.2, 1, 3)),
    overlap.soft_dice,
    overlap.tversky,
    overlap.focal_tversky,
    overlap.generalized_dice,
    boundary.boundary_f1,
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_half_precision_changes_nothing(loss, dtype):
    # float16 ends at 65,504, and bfloat16 counts no further than 256; kidney has 2 x 200 x 256 = 102,400 pixels, with
    # seven eighths or more for each. Sixteenths are the same numbers in all three
    labels = np.ones((2, 256, 256), np.uint8)
    labels[:, 200:] = 0
    labels[:, 220:240, 100:160] = 2
    probabilities = (1 + 13 * one_hot(labels)) / 16
    probabilities[:, :, ::5] = [0, 1, 0]  # some are wrong
    expected = value_of(loss, labels, probabilities)
    assert math.isfinite(expected)
    assert expected > 0.01
    assert value_of(loss, labels, ops.cast(probabilities, dtype)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss", [overlap.soft_dice, overlap.tversky, overlap.focal_tversky, overlap.generalized_dice]
)
def test_nothing_to_find_and_nothing_found_costs_nothing(loss):
    nothing = np.zeros((2, 4, 4), np.uint8)
    for per_slice in (False, True):
        for skip_absent in (False, True):
            chosen = partial(loss, per_slice=per_slice, skip_absent=skip_absent)
            assert value_of(chosen, nothing, one_hot(nothing)) == pytest.approx(0, abs=1e-6)


def test_absent_tumours_need_not_dominate():
    # eight slices: one with 10 pixels of tumour, all found; seven without, in each 1 pixel taken for tumour
    labels = np.zeros((8, 4, 4), np.uint8)
    predicted = labels.copy()
    labels[0].flat[:10] = predicted[0].flat[:10] = 2
    predicted[1:, 0, 0] = 2
    # each slice by itself: seven times 1 - 1 / 2, the kidney costs nothing: 3.5 of 16 values
    assert value_of(partial(overlap.soft_dice, per_slice=True), labels, one_hot(predicted)) == pytest.approx(3.5 / 16)
    # as one batch: 1 - (2 * 10 + 1) / (10 + 17 + 1) = 1 / 4 for tumour, 0 for kidney
    assert value_of(overlap.soft_dice, labels, one_hot(predicted)) == pytest.approx(1 / 8)
    skipping = partial(overlap.soft_dice, per_slice=True, skip_absent=True)
    assert value_of(skipping, labels, one_hot(predicted)) == pytest.approx(0, abs=1e-6)
