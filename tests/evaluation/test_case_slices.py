"""The slices of a page: which, how large, and with which contours."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from kits_ml.evaluation import case_slices


def _corners(path: str) -> list[tuple[int, int]]:
    """The corners of a path's only outline."""
    start, steps = re.fullmatch(r"M(-?\d+ -?\d+)l([-\d ]*)z", path).groups()
    x, y = map(int, start.split())
    corners, moves = [(x, y)], list(map(int, steps.split()))
    for dx, dy in zip(moves[::2], moves[1::2], strict=True):
        x, y = x + dx, y + dy
        corners.append((x, y))
    return corners


def test_an_outline_runs_around_its_pixels():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:10] = True
    corners = _corners(case_slices.contour_path(mask, width=40, height=20))  # pixels of 2 x 2
    xs, ys = zip(*corners, strict=True)
    # columns 4 to 9, from middle to middle 4.5 to 9.5, half a pixel more on either side: 4 to 10, times 2, times 10
    assert (min(xs), max(xs), min(ys), max(ys)) == (80, 200, 40, 100)


def test_outlines_at_the_edge_are_closed():
    xs, ys = zip(*_corners(case_slices.contour_path(np.ones((4, 4), bool), width=4, height=4)), strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == (0, 40, 0, 40)
    assert case_slices.contour_path(np.zeros((4, 4), bool), width=4, height=4) == ""


def test_slices_span_what_is_labelled():
    true, pred = np.zeros((2, 200, 4, 4), np.uint8)
    true[50:100], pred[90:150] = 1, 1
    chosen = case_slices.choose_slices(true, pred, telling=[77, 120])
    assert len(chosen) <= case_slices.MOST_SLICES
    assert (chosen[0], chosen[-1]) == (49, 150)  # one above, one below
    assert {77, 120} <= set(chosen)
    assert max(np.diff(chosen)) <= 4
    few = case_slices.choose_slices(true[98:104], pred[98:104], telling=[])
    assert few == [0, 1, 2, 3, 4, 5]
    nothing = case_slices.choose_slices(true[:10], pred[:10], telling=[])
    assert nothing == list(range(10))


def test_pictures_are_as_wide_as_the_body_and_start_at_the_fault():
    image = np.full((9, 64, 64), -1000, np.int16)
    true, pred = np.zeros((2, 9, 64, 64), np.uint8)
    true[2:7, 28:36, 20:44] = 1
    pred[2:7, 28:36, 20:44] = 1
    pred[5, 28:36, 20:40] = 0
    image[true == 1] = 304
    found = case_slices.slices_of_case(image, true, pred, spacing_mm=(5.0, 2.0, 1.0), case="a", rank="worst")
    # rows: 8 and 13 (25 mm) on either side, columns: 24 and 20 to the left, 20 to the right: 34 x 2 mm and 64 x 1 mm
    assert (found.width, found.height) == (round(256 * 64 / 68), 256)
    assert [one.index for one in found.slices] == [1, 2, 3, 4, 5, 6, 7]
    shown = found.slices[found.start]
    assert shown.index == 5
    assert shown.text == "largest difference; kidney Dice 0.29"  # 2 x 4 / (24 + 4)
    assert set(shown.paths) == {"kidney-truth", "kidney-prediction"}
    assert found.slices[0].paths == {}
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.jpeg.split(",")[1]))))
    assert picture.shape == (found.height, found.width)
    assert picture[found.height // 2, 32 * found.width // 64] > 250  # the top of the window, where the kidney is
    assert picture[5, 5] < 5


def test_what_is_wrong_is_said():
    true, pred = np.zeros((2, 1, 4, 4), np.uint8)
    true[0, 0, 0], pred[0, 1, 1] = 1, 2
    (found,) = case_slices.slices_of_case(
        np.zeros((1, 4, 4)), true, pred, spacing_mm=(1, 1, 1), case="a", rank="worst"
    ).slices
    assert "kidney Dice 0.00; tumour where there is none" in found.text


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected one shape"):
        case_slices.slices_of_case(
            *(np.zeros((n, 4, 4), np.uint8) for n in (1, 1, 2)), spacing_mm=(1, 1, 1), case="a", rank="best"
        )
