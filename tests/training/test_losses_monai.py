"""Losses against MONAI's on random input, with the arguments that make the definitions the same."""

import monai.losses
import numpy as np
import pytest
import torch
from keras import ops

from kits_ml.training.losses import overlap, pixels

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (3, 6, 7)).astype(np.uint8)
LOGITS = RNG.normal(0, 2, (3, 6, 7, 3)).astype(np.float32)
CLASS_WEIGHTS = (0.2, 1.0, 3.0)


def _ours(loss, **options) -> float:
    probabilities = ops.softmax(ops.convert_to_tensor(LOGITS), axis=-1)
    return float(ops.convert_to_numpy(loss(ops.convert_to_tensor(LABELS), probabilities, **options)))


def _monai(loss: torch.nn.Module) -> float:
    # (batch, rows, columns, classes) -> (batch, classes, rows, columns)
    logits = torch.from_numpy(np.moveaxis(LOGITS, -1, 1).copy())
    return float(loss(logits, torch.from_numpy(LABELS[:, None].astype(np.int64))))


def _options(per_slice: bool) -> dict:
    return {"to_onehot_y": True, "softmax": True, "batch": not per_slice}


@pytest.mark.parametrize("per_slice", [False, True])
@pytest.mark.parametrize("smoothing", [1e-5, 1.0])
def test_dice(per_slice, smoothing):
    expected = monai.losses.DiceLoss(
        include_background=False, smooth_nr=smoothing, smooth_dr=smoothing, **_options(per_slice)
    )
    assert _ours(overlap.soft_dice, per_slice=per_slice, smoothing=smoothing) == pytest.approx(
        _monai(expected), rel=1e-5
    )


@pytest.mark.parametrize("per_slice", [False, True])
def test_tversky(per_slice):
    # MONAI smooths TP where we smooth 2 TP, so that 1/2, 1/2 is its own Dice's half: it gets half of our pixel
    expected = monai.losses.TverskyLoss(
        include_background=False, alpha=0.3, beta=0.7, smooth_nr=0.5, smooth_dr=0.5, **_options(per_slice)
    )
    assert _ours(overlap.tversky, per_slice=per_slice) == pytest.approx(_monai(expected), rel=1e-5)


@pytest.mark.parametrize("per_slice", [False, True])
def test_generalized_dice(per_slice):
    # ours needs no smoothing, which MONAI adds to sums that are over squared sizes
    expected = monai.losses.GeneralizedDiceLoss(smooth_nr=0, smooth_dr=0, **_options(per_slice))
    assert _ours(overlap.generalized_dice, per_slice=per_slice) == pytest.approx(_monai(expected), rel=1e-5)


@pytest.mark.parametrize("per_slice", [False, True])
def test_generalized_dice_without_a_tumour(per_slice, monkeypatch):
    monkeypatch.setitem(globals(), "LABELS", np.minimum(LABELS, 1))
    expected = monai.losses.GeneralizedDiceLoss(smooth_nr=0, smooth_dr=0, **_options(per_slice))
    assert _ours(overlap.generalized_dice, per_slice=per_slice) == pytest.approx(_monai(expected), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal(gamma):
    # MONAI's mean is over pixels and classes, of which all but the true one are 0: a third of ours
    expected = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)
    assert _ours(pixels.focal, gamma=gamma) == pytest.approx(3 * _monai(expected), rel=1e-5)
    # MONAI does not divide by the weights; ours is the weighted mean
    expected = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma, weight=CLASS_WEIGHTS)
    mean_weight = np.mean(np.array(CLASS_WEIGHTS)[LABELS])
    found = _ours(pixels.focal, gamma=gamma, class_weights=CLASS_WEIGHTS)
    assert found == pytest.approx(3 * _monai(expected) / mean_weight, rel=1e-5)


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_dice_and_crossentropy(weights):
    # MONAI weighs the classes of its Dice too, so that the sum is compared without weights only
    crossentropy = torch.nn.CrossEntropyLoss(weight=None if weights is None else torch.tensor(weights))
    expected = crossentropy(
        torch.from_numpy(np.moveaxis(LOGITS, -1, 1).copy()), torch.from_numpy(LABELS.astype(np.int64))
    )
    found = _ours(pixels.categorical_crossentropy, class_weights=weights)
    assert found == pytest.approx(float(expected), rel=1e-5)
    if weights is None:
        both = monai.losses.DiceCELoss(include_background=False, smooth_nr=1, smooth_dr=1, **_options(False))
        assert found + _ours(overlap.soft_dice) == pytest.approx(_monai(both), rel=1e-5)


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_topk_is_nnunets(weights):
    # nnU-Net: torch.topk of the unreduced cross-entropy, int(126 * 50 / 100) = 63 pixels, their mean
    crossentropy = torch.nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights), reduction="none"
    )
    costs = crossentropy(
        torch.from_numpy(np.moveaxis(LOGITS, -1, 1).copy()), torch.from_numpy(LABELS.astype(np.int64))
    )
    expected = float(torch.topk(costs.view(-1), 63, sorted=False)[0].mean())
    found = _ours(pixels.topk_crossentropy, percent=50, class_weights=weights)
    assert found == pytest.approx(expected, rel=1e-5)
