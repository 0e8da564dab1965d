"""The ranges of the training cases, and what lies outside of them."""

import json

import numpy as np
import pytest

from kits_ml.data import training_range, volumes
from kits_ml.data.fingerprint import fingerprint
from tests.conftest import body


def _fingerprint(*, spacing_mm, num_slices=6, offset_hu=0, labelled=True):
    image, label_map = body(num_slices=num_slices)
    geometry = volumes.kits_geometry(image.shape, spacing_mm)
    volume = volumes.Volume(array=image + np.int16(offset_hu), geometry=geometry, path="")
    labels = volumes.Volume(array=label_map, geometry=geometry, path="") if labelled else None
    return fingerprint("case", volume, labels)


def test_ranges_go_from_the_smallest_to_the_largest_case():
    found = training_range.describe_training(
        [
            _fingerprint(spacing_mm=(3.0, 0.8, 0.8)),
            _fingerprint(spacing_mm=(1.0, 0.9, 0.7), num_slices=30, offset_hu=20),
        ]
    )
    assert found["num_cases"] == 2
    assert found["spacing_mm"] == {"low": [1.0, 0.8, 0.7], "high": [3.0, 0.9, 0.8]}
    # 6 slices of 3 mm and 30 of 1; 64 rows and columns
    assert found["field_of_view_mm"]["low"] == pytest.approx([18, 51.2, 44.8])
    assert found["field_of_view_mm"]["high"] == pytest.approx([30, 57.6, 51.2])
    assert found["kidney_hu"]["low"] == pytest.approx(180, abs=2)
    assert found["kidney_hu"]["high"] == pytest.approx(200, abs=2)
    for name in training_range.COMPARED:
        assert found["hu"]["low"][name] < found["hu"]["high"][name]
    assert json.loads(json.dumps(found)) == found


def test_what_several_models_have_in_common():
    first = {
        "num_cases": 3,
        "spacing_mm": {"low": [1.0, 0.6, 0.6], "high": [5.0, 0.9, 0.9]},
        "hu": {"low": {"p05": -1000, "p50": -900, "p95": 30}, "high": {"p05": -950, "p50": 40, "p95": 90}},
        "kidney_hu": {"low": 90, "high": 200},
    }
    second = {
        "spacing_mm": {"low": [0.5, 0.7, 0.5], "high": [3.0, 0.8, 0.55]},
        "hu": {"low": {"p05": -990, "p50": -950, "p95": 20}, "high": {"p05": -960, "p50": 50, "p95": 80}},
    }
    assert training_range.common_range([first, second, None, {}]) == {
        "num_models": 4,
        "num_silent": {"spacing_mm": 2, "field_of_view_mm": 4, "hu": 2, "kidney_hu": 3},
        "spacing_mm": {"low": [1.0, 0.7, 0.6], "high": [3.0, 0.8, 0.55]},  # columns: nothing
        "hu": {"low": {"p05": -990, "p50": -900, "p95": 30}, "high": {"p05": -960, "p50": 40, "p95": 80}},
        "kidney_hu": {"low": 90, "high": 200},
    }
    assert training_range.common_range([{}, None]) == {}


def test_without_labels_no_kidney_is_described():
    found = training_range.describe_training([_fingerprint(spacing_mm=(3, 1, 1), labelled=False)])
    assert "kidney_hu" not in found
    assert found["num_cases"] == 1
    assert training_range.describe_training([]) == {}


def test_a_training_case_lies_within():
    one = _fingerprint(spacing_mm=(3.0, 0.8, 0.8))
    image, _ = body()
    trained = training_range.describe_training([one])
    assert not training_range.outside_lengths((3.0, 0.8, 0.8), trained["spacing_mm"], margin=0)
    found = training_range.sampled_percentiles(image)
    assert not training_range.outside_hu(found, trained["hu"], margin_hu=1)  # fingerprints round to whole HU


def test_padding_counts_as_air():
    image, _ = body()
    plain = training_range.sampled_percentiles(image)
    image[:, :8] = -2048  # an eighth: more than five percent
    assert training_range.sampled_percentiles(image) == {**plain, "p05": -1024}
    geometry = volumes.kits_geometry(image.shape, (3, 1, 1))
    padded = fingerprint("case", volumes.Volume(array=image, geometry=geometry, path=""), None)
    assert training_range.describe_training([padded])["hu"]["low"]["p05"] == -1024


def test_margins_are_shares_of_lengths_and_hu():
    trained = {"low": [1.0, 1.0, 1.0], "high": [2.0, 2.0, 2.0]}
    assert not training_range.outside_lengths((0.9, 1.5, 2.2), trained, margin=0.1)
    short, long = training_range.outside_lengths((0.89, 1.5, 2.21), trained, margin=0.1)
    assert (short.what, short.found, short.low) == ("slices", 0.89, 1.0)
    assert (long.what, long.found, long.high) == ("columns", 2.21, 2.0)
    hu = {"low": {"p05": -1000, "p50": -900, "p95": 50}, "high": {"p05": -900, "p50": 0, "p95": 80}}
    (one,) = training_range.outside_hu({"p05": -1050, "p50": -800, "p95": 131}, hu, margin_hu=50)
    assert (one.what, one.found, one.high) == ("p95", 131, 80)


def test_percentiles_of_a_large_scan_come_from_a_part_of_it():
    image = np.random.default_rng(0).normal(0, 100, (200, 300, 300)).astype(np.float32)
    found = training_range.sampled_percentiles(image)
    # of a normal distribution: 1.645 standard deviations
    assert [found[name] for name in ("p05", "p50", "p95")] == pytest.approx([-164.5, 0, 164.5], abs=1)
