"""A DICOM series is read as it lies in the patient."""

import itertools
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest

from kits_ml.data import dicom, volumes
from tests.data.dicom_series import ACQUISITIONS, SHAPE, SPACING_MM, ct_slice, is_refused, stored_values, write_series


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_every_acquisition_is_read_as_it_lies_in_the_patient(name, tmp_path):
    volume = dicom.read_series(write_series(tmp_path / "ct", directions=ACQUISITIONS[name]))
    assert volume.array.dtype == np.int16
    assert nib.aff2axcodes(volume.geometry.house_affine) == ("I", "P", "L")
    assert volume.array.shape == volume.geometry.house_shape
    # each voxel of each file, where PS3.3 C.7.6.2.1.1 puts it (LPS), must be found at that place (RAS)
    to_voxel = np.linalg.inv(volume.geometry.house_affine)
    for path in (tmp_path / "ct").iterdir():
        ds = pydicom.dcmread(path)
        along, down = np.reshape(np.array(ds.ImageOrientationPatient, float), (2, 3))
        for row, column in itertools.product(range(ds.Rows), range(ds.Columns)):
            lps = np.array(ds.ImagePositionPatient, float) + along * column * 0.8 + down * row * 0.7
            index = to_voxel @ [-lps[0], -lps[1], lps[2], 1]
            np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
            assert volume.array[tuple(np.rint(index[:3]).astype(int))] == ds.pixel_array[row, column] - 1024.0


@pytest.mark.parametrize(
    ("name", "affine"),
    [
        # columns go to the left, -x in RAS; rows to the back, -y; slices up; LPS (-10, -20, -30) is RAS (10, 20, -30)
        ("axial", [[-0.8, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 3, -30]]),
        # rows go down, -z; left x down is back: (1, 0, 0) x (0, 0, -1) = (0, 1, 0) in LPS, -y in RAS
        ("coronal", [[-0.8, 0, 0, 10], [0, 0, -3, 20], [0, -0.7, 0, -30]]),
        # columns go to the back, rows down: (0, 1, 0) x (0, 0, -1) = (-1, 0, 0) in LPS, to the right, +x in RAS
        ("sagittal", [[0, 0, 3, 10], [-0.8, 0, 0, 20], [0, -0.7, 0, -30]]),
    ],
)
def test_the_grid_is_ras(name, affine, tmp_path):
    geometry = dicom.read_series(write_series(tmp_path / "ct", directions=ACQUISITIONS[name])).geometry
    assert geometry.shape == (6, 5, 4)
    np.testing.assert_allclose(geometry.affine, [*affine, [0, 0, 0, 1]], atol=1e-12)


def test_an_axial_series_is_in_kits_order(tmp_path):
    volume = dicom.read_series(write_series(tmp_path / "ct"))
    # rows to posterior and columns to left as stored; the first slice is the highest
    np.testing.assert_array_equal(volume.array, stored_values()[::-1] - 1024)
    np.testing.assert_allclose(volume.spacing_mm, SPACING_MM)
    assert volume.note == ""


def test_a_label_map_goes_back_to_the_series_grid(tmp_path):
    volume = dicom.read_series(write_series(tmp_path / "ct", directions=ACQUISITIONS["coronal"]))
    label_map = (volume.array % 3).astype(np.uint8)
    volumes.write_label_map(tmp_path / "out.nii.gz", label_map, volume.geometry)
    back = volumes.read_label_map(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(back.array, label_map)
    assert volumes.same_grid(back.geometry, volume.geometry)


def test_names_and_numbers_of_the_slices_mean_nothing(tmp_path):
    expected = dicom.read_series(write_series(tmp_path / "ct"))
    for number, path in enumerate(sorted((tmp_path / "ct").iterdir())):
        new = tmp_path / "other" / ("a" if number % 2 else "b") / (f"IM{number}" if number < 2 else f"1.2.{number}")
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, new)
    for name in ("DICOMDIR", ".hidden.dcm", ".trash/1.dcm", "a/notes.txt"):
        (tmp_path / "other" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes(b"no slice")
    volume = dicom.read_series(tmp_path / "other")
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.geometry.affine, expected.geometry.affine)


def test_a_single_slice_is_as_deep_as_it_is_thick(tmp_path):
    volume = dicom.read_series(write_series(tmp_path / "ct", shape=(1, 5, 6)))
    assert volume.spacing_mm[0] == 3.0
    assert "a single slice; its thickness of 3 mm is taken for its depth" in volume.note

    def change(ds, index):
        ds.SliceThickness = None

    is_refused(write_series(tmp_path / "ct", shape=(1, 5, 6), change=change), "a single slice without SliceThickness")


def test_companions_and_localizers_are_left_out_and_said_so(tmp_path):
    folder = write_series(tmp_path / "ct")
    scout = ct_slice(stored_values()[0], 9, directions=ACQUISITIONS["coronal"])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(folder / "scout.dcm", enforce_file_format=True)
    report = ct_slice(stored_values()[0], 10)
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.4"
    del report.PixelData, report.Rows
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    volume = dicom.read_series(folder)
    assert volume.array.shape == SHAPE
    assert volume.note == f"{folder}: left out 1 SR, 1 localizer"
    for path in folder.iterdir():
        if path.stem.isdigit():
            path.unlink()
    is_refused(folder, "no CT slices, only 1 SR, 1 localizer; expected the slices of one CT series")


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    def change(ds, index):
        ds.ImagePositionPatient = [round(float(value), 1) for value in ds.ImagePositionPatient]

    # 0.625 a slice: -30, -29.4, -28.8 (-28.75), -28.1: gaps of 0.6 and 0.7
    volume = dicom.read_series(write_series(tmp_path / "ct", change=change, spacing_mm=(0.625, 0.7, 0.8)))
    np.testing.assert_allclose(volume.spacing_mm[0], 0.625, atol=0.02)
