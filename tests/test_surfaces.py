"""Distances between surfaces: by hand, and against DeepMind's own functions."""

import math
import warnings

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kits_ml import surfaces

_masks = hnp.arrays(bool, (4, 5, 6))
_spacings = st.tuples(*[st.sampled_from([0.5, 0.78, 1.0, 3.0])] * 3)


def _box(slices: slice, rows: slice, columns: slice, shape=(12, 14, 16)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slices, rows, columns] = True
    return mask


def test_a_shifted_plate_is_as_far_as_it_was_shifted():
    # The faces are 2 slices of 3 mm away; of the sides, the shared part has distance 0, and nothing is farther.
    first, second = _box(slice(3, 6), slice(2, 12), slice(2, 14)), _box(slice(5, 8), slice(2, 12), slice(2, 14))
    distances = surfaces.surface_distances(first, second, spacing_mm=(3.0, 1.0, 1.0))
    assert surfaces.hausdorff_mm(distances, percent=100) == 6.0
    assert surfaces.surface_dice(distances, tolerance_mm=6.0) == 1.0
    assert 0 < surfaces.surface_dice(distances, tolerance_mm=1.0) < 1
    assert 0 < surfaces.mean_distance_mm(distances) < 6.0


def test_spacing_belongs_to_its_axis():
    first = _box(slice(3, 5), slice(3, 5), slice(3, 5))
    for axis, size_mm in enumerate((5.0, 0.7, 2.0)):
        shifted = np.roll(first, 4, axis)
        distances = surfaces.surface_distances(first, shifted, spacing_mm=(5.0, 0.7, 2.0))
        assert surfaces.hausdorff_mm(distances, percent=100) == pytest.approx(4 * size_mm)


def test_percentile_and_mean_weigh_elements_by_area():
    distances = surfaces.SurfaceDistances(
        true_to_pred_mm=np.array([4.0, 1.0]),
        areas_true_mm2=np.array([1.0, 3.0]),
        pred_to_true_mm=np.array([2.0]),
        areas_pred_mm2=np.array([4.0]),
    )
    # up to 1 mm lie 3 / 4 of the true surface, up to 4 mm all of it; the predicted surface lies at 2 mm
    assert surfaces.hausdorff_mm(distances, percent=75) == 2.0
    assert surfaces.hausdorff_mm(distances, percent=76) == 4.0
    # (4 * 1 + 1 * 3 + 2 * 4) / (1 + 3 + 4) = 15 / 8
    assert surfaces.mean_distance_mm(distances) == 15 / 8
    # within 1 mm: 3 of 8; within 2 mm: 3 + 4 of 8
    assert surfaces.surface_dice(distances, tolerance_mm=1.0) == 3 / 8
    assert surfaces.surface_dice(distances, tolerance_mm=2.0) == 7 / 8


def test_area_of_a_large_box_is_near_that_of_its_faces():
    mask = _box(slice(1, 31), slice(1, 41), slice(1, 51), shape=(32, 42, 52))
    distances = surfaces.surface_distances(mask, mask, spacing_mm=(1.0, 1.0, 1.0))
    faces_mm2 = 2 * (30 * 40 + 30 * 50 + 40 * 50)  # marching cubes cuts edges and corners
    assert distances.areas_true_mm2.sum() == pytest.approx(faces_mm2, rel=0.03)


def test_an_empty_mask_has_no_surface():
    mask = _box(slice(1, 2), slice(1, 2), slice(1, 2))
    with pytest.raises(ValueError, match="masks with 1 and 0 voxels"):
        surfaces.surface_distances(mask, np.zeros_like(mask), spacing_mm=(1, 1, 1))


