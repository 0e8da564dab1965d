"""Calibration: counted by hand on a few pixels, streamed, and with the patient as the unit."""

import numpy as np
import pytest

from kits_ml.data import frames, preprocessing
from kits_ml.evaluation.calibration import NUM_BINS, CalibrationCounter, pooled, reference_box
from kits_ml.evaluation.summary import reliability_curve, summarise_calibration
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import score_case
from tests.conftest import body

KIDNEYS, SCAN = 0, 1
EVERYWHERE = (slice(0, 2), slice(0, 2))
SPACING_MM = (5.0, 1.0, 1.0)


def _slice(*kidney: float) -> np.ndarray:
    """Probabilities of a slice of 2x2 pixels: `kidney` of the four, the rest background."""
    probabilities = np.zeros((3, 2, 2), np.float32)
    probabilities[1] = np.reshape(kidney, (2, 2))
    probabilities[0] = 1 - probabilities[1]
    return probabilities


def _count(label_map, *slices, inside=EVERYWHERE):
    counter = CalibrationCounter(np.array(label_map, np.uint8), spacing_mm=SPACING_MM)
    for index, probabilities in enumerate(slices):
        counter(index, inside, probabilities)
    return counter.result()


def test_by_hand():
    found = _count([[[1, 1], [0, 0]]], _slice(0.9, 0.9, 0.9, 0.1))
    # kidney: three pixels at 0.9, of which two are kidney: |2.7 - 2|; one at 0.1 that is none: |0.1 - 0|
    assert found.ece()[SCAN, 1] == pytest.approx((0.7 + 0.1) / 4)
    # 2 x 0.1^2 + 0.9^2 + 0.1^2 over four
    assert found.brier()[SCAN, 1] == pytest.approx((2 * 0.01 + 0.81 + 0.01) / 4)
    # background is the other side of it, tumour was never thought of and never there
    assert found.brier()[SCAN].tolist() == pytest.approx([0.21, 0.21, 0.0])
    assert found.ece()[SCAN].tolist() == pytest.approx([0.2, 0.2, 0.0])
    assert found.num_voxels[SCAN, 1].sum() == 4
    assert found.num_voxels[SCAN, 1, int(0.9 * NUM_BINS)] == 3


@pytest.mark.parametrize(("kidney", "ece", "brier"), [(1.0, 0.0, 0.0), (0.5, 0.5, 0.25), (0.0, 1.0, 1.0)])
def test_all_kidney(kidney, ece, brier):
    found = _count(np.ones((1, 2, 2)), _slice(*[kidney] * 4))
    assert found.ece()[KIDNEYS, 1] == ece
    assert found.brier()[KIDNEYS, 1] == brier


def test_a_coin_that_is_right_half_the_time_is_calibrated():
    found = _count([[[1, 0], [0, 1]]], _slice(0.5, 0.5, 0.5, 0.5))
    assert found.ece()[SCAN, 1] == 0.0
    assert found.brier()[SCAN, 1] == 0.25


def test_beyond_the_window_all_is_certain_background():
    label_map = [[[1, 0, 1, 0], [0, 0, 0, 0]]]
    found = _count(label_map, _slice(1.0, 0.0, 0.0, 0.0))  # the window is the left half
    # right half: one kidney with probability 0, three background with probability 1
    assert found.brier()[SCAN].tolist() == pytest.approx([1 / 8, 1 / 8, 0])
    assert found.ece()[SCAN].tolist() == pytest.approx([1 / 8, 1 / 8, 0])
    assert found.num_voxels[SCAN].sum(axis=-1).tolist() == [8, 8, 8]


def test_the_box_lies_20_mm_around_the_reference():
    label_map = np.zeros((20, 60, 60), np.uint8)
    label_map[10, 30:32, 1] = 2
    # 20 mm are 4 slices of 5 mm and 20 rows or columns of 1 mm; it ends with the scan
    assert reference_box(label_map, spacing_mm=SPACING_MM) == (slice(6, 15), slice(10, 52), slice(0, 22))
    assert reference_box(np.zeros((2, 3, 4), np.uint8), spacing_mm=SPACING_MM) is None


def test_without_kidneys_there_is_no_box():
    found = _count(np.zeros((1, 2, 2)), _slice(0.25, 0.25, 0.25, 0.25))
    assert np.isnan(found.ece()[KIDNEYS]).all()
    assert found.ece()[SCAN, 1] == 0.25


