"""Scores of a case: every expected number is worked out in a comment."""

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kits_ml import scores
from kits_ml.errors import InputError

SPACING_MM = (3.0, 0.5, 2.0)  # one voxel is 3 mm^3, that is 0.003 ml

_label_maps = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def _volume(*voxels: tuple[int, int, int, int], shape=(4, 5, 6)) -> np.ndarray:
    """A label map with (slice, row, column, label) set."""
    label_map = np.zeros(shape, np.uint8)
    for *where, label in voxels:
        label_map[tuple(where)] = label
    return label_map


def _same(first: scores.RegionScores, second: scores.RegionScores) -> bool:
    return repr(first) == repr(second)  # NaN is NaN here


def test_confusion_matrix_has_a_row_for_each_true_label():
    true = np.array([0, 0, 0, 1, 1, 2])
    pred = np.array([0, 1, 2, 1, 2, 2])
    # true 0: predicted 0, 1, 2 once each; true 1: predicted 1 and 2; true 2: predicted 2
    assert scores.confusion_matrix(true, pred).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_confusion_matrix_of_a_whole_is_the_sum_of_its_parts(monkeypatch):
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 3, (2, 7, 6, 5), dtype=np.uint8)
    whole = scores.confusion_matrix(true, pred)
    assert whole.sum() == 7 * 6 * 5
    assert np.array_equal(
        whole, scores.confusion_matrix(true[:2], pred[:2]) + scores.confusion_matrix(true[2:], pred[2:])
    )
    monkeypatch.setattr(scores, "_CHUNK_VOXELS", 40)  # slabs of one slice
    assert np.array_equal(whole, scores.confusion_matrix(true, np.asfortranarray(pred)))
    assert np.array_equal(whole, scores.confusion_matrix(np.asfortranarray(true), pred))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4)])
def test_confusion_matrix_of_odd_shapes(shape):
    array = np.zeros(shape, np.uint8)
    assert scores.confusion_matrix(array, array)[0, 0] == array.size


def test_labels_out_of_range_do_not_vanish():
    true = np.array([0, 1, 2])
    with pytest.raises(InputError, match="predicted label map: found label 127, expected 0 to 2"):
        scores.confusion_matrix(true, np.array([0, 127, 2]))
    with pytest.raises(InputError, match="true label map: found label -1"):
        scores.confusion_matrix(np.array([0, -1, 2]), true)


def test_probabilities_are_refused():
    with pytest.raises(InputError, match="found dtype float64, expected integers"):
        scores.confusion_matrix(np.zeros(3, int), np.zeros(3))


def test_kidney_contains_its_tumour():
    matrix = np.array([[90, 1, 2], [3, 10, 4], [5, 6, 20]])
    # kidney: true 3 + 10 + 4 + 5 + 6 + 20 = 48; predicted 1 + 2 + 10 + 4 + 6 + 20 = 43; both 10 + 4 + 6 + 20 = 40
    assert scores.region_counts(matrix, "kidney") == (48, 43, 40)
    # tumour: true 5 + 6 + 20 = 31; predicted 2 + 4 + 20 = 26; both 20
    assert scores.region_counts(matrix, "tumour") == (31, 26, 20)


def test_class_ious_of_nothing_predicted():
    # 97 background, 2 kidney, 1 tumour, all predicted background: 97 / 100, 0 / 2, 0 / 1
    matrix = np.array([[97, 0, 0], [2, 0, 0], [1, 0, 0]])
    assert scores.class_ious(matrix).tolist() == [0.97, 0.0, 0.0]


