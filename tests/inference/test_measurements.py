"""Volumes, diameters and sides of known shapes."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from kits_ml.config import QualitySettings
from kits_ml.inference import pieces
from kits_ml.inference.measurements import body_middle, measure
from kits_ml.inference.shapes import largest_diameter
from kits_ml.inference.uncertainty import UncertaintyMeter

SETTINGS = QualitySettings(fragment_kidney_ml=0.5, fragment_tumour_ml=0.05)


def _empty(shape=(30, 40, 80)) -> tuple[np.ndarray, np.ndarray]:
    """A body in air with its middle at column 39.5, and a label map without labels."""
    image = np.full(shape, -1000, np.int16)
    image[:, 5:35, 10:70] = 40
    return image, np.zeros(shape, np.uint8)


def _measure(image, label_map, *, spacing_mm=(1.0, 1.0, 1.0), **options):
    return measure(image, label_map, spacing_mm=spacing_mm, **{"settings": SETTINGS, **options})


def test_a_cube_in_millilitres_and_millimetres():
    image, label_map = _empty()
    label_map[10:20, 10:20, 15:25] = 1
    image[label_map == 1] = 150
    (kidney,) = _measure(image, label_map, spacing_mm=(2.0, 1.0, 1.0)).kidneys
    assert kidney.volume_ml == pytest.approx(2.0)  # 10 x 10 x 10 voxels of 2 mm3
    # from the middle of one end face's edge to the opposite one's: 10 steps of 2, 9 and 9 of 1
    assert kidney.length_mm == pytest.approx(math.sqrt(20**2 + 9**2 + 9**2))
    assert kidney.mean_hu == 150
    assert kidney.side == "right"  # columns run to the left
    assert kidney.centre == (14, 14, 20)  # 14.5 and 19.5, rounded to even
    assert (kidney.tumour_ml, kidney.confidence, kidney.at_end) == (0, None, False)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (0.5, 0.7, 0.7)])
def test_the_diameters_of_an_ellipsoid(spacing_mm):
    axes_mm = (50.0, 24.0, 36.0)  # whole lengths along slices, rows and columns
    shape = tuple(math.ceil(length / size) + 4 for length, size in zip(axes_mm, spacing_mm, strict=True))
    places = np.meshgrid(
        *((np.arange(num) - (num - 1) / 2) * size for num, size in zip(shape, spacing_mm, strict=True)), indexing="ij"
    )
    label_map = 2 * (sum((2 * p / a) ** 2 for p, a in zip(places, axes_mm, strict=True)) <= 1).astype(np.uint8)
    (tumour,) = _measure(np.zeros(shape, np.int16), label_map, spacing_mm=spacing_mm).tumours
    assert tumour.diameter_mm == pytest.approx(50, abs=max(spacing_mm))
    assert tumour.axial_diameter_mm == pytest.approx(36, abs=spacing_mm[2])
    assert tumour.axial_slice == pytest.approx((shape[0] - 1) / 2, abs=3)
    assert tumour.volume_ml == pytest.approx(math.pi / 6 * 50 * 24 * 36 / 1000, rel=0.02)  # 22.6 ml


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_diameter_is_that_of_all_surface_points(ndim):
    rng = np.random.default_rng(ndim)
    for _ in range(20):
        mask = rng.random(tuple(rng.integers(1, 8, ndim))) < rng.choice([0.1, 0.5])
        mask.flat[rng.integers(mask.size)] = True
        spacing_mm = rng.uniform(0.5, 3, ndim)
        around = np.pad(mask, 1)
        surface = [
            np.argwhere(np.diff(around, axis=axis)) + 0.5 * np.eye(ndim)[axis] for axis in range(ndim)
        ]  # midway between a voxel and the next
        expected = pdist(np.concatenate(surface) * spacing_mm).max()
        assert largest_diameter(mask, spacing_mm) == pytest.approx(expected, rel=1e-12)


def _in_whole(image, label_map, spacing_mm, meter):
    """Volume, centre, length, HU and confidence of each tumour, none too small, and its kidney's volume."""
    wholes, _ = ndimage.label(label_map > 0, np.ones((3, 3, 3)))
    numbers, count = ndimage.label(label_map == 2, np.ones((3, 3, 3)))
    found = []
    for mask in (numbers == number for number in range(1, count + 1)):
        whole = wholes == wholes[mask][0]
        voxel_ml = math.prod(spacing_mm) / 1000
        axial_mm = [largest_diameter(one, spacing_mm[1:]) for one in mask if one.any()]
        found.append(
            (
                mask.sum() * voxel_ml,
                [round(place) for place in np.argwhere(mask).mean(axis=0)],
                largest_diameter(mask, spacing_mm),
                max(axial_mm),
                image[mask].mean(),
                meter.confidence[mask].mean() / 255,
                whole.sum() * voxel_ml if (label_map[whole] == 1).any() else None,
            )
        )
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("slab_voxels", [1, 600, 1 << 23])
def test_slabs_give_what_the_whole_gives(slab_voxels, monkeypatch):
    monkeypatch.setattr(pieces, "SLAB_VOXELS", slab_voxels)
    spacing_mm = (2.0, 0.7, 0.8)
    every = QualitySettings(fragment_kidney_ml=0, fragment_tumour_ml=0)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(2, 14, 3))
        image = rng.integers(-100, 300, shape).astype(np.int16)
        label_map = rng.choice(3, shape, p=[0.8, 0.1, 0.1]).astype(np.uint8)
        meter = UncertaintyMeter(shape)
        meter.confidence[:] = rng.integers(85, 256, shape)
        found = _measure(image, label_map, spacing_mm=spacing_mm, uncertainty=meter, settings=every)
        expected = _in_whole(image, label_map, spacing_mm, meter)
        assert len(found.tumours) == len(expected)
        for one, (volume_ml, centre, diameter_mm, axial_mm, hu, confidence, kidney_ml) in zip(
            found.tumours, expected, strict=True
        ):
            assert list(one.centre) == centre
            assert (one.volume_ml, one.diameter_mm, one.axial_diameter_mm) == pytest.approx(
                (volume_ml, diameter_mm, axial_mm)
            )
            assert (one.mean_hu, one.confidence) == pytest.approx((hu, confidence))
            assert (None if one.kidney is None else found.kidneys[one.kidney].volume_ml) == pytest.approx(kidney_ml)
        kidney = label_map == 1
        weights = [(one.volume_ml - one.tumour_ml) / (math.prod(spacing_mm) / 1000) for one in found.kidneys]
        assert sum(weights) == pytest.approx(kidney.sum())
        assert np.average([one.mean_hu for one in found.kidneys], weights=weights) == pytest.approx(
            image[kidney].mean()
        )


