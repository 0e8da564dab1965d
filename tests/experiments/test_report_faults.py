"""The two faults of the report's preparation are what MONAI's defaults do, and are measured as they are."""

import dataclasses
import io

import numpy as np
import pytest
from faults import (
    clipped_grey,
    covered_fractions,
    mean_of_numbers,
    rounded,
    unclipped_grey,
    unclipped_slices,
)
from PIL import Image
from preparation import labels_of_case, measure_grey, measure_labels

from kits_ml.config import PreprocessingSettings
from kits_ml.data import frames, preprocessing
from kits_ml.data.frames import Frame

SETTINGS = PreprocessingSettings(image_size=32)


def _frame(size: int, *, image_size: int) -> Frame:
    """A window that is a whole scan of one slice."""
    ends = (0, size)
    return Frame(
        shape=(1, size, size), rows=ends, columns=ends, image_size=image_size, lowest_hu=-1024, highest_hu=300
    )


@pytest.mark.parametrize(("highest_hu", "expected"), [(300, 0.53), (1679, -0.37), (3071, -0.76)])
def test_one_bright_voxel_changes_every_kidney(highest_hu, expected):
    # 180 HU, window -79 to 304: x = 259 / 383 = 0.676, a = -945 / 383 = -2.467; with a highest voxel of 300,
    # b = 0.990: ((0.676 + 2.467) / 3.457) ^ 1.5 * 3.457 - 2.467 = 0.53
    found = unclipped_grey(np.array(180), lowest_hu=-1024, highest_hu=highest_hu, settings=SETTINGS)
    assert float(found) == pytest.approx(expected, abs=5e-3)
    assert float(clipped_grey(np.array(180), settings=SETTINGS)) == pytest.approx(0.676**1.5, abs=1e-3)


def test_it_is_what_monai_does():
    from monai.transforms import AdjustContrast, ScaleIntensityRange

    hu = np.random.default_rng(0).uniform(-1024, 2000, (3, 16, 16)).astype(np.float32)
    scaled = ScaleIntensityRange(a_min=-79, a_max=304, b_min=0, b_max=1)(hu)
    expected = AdjustContrast(gamma=1.5)(scaled).numpy()
    found = unclipped_grey(hu, lowest_hu=float(hu.min()), highest_hu=float(hu.max()), settings=SETTINGS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_within_the_window_nothing_is_lost():
    image = np.linspace(-79, 304, 4 * 64 * 64).astype(np.int16).reshape(4, 64, 64)
    frame = frames.find_frame(image, SETTINGS)
    right = np.concatenate(list(preprocessing.prepare_image(image, frame, SETTINGS))).astype(int)
    found = unclipped_slices(image, dataclasses.replace(frame, lowest_hu=-79, highest_hu=304), SETTINGS)
    assert np.abs(found - right).max() <= 1  # rounding
    metal = unclipped_slices(image, dataclasses.replace(frame, lowest_hu=-1024, highest_hu=3071), SETTINGS)
    assert metal.max() == 0  # 304 HU, the top of the window, is black


def test_tumour_and_background_make_kidney():
    label_map = np.zeros((1, 4, 4), np.uint8)
    label_map[0, :, 1] = 2  # half of what the left pixels cover
    label_map[0, :2, 3] = 1  # half of the upper right one
    frame = _frame(4, image_size=2)
    means = mean_of_numbers(label_map, frame)
    np.testing.assert_allclose(means[0], [[1.0, 0.5], [1.0, 0.0]])
    assert rounded(means)[0].tolist() == [[1, 1], [1, 0]]
    parts = covered_fractions(label_map, frame)
    assert parts[:, 0, 0, 0].tolist() == [0.5, 0.0, 0.5]  # no kidney there at all
    np.testing.assert_allclose(parts.sum(axis=0), 1)


def test_labels_of_a_case_are_measured(make_case, tmp_path):
    make_case(tmp_path / "cases", "case_00000")
    found = measure_labels(tmp_path / "cases", settings=SETTINGS)
    assert found["num_with_tumour"] == 1
    assert found["nearest_false_kidney"]["mean"] == 0
    assert 0 < found["fractional"]["mean"] < 1
    # the tumour of this body lies inside its kidney, so averages with background do not arise
    assert found["false_kidney_pixels"] == 0
    assert found["cut_tumour_left"]["mean"] < found["rounded_tumour_left"]["mean"]


def test_rounding_errors_are_no_fractions():
    label_map = np.full((1, 21, 21), 2, np.uint8)  # means of 3 x 3: 9 times float32(1 / 9) is not 1
    frame = _frame(21, image_size=7)
    found = labels_of_case(label_map, frame)
    assert found["fractional"] == 0
    assert found["cut_tumour_left"] == found["rounded_tumour_left"] == 1


def test_grey_values_of_a_case_are_measured(make_case, tmp_path):
    make_case(tmp_path / "cases", "case_00000")
    found = measure_grey([("phantom", tmp_path / "cases")], settings=SETTINGS)
    (row,) = found["cases"]
    assert row["kidney_hu"] == pytest.approx(180, abs=1)
    # the body's brightest voxel is its kidney's, so little is lost; with a voxel of metal all of the kidney is black
    assert row["clipped"] == pytest.approx(0.556, abs=0.01)
    assert row["black_with_metal"] == 1
    assert row["levels_unclipped"] < row["levels_clipped"]


def test_a_phantom_slice_is_drawn(make_case, tmp_path):
    import phantom_slices

    make_case(tmp_path / "cases", "case_00000")
    image = Image.open(io.BytesIO(phantom_slices.draw(tmp_path / "cases")))
    assert image.format == "PNG"
    assert image.width > 600
