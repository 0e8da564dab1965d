"""Whatever the framing, the crop and the size: what the preparation does is undone on the scan's own grid."""

import itertools
import json

import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, frames, preprocessing
from kits_ml.errors import InputError
from tests.conftest import lopsided

SHAPE, SPACING_MM = (5, 150, 130), (3.0, 0.7, 1.0)
COMBINATIONS = [
    PreprocessingSettings(framing=framing, crop=crop, image_size=size, pixel_spacing_mm=150 / size)
    for framing, crop, size in itertools.product(("stretch", "spacing"), ("foreground", "body"), (64, 96))
]
SPACED = PreprocessingSettings(framing="spacing", crop="body", image_size=64, pixel_spacing_mm=2.0)


def _name(settings: PreprocessingSettings) -> str:
    return f"{settings.framing}-{settings.crop}-{settings.image_size}"


def _there_and_back(image, label_map, settings, spacing_mm=SPACING_MM) -> np.ndarray:
    """Prepares and restores perfect labels."""
    frame = frames.find_frame(image, settings, spacing_mm=spacing_mm)
    labels = preprocessing.prepare_labels(label_map, frame)
    assert labels.shape == (len(image), settings.image_size, settings.image_size)
    return preprocessing.restore_labels(np.eye(3, dtype=np.float32)[labels], frame)


def _grey(image, settings, spacing_mm=SPACING_MM) -> np.ndarray:
    frame = frames.find_frame(image, settings, spacing_mm=spacing_mm)
    return np.concatenate(list(preprocessing.prepare_image(image, frame, settings)))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def _centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=_name)
def test_restoring_finds_the_labels_again_and_does_not_shift(settings):
    image, label_map = lopsided(SHAPE, SPACING_MM)
    restored = _there_and_back(image, label_map, settings)
    assert restored.shape == label_map.shape
    assert _dice(restored > 0, label_map > 0) > 0.95  # the kidney is 40 x 28 pixels
    np.testing.assert_allclose(_centre(restored > 0), _centre(label_map > 0), atol=0.3)
    # the tumour is 10 x 15 pixels, at worst 4 x 4 of the square: half of one of those may be missed
    np.testing.assert_allclose(_centre(restored == 2), _centre(label_map == 2), atol=150 / settings.image_size / 2)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=_name)
def test_a_mirrored_scan_gives_a_mirrored_result(settings):
    image, label_map = lopsided(SHAPE, SPACING_MM)
    restored = _there_and_back(image, label_map, settings)
    for axis in (1, 2):
        mirrored = _there_and_back(np.flip(image, axis), np.flip(label_map, axis), settings)
        assert _dice(np.flip(mirrored, axis) > 0, restored > 0) > 0.95
        np.testing.assert_allclose(_centre(np.flip(mirrored, axis) > 0), _centre(restored > 0), atol=0.3)


@pytest.mark.parametrize("settings", [one for one in COMBINATIONS if one.framing == "spacing"], ids=_name)
def test_a_perfect_network_is_not_shifted_either(settings):
    """It calls what is bright kidney (180 HU is grey 142 after window and gamma), so the image's own path counts."""
    image, label_map = lopsided(SHAPE, SPACING_MM, noise_hu=0)
    image[label_map == 2] = 180
    image[(image > 180) & (image < 600)] = 0  # the table is not to be taken for kidney
    frame = frames.find_frame(image, settings, spacing_mm=SPACING_MM)
    bright = np.clip(_grey(image, settings).astype(np.float32) / 255, 0, 1)
    kidney = 1 / (1 + np.exp(-40 * (bright - (142 + 44) / 2 / 255)))  # between kidney and 40 HU, grey 44
    probabilities = np.stack([1 - kidney, kidney, np.zeros_like(kidney)], axis=-1)
    restored = preprocessing.restore_labels(probabilities, frame)
    assert _dice(restored > 0, label_map > 0) > 0.95
    np.testing.assert_allclose(_centre(restored > 0), _centre(label_map > 0), atol=0.3)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=_name)
def test_nothing_is_found_outside_the_window(settings):
    image, _ = lopsided(SHAPE, SPACING_MM)
    frame = frames.find_frame(image, settings, spacing_mm=SPACING_MM)
    everything = np.zeros((1, settings.image_size, settings.image_size, 3), np.float32)
    everything[..., 1] = 1
    restored = preprocessing.restore_labels(everything, frame)[0]
    rows, columns = frame.inside
    assert (restored[rows, columns] == 1).all()
    restored[rows, columns] = 0
    assert not restored.any()