def test_the_boxs_part_is_cut_from_the_window():
    """Probabilities that say where they are, a window off the corner, a box that reaches beyond the window."""
    label_map = np.zeros((1, 100, 100), np.uint8)
    label_map[0, 50, 20] = 1  # box: rows 30 to 70, columns 0 to 40
    rows, columns = slice(40, 90), slice(10, 80)
    probabilities = np.zeros((3, 50, 70), np.float32)
    probabilities[1, 0, 0] = probabilities[1, 30, 30] = 1  # rows and columns 40, 10 and 70, 40 of the scan
    probabilities[1, 31, 30] = probabilities[1, 30, 31] = 1  # just beyond the box
    probabilities[0] = 1 - probabilities[1]
    found = _count(label_map, probabilities, inside=(rows, columns))
    assert found.num_voxels[:, 1].sum(axis=-1).tolist() == [41 * 41, 100 * 100]
    assert found.num_voxels[:, 1, -1].tolist() == [2, 4]
    assert found.squared_errors[:, 1].tolist() == [3, 5]  # and the kidney that was not seen


def test_a_volume_streamed_is_the_volume_at_once():
    image, label_map = body(num_slices=5, size=40)
    settings = preprocessing.PreprocessingSettings(image_size=16)
    frame = frames.find_frame(image, settings)
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 16, 16)).astype(np.float32)
    counter = CalibrationCounter(label_map, spacing_mm=(3.0, 0.8, 0.8))
    whole = np.zeros((3, *label_map.shape), np.float32)
    whole[0] = 1
    for index, restored in enumerate(preprocessing.restore_probabilities(probabilities, frame)):
        counter(index, frame.inside, restored)
        whole[:, index, *frame.inside] = restored
    np.testing.assert_array_equal(whole.argmax(axis=0), preprocessing.restore_labels(probabilities, frame))
    hits = label_map == np.arange(3)[:, None, None, None]
    np.testing.assert_allclose(counter.result().brier()[SCAN], ((whole - hits) ** 2).mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(
        counter.result().probabilities[SCAN].sum(axis=-1), whole.sum(axis=(1, 2, 3)), rtol=1e-5
    )


def _case(name: str, kidney: float, *, size: int = 1) -> CaseScores:
    """All kidney, called kidney with one probability."""
    label_map = np.ones((size, 2, 2), np.uint8)
    return CaseScores(
        case=name,
        regions=score_case(label_map, label_map, spacing_mm=SPACING_MM),
        calibration=_count(label_map, *[_slice(*[kidney] * 4)] * size),
    )


def test_a_patient_is_the_unit():
    found = summarise_calibration([_case("large", 0.5, size=9), _case("small", 1.0)])
    kidney = found["kidneys"]["kidney"]
    assert kidney["ece"]["mean"] == 0.25  # (0.5 + 0) / 2, though nine voxels of ten are off by 0.5
    assert kidney["ece_pooled"] == pytest.approx(0.9 * 0.5)
    assert (kidney["ece"]["ci_low"], kidney["ece"]["ci_high"]) == (0.0, 0.5)
    assert found["kidneys"]["brier"]["mean"] == 0.25  # kidney and background 0.25 each in one case of two
    assert found["num_cases"] == 2


def test_the_curve_has_the_bins_that_are_there():
    curve = reliability_curve([_case("a", 0.5).calibration, _case("b", 1.0).calibration], domain="kidneys", label=1)
    assert [(one["num_voxels"], one["num_cases"]) for one in curve] == [(4, 1), (4, 1)]
    assert [one["mean_probability"] for one in curve] == [0.5, 1.0]
    assert [one["frequency"] for one in curve] == [1.0, 1.0]
    assert curve[0]["low"] <= 0.5 < curve[0]["high"]
    assert curve[1]["high"] == 1.0
    (alone,) = reliability_curve([_case("a", 0.5).calibration], domain="kidneys", label=1)
    assert np.isnan(alone["ci_low"])  # of one patient nothing can be said


def test_the_interval_draws_patients_not_voxels():
    wrong = _count(np.zeros((9, 2, 2)), *[_slice(0.9, 0.9, 0.9, 0.9)] * 9)
    right = _count(np.ones((9, 2, 2)), *[_slice(0.9, 0.9, 0.9, 0.9)] * 9)
    (found,) = reliability_curve([wrong, right], domain="scan", label=1)
    assert found["frequency"] == 0.5
    assert (found["ci_low"], found["ci_high"]) == (0.0, 1.0)  # 72 voxels, but two patients


def test_sums_add_up():
    first, second = _case("a", 0.5).calibration, _case("b", 1.0).calibration
    both = pooled([first, second])
    np.testing.assert_array_equal(both.num_voxels, first.num_voxels + second.num_voxels)


def test_nothing_to_calibrate():
    assert summarise_calibration([CaseScores(case="a", regions={})]) is None
