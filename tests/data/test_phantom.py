"""Phantom voxels: deterministic, in the house's axis order, and not to be solved by a threshold."""

import numpy as np
import pytest
from scipy import ndimage

from kits_ml import labels
from kits_ml.data import phantom

SHAPE = (128, 128)


@pytest.fixture(scope="module")
def cases():
    return [
        phantom.generate_case(seed=0, index=index, distribution="small", num_slices=24, shape=SHAPE)
        for index in range(8)
    ]


def test_same_arguments_same_case_and_neighbours_differ():
    first, again, other_index, other_seed = (
        phantom.generate_case(seed=seed, index=index, num_slices=4, shape=(64, 64))
        for seed, index in ((3, 5), (3, 5), (3, 6), (4, 5))
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label_map, again.label_map)
    assert first.description == again.description
    for other in (other_index, other_seed):
        assert (other.image != first.image).mean() > 0.3


def test_arrays_have_the_promised_types_and_ranges(cases):
    for case in cases:
        assert case.image.shape == case.label_map.shape == (24, *SHAPE)
        assert (case.image.dtype, case.label_map.dtype) == (np.int16, np.uint8)
        assert set(np.unique(case.label_map)) == {labels.BACKGROUND, labels.KIDNEY, labels.TUMOUR}
        assert case.image.min() >= case.description["hu_min"]
        assert case.image.max() <= case.description["hu_max"]
        # 128 columns see what 512 see, with pixels four times as large.
        assert case.spacing_mm[2] == pytest.approx(4 * case.description["spacing_xy_mm"])


def test_kidneys_lie_on_both_sides_behind_the_middle(cases):
    for case in cases:
        rows, columns = np.nonzero(case.label_map == labels.KIDNEY)[1:]
        right, left = columns < SHAPE[1] / 2, columns >= SHAPE[1] / 2
        voxel_ml = np.prod(case.spacing_mm) / 1000
        assert right.sum() * voxel_ml > 20
        assert left.sum() * voxel_ml > 20
        body_rows = np.nonzero(case.image[12] > -300)[0]
        assert rows.mean() > body_rows.min() + 0.4 * np.ptp(body_rows)


def test_liver_is_right_spine_is_behind_lungs_are_above():
    case = phantom.generate_case(seed=1, index=0, num_slices=70, shape=SHAPE)
    smooth = ndimage.uniform_filter(case.image.astype(np.float32), (1, 3, 3))
    kidney_slices = np.flatnonzero((case.label_map > 0).any((1, 2)))
    upper = smooth[kidney_slices[0] - 2]
    organ = (upper > 30) & (upper < 160)
    centre = np.nonzero(upper > -300)[1].mean()
    organ_columns = np.nonzero(ndimage.binary_erosion(organ, iterations=4))[1]
    # What survives erosion by 12 mm at this height is liver: low columns, the patient's right.
    assert (organ_columns < centre).mean() > 0.65
    bone = np.nonzero(smooth[kidney_slices.mean().astype(int)] > 300)
    body = np.nonzero(smooth[kidney_slices.mean().astype(int)] > -300)
    assert bone[0].mean() > body[0].mean()
    air = ndimage.binary_erosion((smooth > -950) & (smooth < -700), np.ones((1, 5, 5)))  # not the skin's edge
    assert air[:5].mean() > 5 * air[kidney_slices[-1] : kidney_slices[-1] + 5].mean()


def test_hu_means_are_those_drawn():
    for index in range(3):
        case = phantom.generate_case(seed=2, index=index, num_slices=40, shape=(256, 256))
        kidney_hu = case.image[case.label_map == labels.KIDNEY].mean()
        tumour_hu = case.image[case.label_map == labels.TUMOUR].mean()
        # Cysts, necrosis and edges move a mean; 20 HU is the distance between neighbouring KiTS19 quartiles.
        assert kidney_hu == pytest.approx(case.description["kidney_hu"], abs=20)
        assert tumour_hu == pytest.approx(case.description["tumour_hu"], abs=20)


def test_no_threshold_window_finds_the_tumour(cases):
    edges = np.arange(-100, 320, 10)
    total, tumour = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for case in cases:
        smooth = ndimage.median_filter(case.image, (1, 3, 3))  # without noise, to help the threshold
        total += np.histogram(smooth, edges)[0]
        tumour += np.histogram(smooth[case.label_map == labels.TUMOUR], edges)[0]
    num_tumour = sum((case.label_map == labels.TUMOUR).sum() for case in cases)
    best = max(
        2 * tumour[low:high].sum() / (total[low:high].sum() + num_tumour)
        for low in range(len(total))
        for high in range(low + 1, len(total) + 1)
    )
    assert best < 0.3


def test_tumour_overlaps_other_tissue(cases):
    shares = []
    for case in cases:
        low, high = np.percentile(case.image[case.label_map == labels.TUMOUR], [10, 90])
        elsewhere = case.image[case.label_map == labels.BACKGROUND]
        soft = (elsewhere > 0) & (elsewhere < 200)
        shares.append(((elsewhere >= low) & (elsewhere <= high) & soft).sum() / soft.sum())
    assert np.median(shares) > 0.3  # of all soft tissue has the tumour's HU


def test_thick_and_thin_slices_show_the_same_patient():
    thin, thick = (
        phantom.generate_case(seed=6, index=0, distribution="small", num_slices=n, shape=(64, 64)) for n in (120, 40)
    )
    assert thin.spacing_mm[0] * 120 == pytest.approx(thick.spacing_mm[0] * 40)
    for label in (labels.KIDNEY, labels.TUMOUR):
        volumes = [(case.label_map == label).sum() * np.prod(case.spacing_mm) for case in (thin, thick)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distribution": "kits23"}, "expected 'kits19' or 'small'"),
        ({"num_slices": 0}, "expected at least 1"),
        ({"shape": (4, 512)}, "expected at least 8"),
    ],
)
def test_bad_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom.generate_case(seed=0, index=0, **arguments)


def test_labels_are_soft_tissue_not_bone_or_air():
    # Among these 12 are tumours of up to a litre, which must go round the spine.
    for index in range(12):
        case = phantom.generate_case(seed=4, index=index, distribution="small", num_slices=20, shape=SHAPE)
        smooth = ndimage.median_filter(case.image, (1, 3, 3))
        labelled = smooth[case.label_map > 0]
        assert (labelled > 400).mean() < 0.002
        assert (labelled < -300).mean() < 0.002
