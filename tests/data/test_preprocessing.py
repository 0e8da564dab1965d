"""The production path gives what the literal MONAI chain gives, and is undone on the scan's grid."""

import dataclasses
import json

import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, frames, preprocessing, resampling
from kits_ml.errors import InputError
from tests.conftest import body

SETTINGS = PreprocessingSettings(image_size=32)


def _prepared(image: np.ndarray, settings: PreprocessingSettings = SETTINGS) -> tuple[np.ndarray, frames.Frame]:
    frame = frames.find_frame(image, settings)
    return np.concatenate(list(preprocessing.prepare_image(image, frame, settings))), frame


def _reference(image: np.ndarray, label_map: np.ndarray, settings: PreprocessingSettings):
    prepared = preprocessing.monai_chain(settings)({"image": image.astype(np.float32), "label": label_map})
    return np.rint(np.asarray(prepared["image"]) * 255).astype(int), np.asarray(prepared["label"]).astype(int)


def _agree(image: np.ndarray, label_map: np.ndarray, settings: PreprocessingSettings) -> None:
    grey, frame = _prepared(image, settings)
    labels = preprocessing.prepare_labels(label_map, frame)
    grey_true, labels_true = _reference(image, label_map, settings)
    np.testing.assert_array_equal(labels, labels_true)
    assert np.abs(grey.astype(int) - grey_true).max() <= 1
    assert (grey == grey_true).mean() > 0.99


@pytest.mark.parametrize("size", [20, 32, 61, 64, 97])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_monai_for_any_size(size, seed):
    image, label_map = body(num_slices=9, size=size, seed=seed)
    _agree(image[:, :, : size - 3], label_map[:, :, : size - 3], SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.0},
        {"gamma": 0.6},
        {"window_min_hu": -200.0, "window_max_hu": 100.0},
        {"foreground_hu": -500.0},
        {"image_size": 48},
    ],
)
def test_same_as_monai_for_other_settings(change):
    _agree(*body(), dataclasses.replace(SETTINGS, **change))


def test_same_as_monai_where_the_window_is_not_filled():
    image, label_map = body()
    image = np.clip(image, -20, 90)  # gamma then refers to the image's own extremes
    _agree(image, label_map, SETTINGS)


def test_same_for_floats_as_for_whole_numbers():
    image, _ = body()
    np.testing.assert_array_equal(_prepared(image)[0], _prepared(image.astype(np.float32))[0])


def test_the_real_volume_is_prepared_as_monai_does(real_data):
    (case,) = cases.find_cases(real_data / "ircadb")
    image, label_map = cases.load_case(case)
    settings = PreprocessingSettings()
    grey, frame = _prepared(image.array, settings)
    chain = preprocessing.monai_chain(settings, load=True)
    prepared = chain({"image": case.image_path, "label": case.labels_path})
    difference = np.abs(grey.astype(int) - np.rint(np.asarray(prepared["image"]) * 255).astype(int))
    assert (difference <= 1).mean() >= 0.999
    np.testing.assert_array_equal(preprocessing.prepare_labels(label_map.array, frame), np.asarray(prepared["label"]))


def test_one_metal_voxel_does_not_change_the_contrast():
    image, _ = body()
    with_metal = image.copy()
    with_metal[2, 32, 32] = 3071
    plain, metal = _prepared(image)[0], _prepared(with_metal)[0]
    # 180 HU, the kidney: ((180 + 79) / 383) ** 1.5 * 255 = 141.8; the tallest soft tissue is 200 HU or so, and gamma
    # refers to the image's extremes, so the two may differ by the little that the window is not filled
    assert np.abs(plain[0].astype(int) - metal[0].astype(int)).max() <= 12