@pytest.mark.parametrize(
    ("counts", "dice", "iou", "precision", "recall"),
    [
        # true, predicted, both       2*2/(4+3)  2/(4+3-2)  2/3  2/4
        ((4, 3, 2), 4 / 7, 2 / 5, 2 / 3, 2 / 4),
        ((4, 4, 4), 1, 1, 1, 1),
        ((4, 3, 0), 0, 0, 0, 0),
        ((0, 0, 0), 1, 1, 1, 1),  # both empty
        ((4, 0, 0), 0, 0, 0, 0),  # nothing predicted
        ((0, 3, 0), 0, 0, 0, 0),  # nothing there
    ],
)
def test_overlap_from_counts(counts, dice, iou, precision, recall):
    assert scores.dice_from_counts(*counts) == dice
    assert scores.iou_from_counts(*counts) == iou
    assert scores.precision_from_counts(*counts) == precision
    assert scores.recall_from_counts(*counts) == recall


def test_score_case_by_hand():
    true = _volume((1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 3, 2))
    pred = _volume((1, 1, 2, 1), (1, 1, 3, 1), (1, 1, 4, 2), (1, 1, 5, 2))
    found = scores.score_case(true, pred, spacing_mm=SPACING_MM)
    kidney, tumour = found["kidney"], found["tumour"]
    # kidney: columns 1-3 against 2-5: true 3, predicted 4, both 2
    assert (kidney.dice, kidney.iou) == (4 / 7, 2 / 5)
    assert (kidney.precision, kidney.recall) == (2 / 4, 2 / 3)
    # 3 voxels of 0.003 ml against 4
    assert kidney.volume_true_ml == pytest.approx(0.009)
    assert kidney.volume_pred_ml == pytest.approx(0.012)
    assert kidney.volume_error_ml == pytest.approx(0.003)
    assert kidney.lesions_true is None
    # tumour: column 3 against 4-5: one missed, and one false
    assert (tumour.dice, tumour.volume_error_ml) == (0, pytest.approx(0.003))
    assert (tumour.lesions_true, tumour.lesions_found, tumour.lesions_false) == (1, 0, 1)
    assert scores.composite_dice(found) == (4 / 7 + 0) / 2


def test_both_empty_is_perfect_and_distances_have_no_value():
    empty = _volume()
    for found in scores.score_case(empty, empty, spacing_mm=SPACING_MM).values():
        assert (found.dice, found.iou, found.precision, found.recall, found.surface_dice) == (1, 1, 1, 1, 1)
        assert math.isnan(found.hd95_mm)
        assert math.isnan(found.mean_surface_distance_mm)
        assert found.volume_error_ml == 0


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_is_zero(swap):
    pair = [_volume((1, 1, 1, 2)), _volume()]
    for found in scores.score_case(*(pair[::-1] if swap else pair), spacing_mm=SPACING_MM).values():
        assert (found.dice, found.iou, found.precision, found.recall, found.surface_dice) == (0, 0, 0, 0, 0)
        assert math.isnan(found.hd95_mm)


def test_missing_prediction_is_worst_even_where_an_empty_one_would_be_right():
    true = _volume((1, 1, 1, 1))
    empty = scores.score_case(true, _volume(), spacing_mm=SPACING_MM)
    missing = scores.score_missing(true, spacing_mm=SPACING_MM)
    assert empty["tumour"].dice == 1
    assert scores.composite_dice(missing) == 0
    for found in missing.values():
        assert (found.dice, found.iou, found.precision, found.recall, found.surface_dice) == (0, 0, 0, 0, 0)
        assert math.isnan(found.hd95_mm)
    assert missing["kidney"].volume_error_ml == pytest.approx(-0.003)
    assert math.isnan(scores.score_missing(true, spacing_mm=SPACING_MM, surfaces=False)["kidney"].surface_dice)


def test_without_surfaces_their_scores_have_no_value():
    true = _volume((1, 1, 1, 1))
    found = scores.score_case(true, true, spacing_mm=SPACING_MM, surfaces=False)["kidney"]
    assert found.dice == 1
    assert math.isnan(found.surface_dice)


