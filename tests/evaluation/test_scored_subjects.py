"""Every number of a case has a subject, and each of them is caught when it is spoilt."""

import dataclasses
import math

import numpy as np
import pytest

from kits_ml import scores
from kits_ml.evaluation import aggregates, calibration, scored_subjects, selftest, subjects, summary
from kits_ml.evaluation.known_predictions import LESIONS_OF_EVERY_SIZE, NEAR_AND_FAR, SCENARIOS
from kits_ml.labels import LABEL_NAMES, REGIONS

SHIFTED = "shifted by a pixel"


def _misread(subject) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in selftest.misread(selftest.readings([subject])):
        found.setdefault(row.metric, set()).add(row.scenario)
    return found


# ---- nothing is forgotten


@pytest.fixture(scope="module")
def tested() -> set[str]:
    return {name for subject in subjects.metrics_in_use() for name in subject.conventions}


def test_every_metric_of_a_region_is_tested(tested):
    assert {f"case_{metric}_{region}" for metric in aggregates.METRICS for region in REGIONS} <= tested
    assert "case_composite_dice" in tested


def test_every_count_of_lesions_is_tested(tested):
    counts = aggregates.summarise([])["lesions"]
    by_size = counts.pop("by_size")
    assert set(by_size) == set(scores.LESION_SIZE_CLASSES)
    names = {f"{name}_{size}" for size, values in by_size.items() for name in values} | set(counts)
    assert {f"lesions_{name}" for name in names} == {name for name in tested if name.startswith("lesions_")}
    # and each is asked about each known prediction
    assert set(scored_subjects.LESIONS) >= {one.name for one in SCENARIOS if not one.out_of_range}


def test_every_measure_of_calibration_is_tested(tested):
    columns = [one for one in summary.CASES_COLUMNS if one.startswith(("ece_", "brier_"))]
    assert len(columns) == 2 * len(calibration.DOMAINS) * len(LABEL_NAMES)
    assert {f"case_{one}" for one in columns} <= tested
    assert {f"case_brier_{domain}" for domain in calibration.DOMAINS} <= tested
    assert {one.replace("ece_", "ece_pooled_") for one in columns if one.startswith("ece_")} <= tested


def test_none_passes_that_reads_a_constant():
    """Each is asked for a number that is neither 0 nor 1, or for two different counts."""
    for subject in subjects.metrics_in_use():
        for name, (convention,) in subject.conventions.items():
            expected = {convention.expected(one) for one in subject.scenarios if not one.out_of_range} - {None}
            defined = {round(value, 9) for value in expected if not math.isnan(value)}
            assert len(defined) > 1, name
            assert name.startswith("lesions_") or defined - {0.0, 1.0}, name


# ---- wrong metrics


def test_caught_a_score_that_gives_nothing_for_nothing(monkeypatch):
    monkeypatch.setattr(scores, "dice_from_counts", lambda t, p, b: 2 * b / (t + p) if t + p else 0.0)
    found = _misread(scored_subjects.case_subject())
    assert found["case_dice_tumour"] == {"patient without tumour", "scan without kidneys", "two patients"}
    assert "case_iou_tumour" not in found


def _spoil(monkeypatch, change) -> None:
    """Changes the scores of each region."""

    def score_case(*arguments, **options):
        return {name: change(one) for name, one in scores.score_case(*arguments, **options).items()}

    monkeypatch.setattr(scored_subjects, "score_case", score_case)


@pytest.mark.parametrize("name", ["volume_true_ml", "volume_pred_ml", "volume_error_ml"])
def test_caught_volumes_in_cubic_mm(monkeypatch, name):
    _spoil(monkeypatch, lambda one: dataclasses.replace(one, **{name: 1000 * getattr(one, name)}))
    found = _misread(scored_subjects.volume_subject())
    assert set(found) == {f"case_{name}_kidney", f"case_{name}_tumour"}


def test_caught_a_volume_error_of_the_wrong_sign(monkeypatch):
    _spoil(monkeypatch, lambda one: dataclasses.replace(one, volume_error_ml=-one.volume_error_ml))
    assert "all background, saturated" in _misread(scored_subjects.volume_subject())["case_volume_error_ml_kidney"]


def _with_spacing(monkeypatch, spacing_mm) -> None:
    monkeypatch.setattr(
        scored_subjects,
        "score_case",
        lambda *arguments, **options: scores.score_case(*arguments, **{**options, "spacing_mm": spacing_mm}),
    )


def test_caught_volumes_without_spacing(monkeypatch):
    _with_spacing(monkeypatch, (1.0, 1.0, 1.0))
    assert set(_misread(scored_subjects.volume_subject())) == set(scored_subjects.volume_subject().conventions)


def test_caught_surfaces_without_spacing(monkeypatch):
    _with_spacing(monkeypatch, (5.0, 1.0, 1.0))  # by hand the column was 2 mm
    found = _misread(scored_subjects.surface_subject())
    assert SHIFTED in found["case_hd95_mm_kidney"]
    assert SHIFTED in found["case_mean_surface_distance_mm_tumour"]


def test_caught_a_mean_distance_of_nothing(monkeypatch):
    monkeypatch.setattr(scores, "mean_distance_mm", lambda distances: 0.0)
    far = {"a box, 1.1 mm too far", "a box, and a pixel beside it"}
    assert _misread(scored_subjects.surface_subject()) == {
        "case_mean_surface_distance_mm_kidney": far,
        "case_mean_surface_distance_mm_tumour": {*far, SHIFTED},
    }