def test_the_spaced_window_by_hand():
    image = np.full((2, 100, 100), -1000, np.int16)
    image[:, 20:60, 30:90] = 50  # rows 20 to 60, columns 30 to 90: the middle is (40, 60)
    settings = PreprocessingSettings(framing="spacing", image_size=50, pixel_spacing_mm=2.0)
    frame = frames.find_frame(image, settings, spacing_mm=(5, 0.5, 1))
    # 50 x 2 mm = 100 mm: 200 rows of 0.5 mm and 100 columns of 1 mm around the middle
    assert (frame.rows, frame.columns) == ((-60, 140), (10, 110))
    assert frame.inside == (slice(0, 100), slice(10, 100))
    assert frame.pixel_spacing_mm == 2
    assert frame.note(settings) == ""
    grey = np.concatenate(list(preprocessing.prepare_image(image, frame, settings)))[0]
    shown = grey > 0
    # a pixel of the square is 4 rows high and 2 columns wide: the box is rows 80/4 to 120/4, columns 20/2 to 80/2
    assert (np.flatnonzero(shown.any(axis=1)) == np.arange(20, 30)).all()
    assert (np.flatnonzero(shown.any(axis=0)) == np.arange(10, 40)).all()
    # (50 + 79) / 383 * 255 = 85.9 (gamma refers to the brightest, which this is), and no less at the edges
    assert set(np.unique(grey)) == {0, 86}
    assert frames.Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


def test_beyond_the_scan_there_is_air_and_background():
    image = np.full((1, 40, 40), 200, np.int16)  # no air anywhere: the padding is the lowest
    settings = PreprocessingSettings(framing="spacing", image_size=32, pixel_spacing_mm=2.0)
    frame = frames.find_frame(image, settings, spacing_mm=(1, 1, 1))  # 64 mm around 40 mm: 12 mm, 6 pixels, beyond
    assert (frame.lowest_hu, frame.highest_hu) == (-79, 200)
    grey = np.concatenate(list(preprocessing.prepare_image(image, frame, settings)))[0]
    labels = preprocessing.prepare_labels(np.full((1, 40, 40), 2, np.uint8), frame)[0]
    inside = np.zeros((32, 32), bool)
    inside[6:26, 6:26] = True
    np.testing.assert_array_equal(labels == 2, inside)
    np.testing.assert_array_equal(grey > 0, inside)
    assert len(np.unique(grey[inside])) == 1


def test_a_body_that_does_not_fit_makes_the_pixels_larger():
    image, label_map = lopsided(SHAPE, SPACING_MM)
    settings = PreprocessingSettings(framing="spacing", image_size=64, pixel_spacing_mm=1.0)
    frame = frames.find_frame(image, settings, spacing_mm=SPACING_MM)
    stretched = frames.find_frame(image, PreprocessingSettings(image_size=64))
    sides_mm = [
        (stretched.rows[1] - stretched.rows[0]) * 0.7,
        (stretched.columns[1] - stretched.columns[0]) * 1.0,
    ]
    assert frame.pixel_spacing_mm == pytest.approx(max(sides_mm) / 64)
    for (first, last), (box_first, box_last) in (
        (frame.rows, stretched.rows),
        (frame.columns, stretched.columns),
    ):
        assert first <= box_first
        assert last >= box_last
    assert frame.note(settings).startswith("the crop does not fit into 64 x 64 mm: pixels of ")
    assert _dice(_there_and_back(image, label_map, settings) > 0, label_map > 0) > 0.95


def test_every_scan_gets_the_same_spacing():
    """A ball of 60 mm has the same size in the square, whatever the scan's own pixels."""
    heights = []
    for rows_mm, columns_mm in ((0.5, 0.5), (0.9, 0.6), (1.3, 2.1)):
        rows, columns = np.mgrid[: round(160 / rows_mm), : round(160 / columns_mm)]
        inside = np.hypot((rows + 0.5) * rows_mm - 80, (columns + 0.5) * columns_mm - 80) < 30
        image = np.where(inside, 200, -1000).astype(np.int16)[None]
        settings = PreprocessingSettings(framing="spacing", image_size=64, pixel_spacing_mm=1.5)
        shown = _grey(image, settings, (1, rows_mm, columns_mm))[0] > 90  # half of ((200 + 79) / 383) ** 1.5 * 255
        heights += [shown.any(axis=1).sum(), shown.any(axis=0).sum()]
    assert set(heights) <= {39, 40, 41}  # 60 / 1.5 = 40


