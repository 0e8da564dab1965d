"""Summaries: means over cases, with what was left out said beside them."""

import json
import math

import numpy as np
import pytest

from kits_ml.errors import InputError
from kits_ml.evaluation import aggregates
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import score_case, score_missing

SPACING_MM = (1.0, 10.0, 10.0)


def _case(name: str, *, tumour_true: bool, tumour_pred: bool, slice_spacing_mm: float = 1.0) -> CaseScores:
    true = np.zeros((4, 6, 6), np.uint8)
    true[1:3, 1:4, 1:4] = 1
    pred = true.copy()
    true[1, 1, 1] = 2 if tumour_true else 1
    pred[1, 1, 1] = 2 if tumour_pred else 1
    return CaseScores(
        case=name, regions=score_case(true, pred, spacing_mm=SPACING_MM), slice_spacing_mm=slice_spacing_mm
    )


def _missing(name: str) -> CaseScores:
    true = np.zeros((4, 6, 6), np.uint8)
    true[1:3, 1:4, 1:4] = 1
    return CaseScores(case=name, regions=score_missing(true, spacing_mm=SPACING_MM), missing_prediction=True)


CASES = [
    _case("hit", tumour_true=True, tumour_pred=True),
    _case("missed", tumour_true=True, tumour_pred=False, slice_spacing_mm=5.0),
    _case("healthy", tumour_true=False, tumour_pred=False, slice_spacing_mm=2.0),
    _case("false alarm", tumour_true=False, tumour_pred=True),
]


def test_undefined_values_are_left_out_and_counted():
    found = aggregates.summarise_values([1.0, math.nan, 2.0, 6.0])
    # (1 + 2 + 6) / 3 = 3; the middle one is 2
    assert (found["mean"], found["median"]) == (3.0, 2.0)
    assert (found["num_cases"], found["num_undefined"]) == (4, 1)
    assert 1 <= found["ci_low"] < 3 < found["ci_high"] <= 6


def test_nothing_to_average():
    for values in ([], [math.nan]):
        found = aggregates.summarise_values(values)
        assert all(math.isnan(found[name]) for name in ("mean", "median", "ci_low", "ci_high"))
        assert found["num_undefined"] == len(values)


def test_one_case_has_no_interval():
    found = aggregates.summarise_values([0.8])
    assert found["mean"] == 0.8
    assert math.isnan(found["ci_low"])


def test_interval_is_that_of_the_normal_law_for_many_cases():
    values = np.random.default_rng(0).normal(0.7, 0.2, 400)
    low, high = aggregates.bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_same_seed_same_interval():
    values = np.array([0.1, 0.5, 0.9, 0.4])
    assert aggregates.bootstrap_interval(values, seed=1) == aggregates.bootstrap_interval(values, seed=1)
    wide, narrow = (aggregates.bootstrap_interval(values, confidence=part) for part in (0.95, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_healthy_cases_do_not_flatter_the_tumour():
    tumour = aggregates.summarise(CASES)["regions"]["tumour"]
    # Dice: hit 1, missed 0, healthy 1 (KiTS: both empty), false alarm 0. All: 2 / 4; with a tumour: 1 / 2.
    assert (tumour["num_cases"], tumour["num_with_region"]) == (4, 2)
    assert tumour["dice"]["mean"] == 0.5
    assert tumour["dice"]["with_region"]["mean"] == 0.5
    three = aggregates.summarise(CASES[:3])["regions"]["tumour"]
    # without the false alarm: 2 / 3 of all, still 1 / 2 of those with a tumour
    assert three["dice"]["mean"] == pytest.approx(2 / 3)
    assert three["dice"]["with_region"]["mean"] == 0.5
    # distances exist for the hit alone
    assert (three["hd95_mm"]["mean"], three["hd95_mm"]["num_undefined"]) == (0.0, 2)
    assert three["hd95_mm"]["with_region"]["num_undefined"] == 1


def test_composite_is_the_mean_of_kidney_and_tumour_dice():
    # kidney 1 everywhere; tumour 1, 0, 1, 0: (1 + 0.5 + 1 + 0.5) / 4
    assert aggregates.summarise(CASES)["composite_dice"]["mean"] == 0.75


def test_missing_and_failed_cases_are_named():
    summary = aggregates.summarise([*CASES, _missing("absent")], failures={"broken": "broken.nii.gz: truncated"})
    assert summary["missing_predictions"] == ["absent"]
    assert summary["failed_cases"] == {"broken": "broken.nii.gz: truncated"}
    assert summary["composite_dice"]["mean"] == pytest.approx(0.75 * 4 / 5)  # the fifth counts, with 0


def test_lesions_are_counted_over_cases():
    lesions = aggregates.summarise(CASES)["lesions"]
    assert (lesions["num_true"], lesions["num_found"], lesions["num_missed"], lesions["num_false"]) == (2, 1, 1, 1)
    assert (lesions["found_rate"], lesions["false_per_case"]) == (0.5, 0.25)
    # one voxel of 100 mm^3: a sphere of cbrt(6 / pi * 100) = 5.8 mm
    assert lesions["by_size"]["under_20_mm"]["num_true"] == 2
    assert math.isnan(lesions["by_size"]["over_70_mm"]["found_rate"])


def test_strata():
    by_spacing = aggregates.summarise_strata(CASES, aggregates.slice_spacing_class)
    assert {name: stratum["num_cases"] for name, stratum in by_spacing.items()} == {
        "up_to_1_mm": 2,
        "1_to_3_mm": 1,
        "over_3_mm": 1,
    }
    by_size = aggregates.summarise_strata(CASES, aggregates.tumour_size_class)
    assert {name: stratum["num_cases"] for name, stratum in by_size.items()} == {"no_tumour": 2, "under_20_mm": 2}
    assert aggregates.slice_spacing_class(_missing("unknown spacing")) == "unknown"


@pytest.mark.parametrize(
    ("slice_spacing_mm", "name"),
    [
        (1.0000001, "up_to_1_mm"),
        (1.01, "1_to_3_mm"),
        (3.0000001, "1_to_3_mm"),  # an oblique scan of 3 mm
        (3.01, "over_3_mm"),
    ],
)
def test_rounding_moves_no_case_to_another_class(slice_spacing_mm, name):
    case = _case("oblique", tumour_true=True, tumour_pred=True, slice_spacing_mm=slice_spacing_mm)
    assert aggregates.slice_spacing_class(case) == name


def test_a_case_counts_once():
    with pytest.raises(InputError, match="found hit more than once"):
        aggregates.summarise([*CASES, CASES[0]])


def test_summary_is_plain_json(tmp_path):
    summary = aggregates.summarise(CASES[:1])
    aggregates.write_summary(tmp_path / "summary.json", summary)
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert read["composite_dice"]["mean"] == 1.0
    assert read["composite_dice"]["ci_low"] is None  # of one case nothing can be said


def test_no_cases():
    assert aggregates.summarise([])["num_cases"] == 0
