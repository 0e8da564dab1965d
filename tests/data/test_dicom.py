"""A DICOM series is read as it lies in the patient; what is no whole, straight, even CT series is refused by name."""

import contextlib
import itertools
import shutil
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import pixels, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, dicom, images, slices, volumes
from kits_ml.errors import InputError

SHAPE = (4, 5, 6)
SPACING_MM = (3.0, 0.7, 0.8)
#: Directions of a row and of a column in LPS, as scanners and reformats write them.
ACQUISITIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial, prone": ((-1, 0, 0), (0, -1, 0)),
    "axial, rows and columns swapped": ((0, 1, 0), (1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "sagittal, feet up": ((0, -1, 0), (0, 0, 1)),
    "oblique": ((0.96, 0.28, 0), (-0.28, 0.96, 0)),
}


def _stored(shape=SHAPE) -> np.ndarray:
    """Slices in the order of their normal; values 1 to 120 and one of 4000."""
    stored = np.arange(1, 1 + np.prod(shape), dtype=np.int16).reshape(shape)
    stored[0, 0, 0] = 4000
    return stored


def _slice(stored: np.ndarray, index: int, *, directions=ACQUISITIONS["axial"], spacing_mm=SPACING_MM) -> Dataset:
    """A CT slice; the stack begins at (-10, -20, -30) and HU are 1024 less than stored."""
    slices_mm, rows_mm, columns_mm = spacing_mm
    along, down = np.array(directions, float)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
    ds.SeriesInstanceUID, ds.SeriesDescription, ds.Modality = "1.2.3", "abdomen venous", "CT"
    ds.ImageType, ds.InstanceNumber, ds.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], 7, "HFS"
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelSpacing, ds.SliceThickness = [rows_mm, columns_mm], slices_mm
    ds.ImageOrientationPatient = [*along, *down]
    ds.ImagePositionPatient = [*(np.array([-10.0, -20, -30]) + index * slices_mm * np.cross(along, down))]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = stored.astype("<i2").tobytes()
    return ds


