"""Each step does what it says and nothing else; nothing is done by default."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kits_ml.config import PostprocessingSettings
from kits_ml.errors import InputError
from kits_ml.inference import pieces
from kits_ml.inference.postprocessing import postprocess, settings_of

SPACING_MM = (5.0, 2.0, 1.0)  # a voxel of 10 mm3: a hundred are 1 ml


def _scan() -> np.ndarray:
    """Two kidneys of 5 x 10 x 10 and 5 x 8 x 8, a spot of 2 x 2 x 2 away from both; each 500, 320 and 8 voxels."""
    label_map = np.zeros((16, 30, 60), np.uint8)
    label_map[4:9, 5:15, 5:15] = 1
    label_map[4:9, 5:13, 40:48] = 1
    label_map[13:15, 25:27, 25:27] = 1
    return label_map


def _cleaned(label_map: np.ndarray, **settings) -> np.ndarray:
    before = label_map.copy()
    found = postprocess(label_map, spacing_mm=SPACING_MM, settings=PostprocessingSettings(**settings))
    np.testing.assert_array_equal(label_map, before)
    assert found.dtype == np.uint8
    return found


@pytest.fixture(params=[1 << 23, 1000])
def slab_voxels(request, monkeypatch):
    """One slab, and several."""
    monkeypatch.setattr(pieces, "SLAB_VOXELS", request.param)


def test_nothing_is_done_by_default():
    label_map = _scan()
    assert postprocess(label_map, spacing_mm=SPACING_MM, settings=PostprocessingSettings()) is label_map


@pytest.mark.parametrize(("count", "num_voxels"), [(1, 500), (2, 820), (3, 828), (4, 828)])
def test_the_largest_kidneys_are_kept(slab_voxels, count, num_voxels):
    assert np.count_nonzero(_cleaned(_scan(), keep_largest_kidneys=count)) == num_voxels


def test_a_kidney_is_as_large_as_with_its_tumour():
    label_map = _scan()
    label_map[4:9, 14:24, 40:48] = 2  # apart from the small kidney (rows 5 to 12) by one row: alone
    assert np.count_nonzero(_cleaned(label_map, keep_largest_kidneys=1) == 2) == 400
    label_map[4:9, 13, 40:48] = 2  # now it belongs to the kidney: 320 + 440 are more than 500
    kept = _cleaned(label_map, keep_largest_kidneys=1)
    assert (np.count_nonzero(kept == 1), np.count_nonzero(kept == 2)) == (320, 440)


@pytest.mark.parametrize(("minimum_ml", "num_voxels"), [(0.08, 828), (0.081, 820), (3.2, 820), (3.3, 500), (9, 0)])
def test_small_kidneys_go(slab_voxels, minimum_ml, num_voxels):
    # 8 voxels are 0.08 ml, 320 are 3.2 ml, 500 are 5 ml
    assert np.count_nonzero(_cleaned(_scan(), minimum_kidney_ml=minimum_ml)) == num_voxels


def test_holes_are_kidney_and_within_tumour_tumour(slab_voxels):
    label_map = _scan()
    label_map[6, 9, 9] = 0  # in the kidney
    label_map[5:8, 6:12, 41:47] = 2
    label_map[6, 8, 43] = 0  # in its tumour
    label_map[4:9, 5:7, 5] = 0  # open to a side: no hole
    filled = _cleaned(label_map, fill_holes="volume")
    expected = label_map.copy()
    expected[6, 9, 9], expected[6, 8, 43] = 1, 2
    np.testing.assert_array_equal(filled, expected)


def test_a_hole_through_all_slices_is_one_of_slices_only(slab_voxels):
    label_map = _scan()
    label_map[4:9, 9:11, 9:11] = 0
    np.testing.assert_array_equal(_cleaned(label_map, fill_holes="volume"), label_map)
    np.testing.assert_array_equal(_cleaned(label_map, fill_holes="slices"), _scan())


@pytest.mark.parametrize(
    ("contact_mm", "kept"),
    [(None, {15, 17, 20}), (0.0, {15}), (2.0, {15}), (3.0, {15, 17}), (5.9, {15, 17}), (6.0, {15, 17, 20})],
)
def test_tumours_without_kidney_go(slab_voxels, contact_mm, kept):
    label_map = _scan()  # the first kidney's columns end at 14, pixels of 1 mm
    for slices, column in ((6, 15), (4, 17), (8, 20)):
        label_map[slices, 6, column] = 2  # 1, 3 and 6 mm away, in slices 10 mm apart
    found = _cleaned(label_map, tumour_contact_mm=contact_mm)
    assert set(np.argwhere(found == 2)[:, 2].tolist()) == kept
    assert np.count_nonzero(found == 1) == 828


def test_corners_touch():
    label_map = np.zeros((3, 3, 3), np.uint8)
    label_map[0, 0, 0], label_map[1, 1, 1] = 1, 2
    np.testing.assert_array_equal(_cleaned(label_map, tumour_contact_mm=0.0), label_map)


def test_small_tumours_become_what_they_lie_in(slab_voxels):
    label_map = _scan()
    label_map[5:7, 6:8, 6:8] = 2  # 8 voxels in the kidney
    label_map[12, 2, 2:6] = 2  # 4 voxels away from it
    label_map[5:8, 6:12, 41:47] = 2  # 108 voxels
    found = _cleaned(label_map, minimum_tumour_ml=0.1)
    assert (found[5, 6, 6], found[12, 2, 2], np.count_nonzero(found == 2)) == (1, 0, 108)
    assert np.count_nonzero(found) == 828


def test_all_may_be_removed():
    label_map = np.zeros((4, 4, 4), np.uint8)
    label_map[1, 1, 1] = 2  # tumour and no kidney
    assert not _cleaned(label_map, tumour_contact_mm=50.0).any()
    assert not _cleaned(_scan(), minimum_kidney_ml=100.0).any()


def test_nothing_stays_nothing():
    empty = np.zeros((2, 3, 4), np.uint8)
    assert not _cleaned(empty, keep_largest_kidneys=2, fill_holes="volume", tumour_contact_mm=0.0).any()


def test_the_order_is_holes_kidneys_tumours():
    label_map = _scan()
    label_map[13, 27, 25:29] = 2  # its only kidney is the spot of 0.08 ml
    found = _cleaned(label_map, minimum_kidney_ml=0.2, tumour_contact_mm=0.0)
    np.testing.assert_array_equal(found, _cleaned(_scan(), minimum_kidney_ml=0.1))


_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 2))


@hypothesis_settings(max_examples=60, deadline=None)
@given(_maps, st.integers(0, 2), st.sampled_from([None, 0.0, 3.0]), st.sampled_from(["none", "volume", "slices"]))
def test_twice_is_once_and_only_holes_are_added(label_map, kidneys, contact_mm, fill_holes):
    settings = {"keep_largest_kidneys": kidneys, "tumour_contact_mm": contact_mm, "fill_holes": fill_holes}
    found = _cleaned(label_map, **settings)
    added = (found > 0) & (label_map == 0)
    assert fill_holes != "none" or not added.any()
    assert set(np.unique(found)) <= {0, 1, 2}
    if fill_holes == "none":
        np.testing.assert_array_equal(_cleaned(found, **settings), found)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((3, 3), (1, 1, 1)), ((3, 3, 3), (1, 1)), ((3, 3, 3), (0, 1, 1)), ((3, 3, 3), (np.nan, 1, 1))],
)
def test_what_is_no_label_map_is_refused(shape, spacing_mm):
    with pytest.raises(InputError, match="expected three axes"):
        postprocess(np.ones(shape, np.uint8), spacing_mm=spacing_mm, settings=PostprocessingSettings())


def test_settings_come_from_the_model():
    assert settings_of({}, source="m") == PostprocessingSettings()
    assert settings_of({"postprocessing": {"keep_largest_kidneys": 2}}, source="m").keep_largest_kidneys == 2
    with pytest.raises(InputError, match="m: stored: unknown setting 'keep_largest'"):
        settings_of({"postprocessing": {"keep_largest": 2}}, source="m")
