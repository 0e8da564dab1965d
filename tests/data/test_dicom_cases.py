"""A case whose image is a DICOM series is used as one whose image is a file."""

from pathlib import Path

import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, dicom, layouts, patients, slices, volumes
from kits_ml.errors import InputError
from tests.data.dicom_series import SHAPE, having, write_series


def _case(folder: Path, **options) -> tuple[cases.Case, volumes.Volume]:
    image = dicom.read_series(write_series(folder / "case_00000" / "imaging", **options))
    labels = (np.arange(image.array.size).reshape(SHAPE) % 3).astype(np.uint8)
    # labels in KiTS's axis order, the series in DICOM's: the same voxels
    geometry = volumes.Geometry(shape=SHAPE, affine=image.geometry.house_affine)
    volumes.write_label_map(folder / "case_00000" / "segmentation.nii.gz", labels, geometry)
    (case,) = cases.find_cases(folder)
    return case, image


def test_a_case_may_hold_a_series(tmp_path):
    case, image = _case(tmp_path)
    assert case.image_path == tmp_path / "case_00000" / "imaging"
    found, label_map = cases.load_case(case)
    np.testing.assert_array_equal(found.array, image.array)
    np.testing.assert_array_equal(label_map.array.ravel()[:4], [0, 1, 2, 0])


def test_a_series_is_prepared_as_its_nifti_is(tmp_path):
    case, image = _case(tmp_path)
    volumes.write_image(tmp_path / "nifti" / "imaging.nii.gz", image.array, image.geometry)
    twin = cases.Case(name="twin", image_path=tmp_path / "nifti" / "imaging.nii.gz", labels_path=case.labels_path)
    settings = PreprocessingSettings(foreground_hu=-1100.0)
    for one in (case, twin):
        note = slices.prepare_case(one, digest=one.digest(), store=tmp_path / one.name / "store", settings=settings)
        assert note == ""
    from_dicom, from_nifti = (sorted((tmp_path / one.name / "store").rglob("*.png")) for one in (case, twin))
    assert len(from_dicom) == 2 * len(image.array)
    assert [path.read_bytes() for path in from_dicom] == [path.read_bytes() for path in from_nifti]


@pytest.mark.parametrize("slope", [0.5, 20])  # fractions of HU, and HU beyond int16
def test_hu_that_int16_does_not_hold_are_exported_as_they_are(slope, tmp_path):
    case, image = _case(tmp_path / "source", change=having("RescaleSlope", slope))
    assert image.array.dtype == np.float32
    layouts.write_case(case, folder=tmp_path / "exported", layout="kits19", held_out=False)
    (exported,) = cases.find_cases(tmp_path / "exported")
    found, _ = cases.load_case(exported)
    np.testing.assert_array_equal(found.array, image.array)
    assert patients.known_again(found.array, patients.slice_digests(image.array))


def test_a_cases_digest_sees_every_slice(tmp_path):
    case, _ = _case(tmp_path)
    before = case.digest()
    assert case.digest() == before
    path = case.image_path / "97.dcm"
    path.write_bytes(path.read_bytes()[:-2] + b"\1\2")
    assert case.digest() != before


def test_a_case_with_two_images_or_other_labels_is_refused(tmp_path):
    case, image = _case(tmp_path)
    shifted = image.geometry.house_affine.copy()
    shifted[0, 3] += 5
    geometry = volumes.Geometry(shape=SHAPE, affine=shifted)
    volumes.write_label_map(case.labels_path, np.zeros(SHAPE, np.uint8), geometry)
    with pytest.raises(InputError, match=r"segmentation\.nii\.gz: affine .* as in imaging"):
        cases.load_case(case)
    volumes.write_image(tmp_path / "case_00000" / "imaging.nii.gz", image.array, image.geometry)
    (case,) = cases.find_cases(tmp_path)
    with pytest.raises(InputError, match=r"imaging\.nii\.gz: there is a folder imaging/ as well, expected one image"):
        cases.load_case(case)
