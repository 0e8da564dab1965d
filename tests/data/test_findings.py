import dataclasses

import numpy as np
import pytest

from kits_ml.data import volumes
from kits_ml.data.findings import judge
from kits_ml.data.fingerprint import fingerprint


@pytest.fixture(scope="module")
def usual():
    """A plain case with nothing to remark: 512x512, 50 slices 5 mm apart, kidneys of 300 ml."""
    image = np.zeros((4, 512, 512), np.int16)
    image[:, 0] = -1000
    label_map = np.zeros(image.shape, np.uint8)
    label_map[1:3, 100:150, 100:150] = 1
    label_map[2, 100:110, 100:110] = 2
    image[label_map > 0] = 150
    geometry = volumes.kits_geometry(image.shape, (5.0, 0.8, 0.8))
    one = fingerprint(
        "a",
        volumes.Volume(array=image, geometry=geometry, path="made up"),
        volumes.Volume(array=label_map, geometry=geometry, path="made up"),
    )
    return dataclasses.replace(one, slices=50, kidney_ml=300.0, tumour_ml=20.0)


def _rules(one) -> dict[str, str]:
    return {finding.rule: finding.level for finding in judge([one])}


def test_a_usual_case_has_no_findings(usual):
    assert judge([usual]) == []


@pytest.mark.parametrize(
    ("change", "rule", "level"),
    [
        ({"row_spacing_mm": 2.0, "column_spacing_mm": 2.0}, "pixel_size", "warning"),
        ({"row_spacing_mm": 0.9}, "pixel_not_square", "warning"),
        ({"slice_spacing_mm": 10.0}, "slice_spacing", "warning"),
        ({"shear_degrees": 10.0}, "sheared", "warning"),
        ({"tilt_degrees": 10.0}, "tilted", "warning"),
        ({"header_spacing_error_mm": 0.2}, "header_spacing", "warning"),
        ({"columns": 796}, "matrix", "note"),
        ({"orientation": "RAS"}, "orientation", "note"),
        ({"slices": 2}, "short_scan", "warning"),
        ({"whole_hu": False}, "fractional_hu", "note"),
        ({"labels_dtype": "uint16"}, "labels_dtype", "note"),
        ({"has_labels": False, "kidney_hu": None}, "no_label_map", "note"),
        ({"kidney_slices": 0, "kidney_hu": None}, "no_kidney", "warning"),
        ({"tumour_slices": 0}, "no_tumour", "note"),
        ({"kidney_at_end": True}, "kidney_at_end", "warning"),
        ({"kidney_ml": 20.0}, "kidney_volume", "warning"),
        ({"tumour_ml": 0.05}, "tumour_volume", "warning"),
        ({"note": "something odd"}, "reader", "note"),
        ({"case": "case_00160"}, "known_in_kits", "note"),
    ],
)
def test_each_rule(usual, change, rule, level):
    assert _rules(dataclasses.replace(usual, **change)) == {rule: level}


@pytest.mark.parametrize(
    ("change", "rule", "level"),
    [
        ({"max": 18558.0}, "hu_high", "warning"),
        ({"min": -10240.0}, "hu_padding", "note"),
        ({"min": -79.0}, "no_air", "warning"),
        ({"min": 0.0, "max": 0.0}, "constant", "error"),
    ],
)
def test_each_rule_on_hu(usual, change, rule, level):
    assert _rules(dataclasses.replace(usual, hu=dataclasses.replace(usual.hu, **change))) == {rule: level}


@pytest.mark.parametrize("mean", [-400.0, 1100.0])
def test_a_kidney_that_is_no_kidney(usual, mean):
    changed = dataclasses.replace(usual, kidney_hu=dataclasses.replace(usual.kidney_hu, mean=mean))
    assert _rules(changed) == {"kidney_hu": "error"}


def test_volumes_of_a_part_are_not_judged(usual):
    part = dataclasses.replace(usual, slices=1, kidney_ml=0.5, tumour_ml=0.01, kidney_at_end=True)
    assert _rules(part) == {"short_scan": "warning"}


def test_duplicates_name_each_other(usual):
    copy, other = dataclasses.replace(usual, case="b"), dataclasses.replace(usual, case="c", voxels_digest="0")
    found = judge([usual, copy, other])
    assert [(one.case, one.level, one.message) for one in found] == [
        ("a", "error", "the same voxels as b"),
        ("b", "error", "the same voxels as a"),
    ]


def test_other_peoples_cases_are_not_kits(usual):
    assert judge([dataclasses.replace(usual, case="patient_160")]) == []