def test_caught_a_mean_distance_that_does_not_weigh_areas(monkeypatch):
    def unweighted(distances):
        return float(np.concatenate([distances.true_to_pred_mm, distances.pred_to_true_mm]).mean())

    monkeypatch.setattr(scores, "mean_distance_mm", unweighted)
    assert SHIFTED in _misread(scored_subjects.surface_subject())["case_mean_surface_distance_mm_tumour"]


def test_caught_a_distance_of_one_direction(monkeypatch):
    monkeypatch.setattr(scores, "hausdorff_mm", lambda distances: float(distances.true_to_pred_mm.max()))
    found = _misread(scored_subjects.surface_subject())
    assert found["case_hd95_mm_tumour"] == {"a box, and a pixel beside it"}


@pytest.mark.parametrize(
    ("tolerance_mm", "caught"),
    [
        ({"kidney": 1.1498198, "tumour": 1.0330773}, {"case_surface_dice_kidney", "case_surface_dice_tumour"}),
        ({"kidney": 0.0, "tumour": 0.0}, {"case_surface_dice_tumour"}),
        ({"kidney": 5.0, "tumour": 5.0}, {"case_surface_dice_kidney", "case_surface_dice_tumour"}),
    ],
)
def test_caught_a_wrong_tolerance(monkeypatch, tolerance_mm, caught):
    monkeypatch.setattr(scores, "SURFACE_TOLERANCE_MM", tolerance_mm)
    assert set(_misread(scored_subjects.surface_subject())) == caught


def test_caught_a_surface_dice_that_is_right_or_wrong(monkeypatch):
    monkeypatch.setattr(scores, "surface_dice", lambda distances, tolerance_mm: 1.0)
    assert SHIFTED in _misread(scored_subjects.surface_subject())["case_surface_dice_tumour"]


def test_caught_lesions_that_need_not_overlap(monkeypatch):
    monkeypatch.setattr(scores, "LESION_OVERLAP", 0.0)
    found = _misread(scored_subjects.lesion_subject())
    assert "all background, saturated" in found["lesions_num_found"] & found["lesions_num_missed"]
    assert "patient without tumour, some predicted" in found["lesions_num_false"]
    assert LESIONS_OF_EVERY_SIZE.name in found["lesions_num_found_40_to_70_mm"]


@pytest.mark.parametrize("overlap", [0.05, 0.11, 0.5])
def test_caught_lesions_that_need_another_overlap(monkeypatch, overlap):
    monkeypatch.setattr(scores, "LESION_OVERLAP", overlap)  # of 17 a 17th is met, of 90 a tenth
    assert LESIONS_OF_EVERY_SIZE.name in _misread(scored_subjects.lesion_subject())["lesions_num_found"]


def test_caught_lesions_that_must_touch_by_a_face(monkeypatch):
    label = scores.ndimage.label
    monkeypatch.setattr(scores.ndimage, "label", lambda mask, structure: label(mask))
    found = _misread(scored_subjects.lesion_subject())
    assert "lesions_num_true_20_to_40_mm" in found  # three voxels became one and two


@pytest.mark.parametrize(("change_mm", "caught"), [(-2.0, "under_20_mm"), (2.0, "20_to_40_mm")])
def test_caught_other_bounds_of_size(monkeypatch, change_mm, caught):
    # of 2, 16, 3, 17 and 90 voxels: 19.7 and 39.4 mm move up, or 40.2 and 70.06 mm move down
    bounds = {name: upper + change_mm for name, upper in scores.LESION_SIZE_CLASSES.items()}
    monkeypatch.setattr(scores, "LESION_SIZE_CLASSES", bounds)
    assert f"lesions_num_true_{caught}" in _misread(scored_subjects.lesion_subject())


@pytest.mark.parametrize("num_bins", [1, 10, 14, 16, 20])
def test_caught_wrong_bins(monkeypatch, num_bins):
    for module in (calibration, summary):
        monkeypatch.setattr(module, "NUM_BINS", num_bins)
    found = _misread(scored_subjects.calibration_subject())
    assert NEAR_AND_FAR.name in found["case_ece_kidney_kidneys"] & found["ece_pooled_kidney_scan"]
    assert not [name for name in found if "brier" in name]  # which has none


def test_caught_an_ece_that_evens_out(monkeypatch):
    """Not the size of a bin's gap but its sign: too much here makes up for too little there."""
    ece = calibration.Calibration.ece

    def signed(self):
        bins = (self.probabilities.sum(-1, keepdims=True), self.num_hits.sum(-1, keepdims=True))
        return ece(dataclasses.replace(self, probabilities=bins[0], num_hits=bins[1]))

    monkeypatch.setattr(calibration.Calibration, "ece", signed)
    assert SHIFTED in _misread(scored_subjects.calibration_subject())["case_ece_background_scan"]


def test_caught_a_brier_score_of_half(monkeypatch):
    brier = calibration.Calibration.brier
    monkeypatch.setattr(calibration.Calibration, "brier", lambda self: brier(self) / 2)
    found = _misread(scored_subjects.calibration_subject())
    assert {name for name in found if "brier" in name} == {
        name for name in scored_subjects.calibration_subject().conventions if "brier" in name
    }
    assert not [name for name in found if "ece" in name]


def test_caught_a_box_that_is_too_small(monkeypatch):
    monkeypatch.setattr(calibration, "MARGIN_MM", 10.0)
    found = _misread(scored_subjects.calibration_subject())
    assert NEAR_AND_FAR.name in found["case_ece_kidney_kidneys"]
    assert not [name for name in found if name.endswith("_scan")]