def _series(folder: Path, *, shape=SHAPE, change=None, **options) -> Path:
    """Writes a folder of slices named against their order; `change(ds, index)` may edit each, or drop it (True)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(_stored(shape)):
        ds = _slice(one, index, **options)
        if change is None or not change(ds, index):
            ds.save_as(folder / f"{99 - index}.dcm", enforce_file_format=True)
    return folder


def _refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dicom.read_series(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_every_acquisition_is_read_as_it_lies_in_the_patient(name, tmp_path):
    volume = dicom.read_series(_series(tmp_path / "ct", directions=ACQUISITIONS[name]))
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
    geometry = dicom.read_series(_series(tmp_path / "ct", directions=ACQUISITIONS[name])).geometry
    assert geometry.shape == (6, 5, 4)
    np.testing.assert_allclose(geometry.affine, [*affine, [0, 0, 0, 1]], atol=1e-12)


def test_an_axial_series_is_in_kits_order(tmp_path):
    volume = dicom.read_series(_series(tmp_path / "ct"))
    # rows to posterior and columns to left as stored; the first slice is the highest
    np.testing.assert_array_equal(volume.array, _stored()[::-1] - 1024)
    np.testing.assert_allclose(volume.spacing_mm, SPACING_MM)
    assert volume.note == ""


def test_a_label_map_goes_back_to_the_series_grid(tmp_path):
    volume = dicom.read_series(_series(tmp_path / "ct", directions=ACQUISITIONS["coronal"]))
    label_map = (volume.array % 3).astype(np.uint8)
    volumes.write_label_map(tmp_path / "out.nii.gz", label_map, volume.geometry)
    back = volumes.read_label_map(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(back.array, label_map)
    assert volumes.same_grid(back.geometry, volume.geometry)


def test_names_and_numbers_of_the_slices_mean_nothing(tmp_path):
    expected = dicom.read_series(_series(tmp_path / "ct"))
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


def _syntax(syntax):
    def change(ds, index):
        if syntax == uid.ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
            ds["PixelData"].VR = "OW"
        if syntax == uid.RLELossless:
            ds.compress(uid.RLELossless, generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = syntax

    return change


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless],
)
def test_transfer_syntaxes(syntax, tmp_path):
    volume = dicom.read_series(_series(tmp_path / "ct", change=_syntax(syntax)))
    np.testing.assert_array_equal(volume.array, _stored()[::-1] - 1024)


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_whatever_stands_in_the_others(signed, tmp_path):
    def change(ds, index):
        stored = np.frombuffer(ds.PixelData, "<i2")
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, int(signed)
        ds.PixelData = ((stored & 0x0FFF) | 0x3000).astype("<i2").tobytes()

    first = dicom.read_series(_series(tmp_path / "ct", change=change)).array[-1, 0]
    # 4000 = 0xFA0 has the twelfth bit set: signed it is 4000 - 4096 = -96
    assert first.tolist() == [(-96 if signed else 4000) - 1024, *(value - 1024 for value in range(2, 7))]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [("2", "-1024", np.int16), ("0.5", "-1000.5", np.float32), ("9", "0", np.float32)],
)
def test_rescaling(slope, intercept, dtype, tmp_path):
    def change(ds, index):
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept

    volume = dicom.read_series(_series(tmp_path / "ct", change=change))
    assert volume.array.dtype == dtype  # 9 * 4000 does not fit int16
    np.testing.assert_allclose(volume.array, _stored()[::-1] * float(slope) + float(intercept))


def test_values_of_unspecified_type_are_hu(tmp_path):
    # what GDCM and ITK write
    volume = dicom.read_series(_series(tmp_path / "ct", change=_set("RescaleType", "US")))
    np.testing.assert_array_equal(volume.array, _stored()[::-1] - 1024)


def test_each_slice_has_its_own_scale(tmp_path):
    def change(ds, index):
        ds.RescaleIntercept = -index

    volume = dicom.read_series(_series(tmp_path / "ct", change=change))
    np.testing.assert_array_equal(volume.array, (_stored() - np.arange(4).reshape(4, 1, 1))[::-1])


@pytest.mark.parametrize(
    ("signed", "padding", "expected"),
    # -2000 is kept; 63536 is what some write for it; 65535 - 1024 would be 64511 HU, brighter than metal
    [(True, -2000, -3024), (True, 63536, -3024), (False, 65535, -1024), (False, 0, -1024)],
)
def test_padding_never_shines(signed, padding, expected, tmp_path):
    def change(ds, index):
        stored = np.frombuffer(ds.PixelData, "<i2").astype(np.int64)
        stored[1] = padding
        ds.PixelRepresentation = int(signed)
        ds.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
        ds.PixelData = (stored & 0xFFFF).astype("<u2").tobytes()

    volume = dicom.read_series(_series(tmp_path / "ct", change=change))
    assert volume.array.dtype == np.int16
    assert volume.array[-1, 0, :3].tolist() == [4000 - 1024, expected, 3 - 1024]


def test_a_file_without_preamble(tmp_path):
    for index, one in enumerate(_stored()):
        ds = _slice(one, index)
        del ds.file_meta
        (tmp_path / "ct").mkdir(exist_ok=True)
        pydicom.dcmwrite(tmp_path / "ct" / f"{index}", ds, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "ct").array, _stored()[::-1] - 1024)


def test_a_single_slice_is_as_deep_as_it_is_thick(tmp_path):
    volume = dicom.read_series(_series(tmp_path / "ct", shape=(1, 5, 6)))
    assert volume.spacing_mm[0] == 3.0
    assert "a single slice; its thickness of 3 mm is taken for its depth" in volume.note

    def change(ds, index):
        ds.SliceThickness = None

    _refused(_series(tmp_path / "ct", shape=(1, 5, 6), change=change), "a single slice without SliceThickness")


def test_companions_and_localizers_are_left_out_and_said_so(tmp_path):
    folder = _series(tmp_path / "ct")
    scout = _slice(_stored()[0], 9, directions=ACQUISITIONS["coronal"])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(folder / "scout.dcm", enforce_file_format=True)
    report = _slice(_stored()[0], 10)
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.4"
    del report.PixelData, report.Rows
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    volume = dicom.read_series(folder)
    assert volume.array.shape == SHAPE
    assert volume.note == f"{folder}: left out 1 SR, 1 localizer"
    for path in folder.iterdir():
        if path.stem.isdigit():
            path.unlink()
    _refused(folder, "no CT slices, only 1 SR, 1 localizer; expected the slices of one CT series")


def _second_series(ds, index):
    if index >= 3:
        ds.SeriesInstanceUID, ds.SeriesDescription = "1.2.9", "abdomen\narterial"


def _set(keyword, value, *, only=None):
    def change(ds, index):
        if only is None or index == only:
            setattr(ds, keyword, value)

    return change


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
    "no CT": (_set("Modality", "MR"), r"96\.dcm: Modality MR, expected CT"),
    "all localizers": (_set("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "no CT slices, only 4 localizer"),
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
    "tilt tag": (_set("GantryDetectorTilt", -12.5), r"gantry tilt of -12\.5 degrees \(GantryDetectorTilt in 9"),
    "shift": (_moved([0, 0, (5, 0, 0), 0]), r"97\.dcm: shifted by 5\.00 mm within its plane"),
    "pixel spacing": (
        _set("PixelSpacing", [0.7, 0.9], only=1),
        r"98\.dcm: PixelSpacing \[0\.7, 0\.9\] mm, expected PixelSpacing \[0\.7, 0\.8\] mm as in 96\.dcm",
    ),
    "orientation": (
        _set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], only=1),
        r"98\.dcm: ImageOrientationPatient \[1, 0, 0, 0, 0, -1\], expected .* as in 96\.dcm",
    ),
    "skew orientation": (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "expected two unit vectors at right"),
    "nan spacing": (_text_value("PixelSpacing", "nan\\nan"), r"PixelSpacing \[nan, nan\], expected 2 finite"),
    "no number": (_text_value("PixelSpacing", "a\\b"), "PixelSpacing"),
    "zero spacing": (_set("PixelSpacing", [0, 0.8]), r"5 x 6 pixels of \[0, 0\.8\] mm, expected positive numbers"),
    "one number": (_set("PixelSpacing", [0.8]), r"PixelSpacing \[0\.8\], expected 2 finite numbers"),
    "no rescale": (_without("RescaleIntercept"), r"97\.dcm: no RescaleIntercept"),
    "zero slope": (_set("RescaleSlope", 0), "RescaleSlope 0, expected"),
    "no position": (_without("ImagePositionPatient"), r"97\.dcm: no ImagePositionPatient"),
    "no pixels": (_without("PixelData"), r"97\.dcm: truncated or damaged pixels"),
    "short pixels": (_set("PixelData", bytes(20), only=1), r"98\.dcm: truncated or damaged pixels"),
    "no HU": (_set("RescaleType", "Z_EFF"), "RescaleType Z_EFF, expected HU"),
    "colour": (_set("SamplesPerPixel", 3), "3 samples a pixel"),
    "frames": (
        _set("NumberOfFrames", 4),
        r"4 frames in one file \(enhanced multi-frame\); expected one slice a file",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name, tmp_path):
    change, message = REFUSALS[name]
    _refused(_series(tmp_path / "ct", change=change), message)


def test_other_sizes_are_refused(tmp_path):
    folder = _series(tmp_path / "ct")
    _slice(np.zeros((5, 7), np.int16), 1).save_as(folder / "98.dcm", enforce_file_format=True)
    _refused(folder, r"98\.dcm: 5 rows x 7 columns, expected 5 rows x 6 columns as in 96\.dcm")


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    def change(ds, index):
        ds.ImagePositionPatient = [round(float(value), 1) for value in ds.ImagePositionPatient]

    # 0.625 a slice: -30, -29.4, -28.8 (-28.75), -28.1: gaps of 0.6 and 0.7
    volume = dicom.read_series(_series(tmp_path / "ct", change=change, spacing_mm=(0.625, 0.7, 0.8)))
    np.testing.assert_allclose(volume.spacing_mm[0], 0.625, atol=0.02)


def test_folders_without_slices(tmp_path):
    (tmp_path / "ct").mkdir()
    _refused(tmp_path / "ct", "no DICOM files; expected a folder with the slices of one CT series")
    (tmp_path / "ct" / "scan.nii.gz").write_bytes(b"")
    _refused(tmp_path / "ct", r"no DICOM among its 1 files \(scan\.nii\.gz\)")
    for content in (b"", b"\0" * 200, b"some text that is long enough" * 20):
        (tmp_path / "ct" / "IM1").write_bytes(content)
        _refused(tmp_path / "ct", r"IM1: not a (readable )?DICOM file")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8, 0.95])
def test_truncated_slices(keep, tmp_path):
    folder = _series(tmp_path / "ct")
    whole = (folder / "97.dcm").read_bytes()
    (folder / "97.dcm").write_bytes(whole[: int(keep * len(whole))])
    _refused(folder, "97")


def test_damaged_slices_never_raise_anything_else(tmp_path):
    folder = _series(tmp_path / "ct")
    whole = (folder / "97.dcm").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(128, len(whole), 4):
            damaged[place] = rng.integers(256)
        (folder / "97.dcm").write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            dicom.read_series(folder)


def test_memory_holds_the_volume_and_a_slice(tmp_path):
    _series(tmp_path / "ct", shape=(40, 256, 256), change=_set("RescaleIntercept", 0))
    tracemalloc.start()
    volume = dicom.read_series(tmp_path / "ct")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # a slice takes 0.5 MiB in 64-bit numbers, a few times over while it is scaled; the volume 5 MiB
    assert volume.array.nbytes == 40 * 256 * 256 * 2
    assert peak < 1.5 * volume.array.nbytes


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    def change(ds, index):
        ds.PixelData = pydicom.encaps.encapsulate([bytes(10)])
        ds.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1

    monkeypatch.setattr(type(pixels.get_decoder(uid.JPEGLosslessSV1)), "is_available", property(lambda self: False))
    _refused(
        _series(tmp_path / "ct", change=change),
        r"pixels compressed as JPEG Lossless, .* no decoder is installed; pip install 'kits_ml\[dicom\]' adds one",
    )


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_lossless_compression_changes_no_value(name, tmp_path):
    """pydicom's own samples, declared CT; all hold the voxels of MR_small.dcm."""
    read = []
    for each in (name, "MR_small.dcm"):
        ds = pydicom.dcmread(get_testdata_file(each, download=False))
        if not pixels.get_decoder(ds.file_meta.TransferSyntaxUID).is_available:
            pytest.skip(f"no decoder for {ds.file_meta.TransferSyntaxUID.name}; kits_ml[dicom] brings one")
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "CT", 1, -1024
        (tmp_path / each).mkdir()
        ds.save_as(tmp_path / each / "IM1")
        read.append(dicom.read_series(tmp_path / each))
    np.testing.assert_array_equal(read[0].array, read[1].array)
    np.testing.assert_array_equal(read[0].geometry.affine, read[1].geometry.affine)