def test_known_grey_values():
    image = np.full((1, 32, 32), 304, np.int16)
    image[0, :16] = (-79 + 304) / 2  # the middle of the window, 112.5 -> 112 HU
    image[0, 0] = -79
    grey, _ = _prepared(image, dataclasses.replace(SETTINGS, foreground_hu=-100.0))
    # ((112 + 79) / 383) ** 1.5 * 255 = 89.8
    assert [int(grey[0, row, 0]) for row in (0, 8, 31)] == [0, 90, 255]


def test_the_frame_is_the_smallest_box():
    image = np.full((3, 40, 50), -1000, np.int16)
    image[0, 5, 7] = image[2, 30, 20] = 1
    frame = frames.find_frame(image, SETTINGS)
    assert (frame.rows, frame.columns) == ((5, 31), (7, 21))
    assert frames.Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


def test_no_foreground_is_said():
    with pytest.raises(InputError, match=r"no foreground: all voxels are at most 0 HU \(found up to -5\)"):
        frames.find_frame(np.full((2, 8, 8), -5, np.int16), SETTINGS)


@pytest.mark.parametrize("size", [40, 64, 97])
def test_restoring_finds_the_labels_again(size):
    image, label_map = body(size=size)
    frame = frames.find_frame(image, SETTINGS)
    prepared = preprocessing.prepare_labels(label_map, frame)
    restored = preprocessing.restore_labels(np.eye(3, dtype=np.float32)[prepared], frame)
    assert restored.shape == label_map.shape
    assert restored.dtype == np.uint8
    both = ((restored > 0) & (label_map > 0)).sum()
    assert 2 * both / ((restored > 0).sum() + (label_map > 0).sum()) > 0.9


def test_restoring_does_not_shift():
    image, label_map = body(size=96)
    frame = frames.find_frame(image, SETTINGS)
    restored = preprocessing.restore_labels(
        np.eye(3, dtype=np.float32)[preprocessing.prepare_labels(label_map, frame)], frame
    )
    centre_true, centre = (np.argwhere(one > 0).mean(axis=0) for one in (label_map, restored))
    np.testing.assert_allclose(centre, centre_true, atol=0.3)  # pixels of the scan


def test_restoring_puts_a_mark_where_it_was():
    image = np.full((1, 64, 96), -1000, np.int16)
    image[0, 8:40, 16:80] = 50  # the window: 32 x 64 pixels become 32 x 32, from columns 16, 18, 20, ...
    frame = frames.find_frame(image, SETTINGS)
    probabilities = np.zeros((1, 32, 32, 3), np.float32)
    probabilities[..., 0] = 1
    probabilities[0, 10:20, 4:8] = (0, 0, 1)
    restored = preprocessing.restore_labels(probabilities, frame)
    rows, columns = np.nonzero(restored[0])
    # rows keep their size: 8 + 10 ... 8 + 20; columns were taken from 16 + 2 * 4 = 24 ... 16 + 2 * 7 = 30, and
    # halfway to a neighbour (23, 31) both classes are as probable: the first, background, wins
    assert (rows.min(), rows.max() + 1) == (18, 28)
    assert (columns.min(), columns.max() + 1) == (24, 31)


def test_the_default_restores_bit_for_bit_as_it_did_before_there_were_other_framings():
    image, label_map = body(size=97)
    frame = frames.find_frame(image, SETTINGS)
    labels = preprocessing.prepare_labels(label_map, frame)
    noise = np.random.default_rng(0).random((*labels.shape, 3), np.float32)
    probabilities = np.float32(0.6) * np.eye(3, dtype=np.float32)[labels] + np.float32(0.4) * noise
    row_weights, column_weights = (
        resampling.nearest_inverse_weights(32, last - first) for first, last in (frame.rows, frame.columns)
    )
    expected = np.zeros(image.shape, np.uint8)
    for number, one in enumerate(probabilities):
        window = resampling.resize_slices(np.moveaxis(one, -1, 0).copy(), row_weights, column_weights).argmax(axis=0)
        expected[number, slice(*frame.rows), slice(*frame.columns)] = window
    np.testing.assert_array_equal(preprocessing.restore_labels(probabilities, frame), expected)