def test_wrong_input_is_named():
    true = _volume()
    with pytest.raises(InputError, match=r"shape \(4, 5, 7\), expected the reference's \(4, 5, 6\)"):
        scores.score_case(true, _volume(shape=(4, 5, 7)), spacing_mm=SPACING_MM)
    with pytest.raises(InputError, match="expected three axes"):
        scores.score_case(true[0], true[0], spacing_mm=SPACING_MM)
    with pytest.raises(InputError, match="a positive spacing"):
        scores.score_case(true, true, spacing_mm=(3, 0, 1))
    with pytest.raises(InputError, match="found label 3"):
        scores.score_case(true, _volume((0, 0, 0, 3)), spacing_mm=SPACING_MM)


def _counted(true: np.ndarray, pred: np.ndarray) -> tuple[int, int, int]:
    found = scores.count_lesions(true, pred, spacing_mm=(1, 1, 1))
    return sum(found["true"]), sum(found["found"]), sum(found["false"])


def test_lesions_that_touch_at_a_corner_are_one():
    mask = _volume((0, 0, 0, 1), (1, 1, 1, 1), (3, 3, 3, 1)).astype(bool)
    assert _counted(mask, np.zeros_like(mask)) == (2, 0, 0)


def test_a_tenth_of_a_lesion_finds_it():
    lesion = np.zeros((5, 5, 30), bool)
    lesion[2, 2, 5:25] = True  # 20 voxels
    part = np.zeros_like(lesion)
    part[2, 2, 5:7] = True  # 2 of 20
    assert _counted(lesion, part) == (1, 1, 0)
    part[2, 2, 6] = False  # 1 of 20, and all of it lies on the lesion
    assert _counted(lesion, part) == (1, 0, 0)


def test_tumour_everywhere_finds_all_and_is_false():
    lesion = np.zeros((5, 5, 30), bool)
    lesion[2, 2, 5:25] = True  # 20 of 750 voxels
    assert _counted(lesion, np.ones_like(lesion)) == (1, 1, 1)


def test_lesions_count_in_the_class_of_their_own_size():
    # Voxels of 10 x 10 x 10 mm. A sphere of 1000 mm^3 has cbrt(6 / pi * 1000) = 12.4 mm: under 20.
    # 8 voxels: 2 * 12.4 = 24.8 mm: 20 to 40. 64: 49.6 mm: 40 to 70. 216: 74.4 mm: over 70.
    true = np.zeros((6, 6, 30), bool)
    pred = np.zeros_like(true)
    true[0, 0, 0] = true[:2, :2, 3:5] = true[:4, :4, 8:12] = True
    pred[:2, :2, 3:5] = pred[:6, :6, 20:26] = True
    counts = scores.count_lesions(true, pred, spacing_mm=(10, 10, 10))
    assert counts == {"true": (1, 1, 1, 0), "found": (0, 1, 0, 0), "false": (0, 0, 0, 1)}


@settings(deadline=None)  # a busy machine is no fault
@given(_label_maps)
def test_a_case_against_itself_is_perfect(label_map):
    for found in scores.score_case(label_map, label_map, spacing_mm=SPACING_MM).values():
        assert (found.dice, found.iou, found.precision, found.recall) == (1, 1, 1, 1)
        assert found.surface_dice == 1
        assert found.volume_error_ml == 0
        assert math.isnan(found.hd95_mm) or found.hd95_mm == 0
        assert found.lesions_found == found.lesions_true
        assert not found.lesions_false


@settings(deadline=None)
@given(_label_maps, _label_maps)
def test_swapping_truth_and_prediction(first, second):
    forward = scores.score_case(first, second, spacing_mm=SPACING_MM)
    backward = scores.score_case(second, first, spacing_mm=SPACING_MM)
    for region, found in forward.items():
        other = backward[region]
        assert (found.dice, found.iou) == (other.dice, other.iou)
        assert (found.precision, found.recall) == (other.recall, other.precision)
        assert found.volume_error_ml == -other.volume_error_ml
        assert found.surface_dice == pytest.approx(other.surface_dice)
        assert found.hd95_mm == pytest.approx(other.hd95_mm, nan_ok=True)
        assert found.mean_surface_distance_mm == pytest.approx(other.mean_surface_distance_mm, nan_ok=True)
        assert 0 <= found.iou <= found.dice <= 1
        assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    missed = forward["tumour"].lesions_true - forward["tumour"].lesions_found
    assert missed == backward["tumour"].lesions_false