def test_a_syntax_without_pixels_is_refused(tmp_path):
    def change(ds, index):
        ds.PixelData = pydicom.encaps.encapsulate([bytes(10)])
        ds.file_meta.TransferSyntaxUID = uid.MPEG2MPML

    _refused(_series(tmp_path / "ct", change=change), "transfer syntax MPEG2 .*, expected one of a CT image")


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
        _refused(tmp_path / "ct", SHIPPED[name])
        return
    volume = dicom.read_series(tmp_path / "ct")
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    assert (ds.PixelSpacing, ds.SliceThickness) == ([0.661468, 0.661468], 5)
    np.testing.assert_allclose(volume.spacing_mm, (5, 0.661468, 0.661468))
    np.testing.assert_array_equal(volume.array, ds.pixel_array[None].astype(int) - 1024)


def test_a_single_dicom_file_is_no_scan(tmp_path):
    _series(tmp_path / "ct")
    with pytest.raises(InputError, match=r"99\.dcm: a single DICOM file; expected the folder that holds its series"):
        images.read_image(tmp_path / "ct" / "99.dcm")
    assert images.read_image(tmp_path / "ct").array.shape == SHAPE


def _case(folder: Path) -> tuple[cases.Case, volumes.Volume]:
    image = dicom.read_series(_series(folder / "case_00000" / "imaging"))
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
