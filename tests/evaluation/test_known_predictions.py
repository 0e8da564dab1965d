"""The known predictions are counted again, pixel by pixel, and theory is worked out by hand."""

import math

import numpy as np
import pytest

from kits_ml.evaluation.known_predictions import (
    A_PIXEL_TOO_MUCH,
    A_ROW_TOO_FAR,
    LESIONS_OF_EVERY_SIZE,
    LESIONS_OF_THREE_PATIENTS,
    NEAR_AND_FAR,
    SCENARIOS,
    SOFTMAX,
)
from kits_ml.evaluation.theory import ByHand, Calibrated, Convention, Volume, conventions

ALL = (*SCENARIOS, A_ROW_TOO_FAR, A_PIXEL_TOO_MUCH, LESIONS_OF_EVERY_SIZE, LESIONS_OF_THREE_PATIENTS, NEAR_AND_FAR)
BY_NAME = {scenario.name: scenario for scenario in ALL}


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_the_tables_are_what_is_drawn(scenario):
    for case in scenario.cases:
        counts = [[0, 0, 0] for _ in case.table]
        for true, predicted in zip(case.labels.ravel(), case.label_map_pred.ravel(), strict=True):
            counts[true if true < 3 else 3][predicted] += 1
        assert tuple(map(tuple, counts)) == case.table
        # the probabilities say the same: the predicted class has the most, and all sum to 1
        np.testing.assert_allclose(case.probabilities.sum(axis=-1), 1, atol=1e-6)
        chosen = np.take_along_axis(case.probabilities, case.label_map_pred[..., None], axis=-1)
        assert (chosen[..., 0] == case.probabilities.max(axis=-1)).all()
        assert ((case.probabilities == chosen).sum(axis=-1) == 1).all()


def test_what_must_be_covered_is_there():
    assert SOFTMAX["0.987"][0] == 0.987
    assert max(SOFTMAX["0.4/0.35/0.25"]) < 0.5
    assert {case.labels.shape for case in BY_NAME["two patients"].cases} == {(3, 8, 8), (2, 8, 8)}
    assert set(np.unique(BY_NAME["labels 127 and 255"].cases[0].labels)) == {0, 127, 255}
    assert len(BY_NAME) == len(ALL)


@pytest.mark.parametrize(
    ("name", "convention", "expected"),
    [
        # shifted: background 160 of 168 + 8, kidney 10 of 20 + 10, tumour 2 of 4 + 2
        ("shifted by a pixel", Convention(kind="iou"), (160 / 176 + 10 / 30 + 2 / 6) / 3),
        ("shifted by a pixel", Convention(kind="iou", average="foreground_labels"), (10 / 30 + 2 / 6) / 2),
        # with its tumour the kidney has 24 pixels in both, 10 + 2 + 2 + 2 of them common
        ("shifted by a pixel", Convention(kind="dice", average="kidney_region"), 2 * 16 / 48),
        ("shifted by a pixel", Convention(kind="accuracy"), 172 / 192),
        ("all background, saturated", Convention(kind="iou"), (168 / 192 + 0 + 0) / 3),
        ("all background, saturated", Convention(kind="dice", average="tumour_label"), 0),
        ("all background, saturated", Convention(kind="precision", average="tumour_label"), 0),
        ("kidney and tumour swapped", Convention(kind="dice", average="kidney_region"), 1),
        ("kidney and tumour swapped", Convention(kind="iou"), 1 / 3),
        ("tumour taken for kidney", Convention(kind="precision", average="kidney_label"), 20 / 24),
        ("tumour taken for kidney", Convention(kind="recall", average="kidney_label"), 1),
        # no tumour in either: counts 1, as in KiTS, or not at all, as in Keras
        ("patient without tumour", Convention(kind="iou"), (112 / 116 + 12 / 16 + 1) / 3),
        ("patient without tumour", Convention(kind="iou", absent="skip"), (112 / 116 + 12 / 16) / 2),
        ("patient without tumour", Convention(kind="iou", average="tumour_label", absent="skip"), None),
        ("patient without tumour, some predicted", Convention(kind="dice", average="tumour_label"), 0),
        # kidney with its tumour: 24 of 24, and 12 of 16
        ("two patients", Convention(kind="iou", average="kidney_region"), 36 / 40),
        ("two patients", Convention(kind="iou", average="kidney_region", per_case=True), (1 + 12 / 16) / 2),
        ("two patients", Convention(kind="accuracy"), (188 + 124) / 320),
        ("two patients", Convention(kind="accuracy", per_case=True), (188 / 192 + 124 / 128) / 2),
        # nothing of kidney and tumour is right, as their labels are none
        ("labels 127 and 255", Convention(kind="iou"), 1 / 3),
        ("labels 127 and 255", Convention(kind="accuracy"), 168 / 192),
    ],
)
def test_theory_by_hand(name, convention, expected):
    found = convention.expected(BY_NAME[name])
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-12)


def _counted(labels, probabilities) -> dict[tuple[float, ...], list[int]]:
    found: dict[tuple[float, ...], list[int]] = {}
    for label, given in zip(labels.ravel(), probabilities.reshape(-1, 3).tolist(), strict=True):
        counts = found.setdefault(tuple(round(one, 6) for one in given), [0, 0, 0])
        if label < 3:
            counts[label] += 1
    return {given: counts for given, counts in found.items() if any(counts)}