@settings(max_examples=40, deadline=None)
@given(_label_maps, _label_maps, st.permutations(range(3)))
def test_order_of_axes_does_not_matter_as_long_as_spacing_follows(true, pred, axes):
    plain = scores.score_case(true, pred, spacing_mm=SPACING_MM)
    turned = scores.score_case(
        true.transpose(axes), pred.transpose(axes), spacing_mm=tuple(SPACING_MM[axis] for axis in axes)
    )
    for region, found in plain.items():
        other = turned[region]
        for name in ("dice", "iou", "precision", "recall", "volume_error_ml"):
            assert getattr(other, name) == pytest.approx(getattr(found, name))
        assert (other.lesions_found_by_size, other.lesions_false_by_size) == (
            found.lesions_found_by_size,
            found.lesions_false_by_size,
        )
        # hd95 is left out: where exactly 95 % of the area lies below a step, rounding decides the side
        assert other.surface_dice == pytest.approx(found.surface_dice)
        assert other.mean_surface_distance_mm == pytest.approx(found.mean_surface_distance_mm, nan_ok=True)


def test_where_the_case_lies_in_the_scan_does_not_matter():
    rng = np.random.default_rng(3)
    true, pred = rng.integers(0, 3, (2, 4, 5, 6), dtype=np.uint8)
    around = ((7, 3), (2, 9), (5, 1))
    plain = scores.score_case(true, pred, spacing_mm=SPACING_MM)
    padded = scores.score_case(np.pad(true, around), np.pad(pred, around), spacing_mm=SPACING_MM)
    assert all(_same(padded[region], plain[region]) for region in plain)


def test_one_slice_is_a_case_too():
    true = _volume((0, 1, 1, 1), (0, 1, 2, 1), shape=(1, 4, 4))
    found = scores.score_case(true, np.roll(true, 1, axis=2), spacing_mm=SPACING_MM)["kidney"]
    assert found.dice == 0.5  # two voxels each, one in both
    assert found.hd95_mm == 2.0  # one column of 2 mm


def test_memory_is_bounded_for_the_longest_case():
    # 1,059 slices as the longest KiTS19 case, in the order of a NIfTI file. Two kidneys of 300 slices each.
    true = np.zeros((1059, 256, 256), np.uint8, order="F")
    pred = np.zeros_like(true)
    for columns in (slice(40, 90), slice(150, 200)):
        true[400:700, 90:150, columns] = pred[402:702, 91:151, columns] = 1
    true[500:530, 100:120, 60:80] = pred[500:530, 102:122, 60:80] = 2
    tracemalloc.start()
    found = scores.score_case(true, pred, spacing_mm=(0.5, 0.7, 0.7))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["kidney"].dice > 0.95
    assert peak < 3 * true.nbytes  # 3 x 69 MB; a float64 distance map of the whole volume alone would be 8 x


@pytest.mark.slow
def test_a_case_of_129_slices_takes_seconds():
    """0.8 s of CPU time where it was measured (`experiments/benchmarks/scores.md`)."""
    slices, rows, columns = np.ogrid[:129, :512, :512]
    true = np.zeros((129, 512, 512), np.uint8)
    for centre in (170, 340):
        true[((slices - 60) / 35) ** 2 + ((rows - 300) / 55) ** 2 + ((columns - centre) / 50) ** 2 < 1] = 1
    true[((slices - 60) / 10) ** 2 + ((rows - 330) / 27) ** 2 + ((columns - 170) / 27) ** 2 < 1] = 2
    pred = np.roll(true, (1, 3, 3), axis=(0, 1, 2))
    started = time.process_time()
    found = scores.score_case(true, pred, spacing_mm=(1.6, 0.57, 0.57))
    scores.confusion_of_volumes(true, pred)
    elapsed = time.process_time() - started
    assert 0.8 < found["tumour"].dice < found["kidney"].dice < 1
    assert elapsed < 20
