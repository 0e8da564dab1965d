"""The phantom's numbers against those of the 210 labelled KiTS19 cases."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from kits_ml.data import phantom

NUM_DRAWN = 500


@pytest.fixture(scope="module")
def drawn():
    cases = [phantom.draw_parameters(seed=0, index=index) for index in range(NUM_DRAWN)]
    columns = {name: np.array([getattr(case, name) for case in cases]) for name in vars(cases[0])}
    return columns | {"length_mm": columns["num_slices"] * columns["spacing_z_mm"]}


# Median and quartiles of KiTS19, and how far from them 500 draws may fall (a share of the value).
@pytest.mark.parametrize(
    ("name", "quartiles", "tolerance"),
    [
        ("num_slices", (88, 108, 273), 0.2),
        ("spacing_xy_mm", (0.718, 0.781, 0.868), 0.03),
        ("length_mm", (274, 410, 488), 0.12),
        ("kidney_ml", (352, 407, 490), 0.05),
        ("kidney_hu", (91, 108, 129), 0.06),
        ("tumour_hu", (57, 76, 100), 0.1),
        ("tumour_ml", (7.9, 30.1, 93.5), 0.35),
    ],
)
def test_quartiles_are_those_of_kits19(drawn, name, quartiles, tolerance):
    np.testing.assert_allclose(np.percentile(drawn[name], [25, 50, 75]), quartiles, rtol=tolerance)


def test_slices_are_as_thin_and_as_thick_as_in_kits19(drawn):
    # 49 of 210 cases have slices of at most 1 mm, 86 of 5 mm; three standard errors of 500 draws are 0.066.
    assert (drawn["spacing_z_mm"] <= 1).mean() == pytest.approx(49 / 210, abs=0.07)
    assert (drawn["spacing_z_mm"] == 5).mean() == pytest.approx(86 / 210, abs=0.07)


def test_extremes_stay_within_kits19(drawn):
    assert drawn["num_slices"].min() >= 29
    assert drawn["num_slices"].max() <= 1059
    assert drawn["spacing_z_mm"].min() >= 0.5
    assert drawn["spacing_z_mm"].max() <= 5.0
    assert 5 <= drawn["tumour_hu"].min() < drawn["tumour_hu"].max() <= 246


def test_what_goes_together_goes_together(drawn):
    def correlation(first, second):
        return np.corrcoef(drawn[first], drawn[second])[0, 1]

    assert correlation("num_slices", "spacing_z_mm") < -0.6  # the scan's length is what is constant
    assert correlation("kidney_hu", "tumour_hu") == pytest.approx(0.60, abs=0.12)
    assert correlation("spacing_xy_mm", "kidney_ml") == pytest.approx(0.50, abs=0.12)


def test_the_selection_rule_has_something_to_reject(drawn):
    # The report's rule: at most 110 slices, HU within [-1024, 1679]. It keeps 49 of 210 KiTS19 cases, 23 %.
    kept = (drawn["num_slices"] <= 110) & (drawn["hu_min"] >= -1024) & (drawn["hu_max"] <= 1679)
    assert 0.13 < kept.mean() < 0.33


def test_small_is_small_and_thick():
    cases = [phantom.draw_parameters(seed=0, index=index, distribution="small") for index in range(100)]
    assert max(case.num_slices for case in cases) <= 40
    assert min(case.spacing_z_mm for case in cases) >= 4


def test_forced_slice_count_keeps_the_length():
    free = phantom.draw_parameters(seed=0, index=2)
    forced = phantom.draw_parameters(seed=0, index=2, num_slices=free.num_slices // 2 + 60)
    expected = np.clip(free.num_slices * free.spacing_z_mm / forced.num_slices, 0.5, 5)
    assert forced.spacing_z_mm == pytest.approx(expected)
    assert forced.tumour_ml == free.tumour_ml


def test_quantiles_match_the_fingerprint_file(drawn):
    folder = os.environ.get("KITS_ML_REAL_DATA")
    if not folder or not (path := Path(folder) / "kits19-fingerprint.csv").is_file():
        pytest.skip("KITS_ML_REAL_DATA is not set to a folder with kits19-fingerprint.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "case"}
    voxel_ml = column["spacing_z_mm"] * column["spacing_y_mm"] * column["spacing_x_mm"] / 1000
    real = {
        "num_slices": column["slices"],
        "spacing_xy_mm": column["spacing_x_mm"],
        "kidney_ml": column["kidney_voxels"] * voxel_ml,
        "tumour_ml": column["tumour_voxels"] * voxel_ml,
        "kidney_hu": column["kidney_hu_mean"],
        "tumour_hu": column["tumour_hu_mean"],
    }
    for name, values in real.items():
        wanted = np.percentile(values, [25, 50, 75])
        np.testing.assert_allclose(np.percentile(drawn[name], [25, 50, 75]), wanted, rtol=0.35, err_msg=name)