def _told(calls) -> dict[tuple[float, ...], list[int]]:
    return {call.probabilities: list(call.num_true) for call in calls if any(call.num_true)}


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_the_calls_are_what_is_given(scenario):
    for case in scenario.cases:
        assert _told(case.calls) == _counted(case.labels, case.probabilities)
        if scenario is NEAR_AND_FAR:  # 2 slices, 6 rows, 5 columns
            assert _told(case.calls_near) == _counted(case.labels[:2, :6, :5], case.probabilities[:2, :6, :5])
        elif "lesions" not in scenario.name:  # nobody asks those for their probabilities
            assert _told(case.calls_near) == (_told(case.calls) if case.labels.any() else {})


@pytest.mark.parametrize(
    ("name", "volume", "expected"),
    [
        # voxels of 5 x 1 x 2 mm: 0.01 ml; kidney with its tumour has 24
        ("perfect, saturated", Volume(region="kidney_region", of="true"), 0.24),
        ("perfect, saturated", Volume(region="tumour_label", of="error"), 0.0),
        ("all background, saturated", Volume(region="kidney_region", of="error"), -0.24),
        ("all kidney", Volume(region="kidney_region", of="pred"), 1.92),
        ("kidney and tumour swapped", Volume(region="tumour_label", of="error"), 0.2 - 0.04),
        ("shifted by a pixel", Volume(region="tumour_label", of="error"), 0.0),
        ("two patients", Volume(region="kidney_region", of="error"), (0.0 - 0.04) / 2),
        ("a box, 1.1 mm too far", Volume(region="tumour_label", of="pred"), 4 * 0.011),
        ("lesions of every size", Volume(region="tumour_label", of="true"), 2 * (90 + 17 + 16 + 3 + 2)),
    ],
)
def test_volumes_by_hand(name, volume, expected):
    assert volume.expected(BY_NAME[name]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "score", "label", "expected"),
    [
        ("perfect, saturated", "ece", 1, 0),
        ("perfect, saturated", "brier", None, 0),
        # 20 of 192 are kidney and given 0.6; 168 are background, whose next class gets 0.3, and 4 tumour: 0.1
        ("perfect, p = 0.6/0.3/0.1", "ece", 1, (20 * 0.4 + 168 * 0.3 + 4 * 0.1) / 192),
        ("perfect, p = 0.6/0.3/0.1", "brier", 1, (20 * 0.16 + 168 * 0.09 + 4 * 0.01) / 192),
        ("perfect, p = 0.6/0.3/0.1", "brier", None, 0.4**2 + 0.3**2 + 0.1**2),
        # 0.008 and 0.005 share the lowest bin
        ("perfect, p = 0.987", "ece", 1, (20 * 0.013 + 168 * 0.008 + 4 * 0.005) / 192),
        ("all background, saturated", "ece", 0, 24 / 192),
        ("all background, saturated", "brier", None, 2 * 24 / 192),
        # 20 kidney pixels among 192 that are given 0.3
        ("all background, p = 0.6/0.3/0.1", "ece", 1, (192 * 0.3 - 20) / 192),
        ("all kidney", "ece", 1, 172 / 192),
        # all of kidney and tumour is wrong both ways
        ("kidney and tumour swapped", "brier", None, 2 * 24 / 192),
        # false ones and missed ones lie at either end, and do not even out: 8 + 8 of background
        ("shifted by a pixel", "ece", 0, 16 / 192),
        ("two patients", "ece", 2, (4 / 192 + 0) / 2),
        ("scan without kidneys", "ece", 0, 0),
    ],
)
def test_calibration_by_hand(name, score, label, expected):
    one = Calibrated(score=score, label=label, near=False)
    assert one.expected(BY_NAME[name]) == pytest.approx(expected, abs=1e-12)


def test_calibration_pooled_by_hand():
    pooled = Calibrated(score="ece", label=2, near=False, pooled=True)
    assert pooled.expected(BY_NAME["two patients"]) == pytest.approx(4 / 320)


def test_calibration_near_by_hand():
    near, scan = (Calibrated(score="ece", label=1, near=one).expected(NEAR_AND_FAR) for one in (True, False))
    # a and b in one bin: 4 x 0.61 + 4 x 0.66 = 5.08, and 4 + 1 are kidney; c in the next: 4 x 0.68 = 2.72, and 3 are
    assert near == pytest.approx((0.08 + 0.28) / 60)
    assert scan == pytest.approx((0.08 + 0.28 + 10) / 192)
    # a: 4 x 0.39^2; b: 0.34^2 + 3 x 0.66^2; c: 3 x 0.32^2 + 0.68^2
    brier = Calibrated(score="brier", label=1, near=True).expected(NEAR_AND_FAR)
    assert brier == pytest.approx((0.6084 + 0.1156 + 1.3068 + 0.3072 + 0.4624) / 60)
    assert math.isnan(Calibrated(score="ece", label=1, near=True).expected(BY_NAME["scan without kidneys"]))


def test_undefined_is_not_a_number():
    assert ByHand(readings={"two patients": math.nan}).expected(BY_NAME["two patients"]) != 0
    assert ByHand(readings={}).expected(BY_NAME["two patients"]) is None


def test_conventions_are_tried_from_the_most_usual():
    tried = list(conventions("iou"))
    assert tried[0] == Convention(kind="iou", absent="skip")
    assert "background_label" not in {one.average for one in tried}
    assert list(conventions("accuracy", per_case=True)) == [Convention(kind="accuracy", per_case=True)]
    assert {one.average for one in conventions("dice", average="tumour_label")} == {"tumour_label"}
