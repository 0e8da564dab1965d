"""The summary of an evaluation: strata, confusion, the worst first, and its files."""

import csv
import json
import math

import numpy as np
import pytest

from kits_ml.data import contrast
from kits_ml.evaluation import aggregates, summary
from kits_ml.evaluation.measured import measure_case

SPACING_MM = (2.0, 1.0, 1.0)


def _label_map(*, tumour: bool = True) -> np.ndarray:
    label_map = np.zeros((4, 8, 8), np.uint8)
    label_map[1:3, 2:6, 2:6] = 1
    label_map[1, 2, 2] = 2 if tumour else 1
    return label_map


def _measure(name: str, *, hu: float | None = None, columns: int = 8, missing: bool = False):
    true = _label_map()
    pred = true.copy()
    pred[..., columns:] = 0
    image = None if hu is None else np.where(true == 1, hu, -1000).astype(np.int16)
    return measure_case(
        name, label_map_true=true, label_map_pred=None if missing else pred, spacing_mm=SPACING_MM, image=image
    )


def test_confusion_is_of_the_whole_scan():
    case = _measure("half", columns=4)
    # 4 x 8 x 8 voxels; 2 x 4 x 4 of kidney, one of them tumour; the right half of it is called background
    assert case.confusion == ((256 - 32, 0, 0), (16, 15, 0), (0, 0, 1))
    found = summary.summarise_confusion([case, _measure("all")])
    assert found["voxels"] == [[448, 0, 0], [16, 46, 0], [0, 0, 2]]
    assert found["row_shares"][1] == pytest.approx([16 / 62, 46 / 62, 0])
    assert found["labels"] == ["background", "kidney", "tumour"]


def test_what_is_missing_was_called_background():
    case = _measure("none", missing=True)
    assert case.confusion == ((224, 0, 0), (31, 0, 0), (1, 0, 0))
    assert case.missing_prediction
    assert case.regions["kidney"].dice == 0


def test_a_label_that_nobody_has_has_no_shares():
    true = _label_map(tumour=False)
    case = measure_case("healthy", label_map_true=true, label_map_pred=true, spacing_mm=SPACING_MM)
    assert all(math.isnan(share) for share in summary.summarise_confusion([case])["row_shares"][2])
    assert summary.summarise_confusion([]) is None


def test_contrast_is_that_of_the_kidney_without_its_tumour():
    label_map = _label_map()
    image = np.full(label_map.shape, -1000.0)
    image[label_map == 1] = 150
    image[label_map == 2] = 5000
    image[1, 3, 3] = 150 + 31
    assert contrast.mean_kidney_hu(image, label_map) == pytest.approx(151)  # 31 voxels of kidney
    assert math.isnan(contrast.mean_kidney_hu(image, np.zeros_like(label_map)))


@pytest.mark.parametrize(
    ("hu", "name"),
    [(30, "unenhanced"), (60, "unenhanced"), (60.1, "weak"), (120, "weak"), (180, "strong"), (math.nan, "unknown")],
)
def test_contrast_classes(hu, name):
    assert contrast.contrast_class(hu) == name


def test_strata():
    cases = [_measure("a", hu=30), _measure("b", hu=180, columns=4), _measure("c", hu=150)]
    strata = summary.summarise_evaluation(cases)["strata"]
    counts = [(name, one["num_cases"]) for name, one in strata["contrast"].items()]
    assert counts == [("unenhanced", 1), ("strong", 2)]  # from none to much
    # kidney Dice of b: 16 of 32 voxels: 2 x 16 / 48; of c: 1
    assert strata["contrast"]["strong"]["regions"]["kidney"]["dice"]["mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert set(strata["slice_spacing"]) == {"1_to_3_mm"}
    assert set(strata["tumour_size"]) == {"under_20_mm"}


def test_contrast_is_empty_where_there_are_no_images():
    assert summary.summarise_evaluation([_measure("a"), _measure("b")])["strata"]["contrast"] == {}


def test_the_worst_come_first():
    cases = [_measure("fine"), _measure("none", missing=True), _measure("half", columns=4), _measure("also fine")]
    found = summary.summarise_evaluation(cases)["worst_first"]
    assert [one["case"] for one in found] == ["none", "half", "also fine", "fine"]
    assert found[0]["composite_dice"] == 0


def test_the_files_are_plain(tmp_path):
    cases = [_measure("a", hu=30), _measure("b", columns=4)]
    found = summary.summarise_evaluation(cases)
    aggregates.write_summary(tmp_path / "summary.json", found)
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert read["format"] == summary.FORMAT_VERSION
    assert read["calibration"] is None
    assert read["num_cases"] == 2  # what was there before is there still
    summary.write_cases(tmp_path / "cases.csv", cases)
    with (tmp_path / "cases.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert tuple(first) == summary.CASES_COLUMNS
    assert (first["case"], first["kidney_hu"], first["contrast"]) == ("b", "", "unknown")
    assert first["kidney_as_background_voxels"] == "16"
    assert (second["case"], float(second["kidney_hu"]), second["ece_tumour_kidneys"]) == ("a", 30.0, "")
