"""What is no whole, straight, even CT series is refused by name, in one line."""

import contextlib
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from kits_ml.data import dicom, images
from kits_ml.errors import InputError
from tests.data.dicom_series import SHAPE, ct_slice, having, is_refused, write_series


def _second_series(ds, index):
    if index >= 3:
        ds.SeriesInstanceUID, ds.SeriesDescription = "1.2.9", "abdomen\narterial"


def _without(keyword):
    def change(ds, index):
        if index == 2:
            delattr(ds, keyword)

    return change


def _moved(offsets):
    """Moves slices along z, or along each axis."""

    def change(ds, index):
        offset = np.broadcast_to(offsets[index], 3) * ((0, 0, 1) if np.isscalar(offsets[index]) else 1)
        ds.ImagePositionPatient = [*(np.array(ds.ImagePositionPatient, float) + offset)]

    return change


def _text_value(keyword, text):
    def change(ds, index):
        with pydicom.config.disable_value_validation():
            setattr(ds, keyword, None)
            ds[keyword]._value = text

    return change


REFUSALS = {
    "two series": (
        _second_series,
        r"2 series \(3 CT slices 'abdomen venous' 1\.2\.3 from 97\.dcm; 1 CT slice 'abdomen arterial' 1\.2\.9 from "
        r"96\.dcm\), expected one; give a folder that holds only the wanted one",
    ),
    "no CT": (having("Modality", "MR"), r"96\.dcm: Modality MR, expected CT"),
    "all localizers": (having("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "no CT slices, only 4 localizer"),
    "one missing": (
        lambda ds, index: index == 2,
        r"1 slice is missing, between -27\.00 and -21\.00 mm; expected a slice every 3 mm",
    ),
    "duplicates": (
        _moved([0, 0, 0, -3]),
        r"1 of 4 slices at the place of another one \(first 96\.dcm and 97\.dcm at -24\.00 mm\)",
    ),
    "two phases": (_moved([0, -3, 0, -3]), "2 of 4 slices at the place of another one"),
    "uneven": (_moved([0, 0, 0.4, 0]), r"uneven slice spacing, 2\.600 to 3\.400 mm; .* more than 0\.1 mm off"),
    "two spacings": (_moved([0, 0, 1.3, 2.6]), r"uneven slice spacing, 3\.000 to 4\.300 mm"),
    # 3 mm up and 0.6 mm to the back a slice: atan(0.2) = 11.3 degrees
    "tilt": (_moved([(0, 0.6 * i, 0) for i in range(4)]), r"gantry tilt, the slices are stacked 11\.3 degrees off"),
    "tilt tag": (having("GantryDetectorTilt", -12.5), r"gantry tilt of -12\.5 degrees \(GantryDetectorTilt in 9"),
    "shift": (_moved([0, 0, (5, 0, 0), 0]), r"97\.dcm: shifted by 5\.00 mm within its plane"),
    "pixel spacing": (
        having("PixelSpacing", [0.7, 0.9], only=1),
        r"98\.dcm: PixelSpacing \[0\.7, 0\.9\] mm, expected PixelSpacing \[0\.7, 0\.8\] mm as in 96\.dcm",
    ),
    "orientation": (
        having("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], only=1),
        r"98\.dcm: ImageOrientationPatient \[1, 0, 0, 0, 0, -1\], expected .* as in 96\.dcm",
    ),
    "skew orientation": (having("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "expected two unit vectors at right"),
    "nan spacing": (_text_value("PixelSpacing", "nan\\nan"), r"PixelSpacing \[nan, nan\], expected 2 finite"),
    "no number": (_text_value("PixelSpacing", "a\\b"), "PixelSpacing"),
    "zero spacing": (having("PixelSpacing", [0, 0.8]), r"5 x 6 pixels of \[0, 0\.8\] mm, expected positive numbers"),
    "one number": (having("PixelSpacing", [0.8]), r"PixelSpacing \[0\.8\], expected 2 finite numbers"),
    "no rescale": (_without("RescaleIntercept"), r"97\.dcm: no RescaleIntercept"),
    "zero slope": (having("RescaleSlope", 0), "RescaleSlope 0, expected"),
    "no position": (_without("ImagePositionPatient"), r"97\.dcm: no ImagePositionPatient"),
    "no pixels": (_without("PixelData"), r"97\.dcm: truncated or damaged pixels"),
    "short pixels": (having("PixelData", bytes(20), only=1), r"98\.dcm: truncated or damaged pixels"),
    "no HU": (having("RescaleType", "Z_EFF"), "RescaleType Z_EFF, expected HU"),
    "colour": (having("SamplesPerPixel", 3), "3 samples a pixel"),
    "frames": (
        having("NumberOfFrames", 4),
        r"4 frames in one file \(enhanced multi-frame\); expected one slice a file",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name, tmp_path):
    change, message = REFUSALS[name]
    is_refused(write_series(tmp_path / "ct", change=change), message)


def test_other_sizes_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    ct_slice(np.zeros((5, 7), np.int16), 1).save_as(folder / "98.dcm", enforce_file_format=True)
    is_refused(folder, r"98\.dcm: 5 rows x 7 columns, expected 5 rows x 6 columns as in 96\.dcm")


def test_folders_without_slices(tmp_path):
    (tmp_path / "ct").mkdir()
    is_refused(tmp_path / "ct", "no DICOM files; expected a folder with the slices of one CT series")
    (tmp_path / "ct" / "scan.nii.gz").write_bytes(b"")
    is_refused(tmp_path / "ct", r"no DICOM among its 1 files \(scan\.nii\.gz\)")
    for content in (b"", b"\0" * 200, b"some text that is long enough" * 20):
        (tmp_path / "ct" / "IM1").write_bytes(content)
        is_refused(tmp_path / "ct", r"IM1: not a (readable )?DICOM file")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.95])
def test_truncated_slices(keep, tmp_path):
    folder = write_series(tmp_path / "ct")
    whole = (folder / "97.dcm").read_bytes()
    (folder / "97.dcm").write_bytes(whole[: int(keep * len(whole))])
    is_refused(folder, "97")


def test_damaged_slices_never_raise_anything_else(tmp_path):
    folder = write_series(tmp_path / "ct")
    whole = (folder / "97.dcm").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(128, len(whole), 4):
            damaged[place] = rng.integers(256)
        (folder / "97.dcm").write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            dicom.read_series(folder)


SHIPPED = {
    "CT_small.dcm": None,
    "MR_small.dcm": "Modality MR, expected CT",
    "rtdose.dcm": "no CT slices, only 1 RTDOSE",
    "rtstruct.dcm": "no CT slices, only 1 RTSTRUCT",
    "test-SR.dcm": "no CT slices, only 1 SR",
    "liver_1frame.dcm": "no CT slices, only 1 SEG",
    "SC_rgb_rle.dcm": "Modality OT, expected CT",
    "waveform_ecg.dcm": "no CT slices, only 1 ECG",
    "no_meta.dcm": "not a DICOM file",
    "MR_truncated.dcm": "Modality MR, expected CT",
    "badVR.dcm": "no CT slices, only 1 RTDOSE",
    "zipMR.gz": "no DICOM among its 1 files",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_files_that_come_with_pydicom(name, tmp_path):
    (tmp_path / "ct").mkdir()
    shutil.copy(get_testdata_file(name, download=False), tmp_path / "ct")
    if SHIPPED[name]:
        is_refused(tmp_path / "ct", SHIPPED[name])
        return
    volume = dicom.read_series(tmp_path / "ct")
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    assert (ds.PixelSpacing, ds.SliceThickness) == ([0.661468, 0.661468], 5)
    np.testing.assert_allclose(volume.spacing_mm, (5, 0.661468, 0.661468))
    np.testing.assert_array_equal(volume.array, ds.pixel_array[None].astype(int) - 1024)


def test_a_single_dicom_file_is_no_scan(tmp_path):
    write_series(tmp_path / "ct")
    with pytest.raises(InputError, match=r"99\.dcm: a single DICOM file; expected the folder that holds its series"):
        images.read_image(tmp_path / "ct" / "99.dcm")
    assert images.read_image(tmp_path / "ct").array.shape == SHAPE