@pytest.mark.parametrize("settings", COMBINATIONS, ids=_name)
def test_a_body_that_touches_the_border(settings):
    image, label_map = lopsided(SHAPE, SPACING_MM)
    image, label_map = image[:, 40:110, 10:80], label_map[:, 40:110, 10:80]  # cut through body and kidney
    restored = _there_and_back(image, label_map, settings)
    assert _dice(restored > 0, label_map > 0) > 0.95


@pytest.mark.parametrize("settings", COMBINATIONS, ids=_name)
def test_a_scan_smaller_than_the_square(settings):
    image, label_map = lopsided((3, 40, 36), (3.0, 2.6, 3.6))
    restored = _there_and_back(image, label_map, settings, (3.0, 2.6, 3.6))
    np.testing.assert_array_equal(restored, label_map)  # enlarging loses nothing


def test_the_body_box_leaves_the_table_out():
    image, _ = lopsided(SHAPE, SPACING_MM)
    whole = frames.find_frame(image, PreprocessingSettings())
    body = frames.find_frame(image, PreprocessingSettings(crop="body"))
    assert (whole.rows, whole.columns) == ((29, 138), (0, 130))  # the table: row 133 on, all columns
    # body: rows 29 to 120, columns 12 to 97; the coarse grid takes at most two steps of 2 pixels more
    for found, (first, last) in ((body.rows, (29, 121)), (body.columns, (11, 97))):
        assert first - 4 <= found[0] <= first
        assert last <= found[1] <= last + 4


def test_without_any_air_the_body_is_the_foreground():
    image, _ = lopsided(SHAPE, SPACING_MM)
    clipped = np.clip(image, -79, 304)  # fat and air are one
    body, whole = (frames.find_frame(clipped, PreprocessingSettings(crop=crop)) for crop in ("body", "foreground"))
    assert body == whole


@pytest.mark.parametrize(
    ("spacing_mm", "message"),
    [
        (None, r"spacing_mm: found none, expected the distances between slices, rows and columns in mm"),
        ((), "spacing_mm: found none"),
        ((1, 1), r"spacing_mm: found \(1\.0, 1\.0\), expected three distances above 0 mm"),
        ((1, 0, 1), "expected three distances above 0 mm"),
        ((1, float("nan"), 1), "expected three distances above 0 mm"),
        ((1, float("inf"), 1), "expected three distances above 0 mm"),
    ],
)
def test_a_spacing_that_is_none_is_said(spacing_mm, message):
    image, _ = lopsided(SHAPE, SPACING_MM)
    with pytest.raises(InputError, match=message):
        frames.find_frame(image, SPACED, spacing_mm=spacing_mm)
    frames.find_frame(image, PreprocessingSettings(), spacing_mm=None)  # not needed


def test_a_frame_of_an_older_store_is_read():
    old = {
        "shape": [9, 64, 64],
        "rows": [5, 60],
        "columns": [2, 61],
        "image_size": 32,
        "lowest_hu": -1000.0,
        "highest_hu": 300.0,
    }
    frame = frames.Frame.from_dict(old)
    assert frame.pixel_spacing_mm is None
    assert frame.inside == (slice(5, 60), slice(2, 61))


def test_old_settings_mean_the_reports_framing_and_crop():
    old = {"foreground_hu": 0.0, "window_min_hu": -79.0, "window_max_hu": 304.0, "gamma": 1.5, "image_size": 256}
    settings = PreprocessingSettings.from_mapping(old)
    assert settings == PreprocessingSettings()
    assert (settings.framing, settings.crop) == ("stretch", "foreground")


@pytest.mark.parametrize("framing", ["stretch", "spacing"])
@pytest.mark.parametrize("crop", ["foreground", "body"])
def test_real_labels_come_back(real_data, framing, crop):
    (case,) = cases.find_cases(real_data / "ircadb")
    image, label_map = cases.load_case(case)
    settings = PreprocessingSettings(framing=framing, crop=crop)
    some = slice(30, 100, 5)
    restored = _there_and_back(image.array[some], label_map.array[some], settings, image.spacing_mm)
    assert _dice(restored > 0, label_map.array[some] > 0) > 0.97
    np.testing.assert_allclose(_centre(restored > 0), _centre(label_map.array[some] > 0), atol=0.3)