def test_memory_is_that_of_slabs(monkeypatch):
    """Labels all over the scan, in one piece and in many: three bytes a voxel are more than enough."""
    monkeypatch.setattr(pieces, "SLAB_VOXELS", 1 << 16)
    coarse = np.random.default_rng(0).random((12, 16, 16))
    label_map = np.kron(1 * (coarse < 0.3) + (coarse < 0.01), np.ones((8, 8, 8))).astype(np.uint8)
    image = np.zeros(label_map.shape, np.int16)
    meter = UncertaintyMeter(label_map.shape)
    tracemalloc.start()
    try:
        found = _measure(image, label_map, uncertainty=meter)
        meter.means(label_map, 1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.kidneys
    assert len(found.tumours) > 10
    assert peak_bytes < 3 * label_map.size, peak_bytes / label_map.size


def test_a_slanted_rod_is_as_long_as_it_is():
    mask = np.zeros((40, 40, 40), bool)
    for step in range(31):
        mask[step + 2, step + 2, step + 2] = True
    # 30 steps along the diagonal, and the outermost faces half a voxel further along one axis at either end
    assert largest_diameter(mask, (1, 1, 1)) == pytest.approx(math.sqrt(31**2 + 30**2 + 30**2), abs=0.6)


def test_a_single_voxel_is_as_long_as_its_longest_edge():
    assert largest_diameter(np.ones((1, 1, 1), bool), (3, 0.7, 0.8)) == pytest.approx(3)
    assert largest_diameter(np.ones((1, 1), bool), (0.7, 0.8)) == pytest.approx(0.8)


def test_a_tumour_belongs_to_the_kidney_that_it_touches():
    image, label_map = _empty()
    label_map[10:20, 10:20, 15:25] = 1
    label_map[10:20, 10:20, 55:65] = 1
    label_map[20:24, 20:24, 65:70] = 2  # touches the second by a corner
    label_map[2:6, 30:34, 40:44] = 2  # touches none
    found = _measure(image, label_map)
    assert [one.side for one in found.kidneys] == ["right", "left"]
    assert [one.volume_ml for one in found.kidneys] == pytest.approx([1.0, 1.08])
    assert [one.tumour_ml for one in found.kidneys] == pytest.approx([0, 0.08])
    assert [(one.kidney, one.side) for one in found.tumours] == [(1, "left"), (None, "left")]
    assert [one.volume_ml for one in found.tumours] == pytest.approx([0.08, 0.064])


def test_small_pieces_are_fragments():
    image, label_map = _empty()
    label_map[10:20, 10:20, 15:25] = 1
    label_map[2:4, 30:32, 50:52] = 1  # 0.008 ml
    label_map[25, 30, 50] = 2
    found = _measure(image, label_map)
    assert len(found.kidneys) == 1
    assert not found.tumours
    assert [(one.label, one.volume_ml, one.centre) for one in found.fragments] == [
        ("kidney", pytest.approx(0.008), (2, 30, 50)),
        ("tumour", pytest.approx(0.001), (25, 30, 50)),
    ]


def test_tumour_alone_is_no_kidney():
    image, label_map = _empty()
    label_map[5:25, 10:30, 15:35] = 2
    found = _measure(image, label_map)
    assert not found.kidneys
    assert found.tumours[0].kidney is None
    assert found.tumours[0].side == "right"
    label_map[5, 10:30, 15:35] = 1  # a rim of 0.4 ml, less than the half that makes a kidney
    found = _measure(image, label_map)
    assert not found.kidneys
    assert found.tumours[0].kidney is None
    assert [one.volume_ml for one in found.fragments] == [pytest.approx(0.4)]


def test_nothing():
    found = _measure(*_empty())
    assert (found.kidneys, found.tumours, found.fragments) == ((), (), ())


def test_sides_are_the_bodys_not_the_scans():
    image, label_map = _empty()
    image[:] = -1000
    image[:, 5:35, 30:78] = 40  # the body's middle is at column 53.5, the scan's at 39.5
    label_map[10:20, 10:20, 42:50] = 1
    assert body_middle(image) == pytest.approx(53.5, abs=1)
    assert _measure(image, label_map).kidneys[0].side == "right"


@pytest.mark.parametrize(("column_mm", "sides"), [(3.0, ["right", "left"]), (1.0, ["left", "left"])])
def test_two_that_lie_apart_are_a_right_and_a_left_one(column_mm, sides):
    image, label_map = _empty()
    label_map[10:20, 10:20, 41:46] = 1
    label_map[10:20, 10:20, 63:68] = 1  # 22 columns further: 66 or 22 mm
    found = _measure(image, label_map, spacing_mm=(1.0, 1.0, column_mm))
    assert [one.side for one in found.kidneys] == sides


def test_a_horseshoe_lies_on_both_sides():
    image, label_map = _empty()
    label_map[10:20, 10:20, 25:50] = 1  # 15 of 25 columns right of 39.5, 10 left
    assert _measure(image, label_map).kidneys[0].side == "both"
    label_map[:] = 0
    label_map[10:20, 10:20, 20:42] = 1  # 2 of 22 beyond the middle: less than a fifth
    assert _measure(image, label_map).kidneys[0].side == "right"


def test_a_kidney_at_the_scans_end():
    image, label_map = _empty()
    label_map[20:30, 10:20, 15:25] = 1
    label_map[1:11, 10:20, 55:65] = 1
    assert [one.at_end for one in _measure(image, label_map).kidneys] == [True, False]


def test_confidence_is_of_each_piece():
    image, label_map = _empty()
    label_map[10:20, 10:20, 15:25] = 1
    label_map[10:20, 10:20, 55:65] = 1
    label_map[12:16, 12:16, 57:61] = 2
    meter = UncertaintyMeter(label_map.shape)
    meter.confidence[..., 40:] = 153  # 0.6
    meter.confidence[label_map == 2] = 102  # 0.4
    found = _measure(image, label_map, uncertainty=meter)
    assert [one.confidence for one in found.kidneys] == pytest.approx([1.0, 0.6])
    assert found.tumours[0].confidence == pytest.approx(0.4)