@settings(max_examples=60)
@given(_masks.filter(np.any), _masks.filter(np.any), _spacings)
def test_agrees_with_deepminds_functions(mask_true, mask_pred, spacing_mm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scipy.ndimage.filters
        theirs = surface_distance.compute_surface_distances(mask_true, mask_pred, spacing_mm)
    ours = surfaces.surface_distances(mask_true, mask_pred, spacing_mm=spacing_mm)
    assert np.sort(ours.true_to_pred_mm) == pytest.approx(theirs["distances_gt_to_pred"])
    assert np.sort(ours.pred_to_true_mm) == pytest.approx(theirs["distances_pred_to_gt"])
    assert ours.areas_true_mm2.sum() == pytest.approx(theirs["surfel_areas_gt"].sum())
    # 0.99 mm is no distance between points of these grids, where rounding could decide
    assert surfaces.surface_dice(ours, tolerance_mm=0.99) == pytest.approx(
        surface_distance.compute_surface_dice_at_tolerance(theirs, 0.99)
    )
    true_to_pred_mm, pred_to_true_mm = surface_distance.compute_average_surface_distance(theirs)
    area_true, area_pred = ours.areas_true_mm2.sum(), ours.areas_pred_mm2.sum()
    pooled = (true_to_pred_mm * area_true + pred_to_true_mm * area_pred) / (area_true + area_pred)
    assert surfaces.mean_distance_mm(ours) == pytest.approx(pooled)


def test_hd95_agrees_with_deepminds_on_a_smooth_body():
    slices, rows, columns = np.ogrid[:30, :40, :40]
    true = ((slices - 15) / 9) ** 2 + ((rows - 20) / 14) ** 2 + ((columns - 20) / 12) ** 2 < 1
    pred = ((slices - 16) / 8) ** 2 + ((rows - 22) / 14) ** 2 + ((columns - 19) / 13) ** 2 < 1
    spacing_mm = (2.5, 0.8, 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = surface_distance.compute_surface_distances(true, pred, spacing_mm)
    ours = surfaces.surface_distances(true, pred, spacing_mm=spacing_mm)
    assert surfaces.hausdorff_mm(ours) == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95))


def test_slabs_give_the_same_surface(monkeypatch):
    rng = np.random.default_rng(0)
    true, pred = rng.random((2, 9, 7, 8)) < 0.4
    whole = surfaces.surface_distances(true, pred, spacing_mm=(3, 1, 2))
    for num_voxels in (1, 3 * 7 * 8):  # slabs of one and of three slices
        monkeypatch.setattr(surfaces, "_CHUNK_VOXELS", num_voxels)
        parts = surfaces.surface_distances(true, pred, spacing_mm=(3, 1, 2))
        for name, values in vars(whole).items():
            assert np.array_equal(getattr(parts, name), values)


def test_a_single_voxel():
    mask = _box(slice(5, 6), slice(5, 6), slice(5, 6))
    distances = surfaces.surface_distances(mask, mask, spacing_mm=(1.0, 1.0, 1.0))
    # eight corners, each cut by a triangle with sides sqrt(2) / 2: area sqrt(3) / 4 * 1 / 2
    assert distances.areas_true_mm2 == pytest.approx([math.sqrt(3) / 8] * 8)
    assert not distances.true_to_pred_mm.any()


def test_empty_space_is_left_out_but_gaps_stay():
    mask = np.zeros((9, 3, 5), bool)
    mask[[1, 2, 6], 1, 0] = mask[6, 1, 4] = True
    # slices 1, 2 and 6, and 3 and 7 after them; row 1, and 2 after it; columns 0 and 4, and 1 after 0
    assert [indices.tolist() for indices in surfaces.occupied(mask)] == [[1, 2, 3, 6, 7], [1, 2], [0, 1, 4]]
    assert all(not len(indices) for indices in surfaces.occupied(np.zeros((2, 3, 4), bool)))


def test_a_stray_voxel_far_away_keeps_its_distance():
    near, both = np.zeros((2, 40, 30, 20), bool)
    near[2:4, 2:4, 2:4] = True
    both |= near
    both[38, 28, 18] = True
    distances = surfaces.surface_distances(near, both, spacing_mm=(2.0, 1.0, 1.0))
    # its far corner (39, 29, 19) to the block's (4, 4, 4): 35 slices of 2 mm, 25 rows, 15 columns
    assert distances.pred_to_true_mm.max() == pytest.approx(math.sqrt(70**2 + 25**2 + 15**2))
    assert not distances.true_to_pred_mm.any()
