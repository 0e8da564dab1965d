import dataclasses
import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from kits_ml.data import volumes
from kits_ml.data.cases import Case
from kits_ml.data.fingerprint import COLUMNS, HISTOGRAM_EDGES_HU, Fingerprint, fingerprint, fingerprint_case
from kits_ml.errors import InputError


def _case(folder) -> Case:
    return Case(name=folder.name, image_path=folder / "imaging.nii.gz", labels_path=folder / "segmentation.nii.gz")


def _volume(array, spacing_mm=(3.0, 0.8, 0.8)) -> volumes.Volume:
    return volumes.Volume(array=array, geometry=volumes.kits_geometry(array.shape, spacing_mm), path="made up")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(-1024, 1500, (5, 16, 12)).astype(np.int16)


def test_numbers_by_hand():
    image = np.full((4, 10, 10), -1000, np.int16)
    label_map = np.zeros(image.shape, np.uint8)
    label_map[1:3, :5] = 1  # 2 x 50 voxels
    label_map[2, 0] = 2  # 10 of them
    image[label_map == 1] = 100
    image[label_map == 2] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    one = fingerprint("case_00000", _volume(image, (5.0, 2.0, 1.0)), _volume(label_map, (5.0, 2.0, 1.0)))
    assert (one.slices, one.rows, one.columns) == (4, 10, 10)
    assert (one.slice_spacing_mm, one.row_spacing_mm, one.column_spacing_mm) == (5.0, 2.0, 1.0)
    assert (one.orientation, one.tilt_degrees, one.shear_degrees) == ("IPL", 0, 0)
    # a voxel is 5 x 2 x 1 mm = 0.01 ml; the kidney includes its tumour
    assert one.kidney_ml == pytest.approx(1.0)
    assert one.tumour_ml == pytest.approx(0.1)
    assert (one.kidney_slices, one.tumour_slices, one.kidney_at_end) == (2, 1, False)
    assert (one.hu.min, one.hu.max) == (-1000, 100)
    assert one.hu.mean == pytest.approx((300 * -1000 + 90 * 100 + 550) / 400)
    assert (one.kidney_hu.min, one.kidney_hu.p50, one.kidney_hu.mean) == (100, 100, 100)
    assert one.tumour_hu.mean == 55
    # 5 of the 10 tumour voxels do not exceed 50; half a per cent of them needs one voxel
    assert (one.tumour_hu.p50, one.tumour_hu.p00_5, one.tumour_hu.p99_5) == (50, 10, 100)
    bins = dict(zip(HISTOGRAM_EDGES_HU[:-1], one.kidney_hu.counts, strict=True))
    assert bins[100] == 90
    assert sum(bins.values()) == 90


def test_percentiles_are_numpys(image):
    one = fingerprint("a", _volume(image), None)
    for name, percent in (("p00_5", 0.5), ("p05", 5), ("p50", 50), ("p95", 95), ("p99_5", 99.5)):
        assert getattr(one.hu, name) == np.percentile(image, percent, method="inverted_cdf")


def test_fractions_keep_exact_extremes(image):
    fractions = image.astype(np.float32) + np.float32(0.25)
    one = fingerprint("a", _volume(fractions), None)
    assert not one.whole_hu
    assert one.hu.min == fractions.min()
    assert one.hu.mean == pytest.approx(fractions.mean(dtype=np.float64))
    assert abs(one.hu.p50 - np.percentile(fractions, 50, method="inverted_cdf")) <= 1


def test_values_beyond_int16_are_kept_as_extremes(image):
    image = image.astype(np.float32)
    image[0, 0, 0] = 70000
    one = fingerprint("a", _volume(image), None)
    assert one.hu.max == 70000
    assert one.whole_hu


def test_without_labels(make_case, tmp_path):
    folder = make_case(tmp_path, "case_00210")
    (folder / "segmentation.nii.gz").unlink()
    one = fingerprint_case(_case(folder))
    assert not one.has_labels
    assert one.kidney_hu is None
    assert one.to_row()["kidney_hu_mean"] == ""


def test_without_image(make_case, tmp_path):
    folder = make_case(tmp_path, "case_00000")
    (folder / "imaging.nii.gz").unlink()
    with pytest.raises(InputError, match=r"imaging.nii.gz: no such file; expected the image of case_00000"):
        fingerprint_case(_case(folder))


def test_digest_is_of_the_voxels(image, tmp_path):
    """The same voxels: compressed otherwise, in another orientation, as floats."""
    folder = tmp_path / "a"
    volumes.write_image(folder / "imaging.nii.gz", image, volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8)))
    digest = fingerprint_case(_case(folder)).voxels_digest
    stored = nib.load(folder / "imaging.nii.gz")
    ras = nib.as_closest_canonical(stored)
    as_floats = nib.Nifti1Image(np.asarray(ras.dataobj, np.float64), ras.affine)
    (tmp_path / "b").mkdir()
    nib.save(as_floats, tmp_path / "b" / "imaging.nii")
    (tmp_path / "b" / "imaging.nii.gz").write_bytes(gzip.compress((tmp_path / "b" / "imaging.nii").read_bytes(), 1))
    other = fingerprint_case(_case(tmp_path / "b"))
    assert other.voxels_digest == digest
    assert (other.orientation, other.image_dtype) == ("RAS", "float64")
    image[2, 3, 4] += 1
    assert fingerprint("c", _volume(image), None).voxels_digest != digest


def test_shear_and_tilt(image):
    geometry = volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8))
    sheared = geometry.affine.copy()
    sheared[:3, 0] = 3 * np.array([0, np.sin(np.radians(10)), -np.cos(np.radians(10))])  # a gantry tilt of 10 degrees
    volume = volumes.Volume(array=image, geometry=dataclasses.replace(geometry, affine=sheared), path="made up")
    one = fingerprint("a", volume, None)
    assert one.shear_degrees == pytest.approx(10)
    assert one.tilt_degrees == pytest.approx(10)


def test_goes_through_json_and_csv(make_case, tmp_path):
    one = fingerprint_case(_case(make_case(tmp_path, "case_00000")))
    assert Fingerprint.from_dict(json.loads(json.dumps(dataclasses.asdict(one)))) == one
    assert set(one.to_row()) == set(COLUMNS)


def test_a_real_case_has_the_published_numbers(real_data):
    """case_00000's slice of KiTS19: its spacing, and its labelled pixels by the folder's own index."""
    one = fingerprint_case(_case(real_data / "kits-thin" / "case_00000"))
    assert one.slices == 1
    assert one.slice_spacing_mm == pytest.approx(0.5)
    voxel_ml = 0.5 * 0.919922**2 / 1000
    assert one.kidney_ml == pytest.approx((2423 + 349) * voxel_ml, rel=1e-4)  # kidney_px is without tumour
    assert one.tumour_ml == pytest.approx(349 * voxel_ml, rel=1e-4)
