"""However a scanner stores its values, they come out as HU."""

import tracemalloc

import numpy as np
import pydicom
import pytest
from pydicom import pixels, uid
from pydicom.data import get_testdata_file

from kits_ml.data import dicom
from tests.data.dicom_series import ct_slice, having, is_refused, stored_values, write_series


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
    volume = dicom.read_series(write_series(tmp_path / "ct", change=_syntax(syntax)))
    np.testing.assert_array_equal(volume.array, stored_values()[::-1] - 1024)


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_whatever_stands_in_the_others(signed, tmp_path):
    def change(ds, index):
        stored = np.frombuffer(ds.PixelData, "<i2")
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, int(signed)
        ds.PixelData = ((stored & 0x0FFF) | 0x3000).astype("<i2").tobytes()

    first = dicom.read_series(write_series(tmp_path / "ct", change=change)).array[-1, 0]
    # 4000 = 0xFA0 has the twelfth bit set: signed it is 4000 - 4096 = -96
    assert first.tolist() == [(-96 if signed else 4000) - 1024, *(value - 1024 for value in range(2, 7))]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [("2", "-1024", np.int16), ("0.5", "-1000.5", np.float32), ("9", "0", np.float32)],
)
def test_rescaling(slope, intercept, dtype, tmp_path):
    def change(ds, index):
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept

    volume = dicom.read_series(write_series(tmp_path / "ct", change=change))
    assert volume.array.dtype == dtype  # 9 * 4000 does not fit int16
    np.testing.assert_allclose(volume.array, stored_values()[::-1] * float(slope) + float(intercept))


def test_values_of_unspecified_type_are_hu(tmp_path):
    # what GDCM and ITK write
    volume = dicom.read_series(write_series(tmp_path / "ct", change=having("RescaleType", "US")))
    np.testing.assert_array_equal(volume.array, stored_values()[::-1] - 1024)


def test_each_slice_has_its_own_scale(tmp_path):
    def change(ds, index):
        ds.RescaleIntercept = -index

    volume = dicom.read_series(write_series(tmp_path / "ct", change=change))
    np.testing.assert_array_equal(volume.array, (stored_values() - np.arange(4).reshape(4, 1, 1))[::-1])


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

    volume = dicom.read_series(write_series(tmp_path / "ct", change=change))
    assert volume.array.dtype == np.int16
    assert volume.array[-1, 0, :3].tolist() == [4000 - 1024, expected, 3 - 1024]


def test_a_file_without_preamble(tmp_path):
    for index, one in enumerate(stored_values()):
        ds = ct_slice(one, index)
        del ds.file_meta
        (tmp_path / "ct").mkdir(exist_ok=True)
        pydicom.dcmwrite(tmp_path / "ct" / f"{index}", ds, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "ct").array, stored_values()[::-1] - 1024)


def test_memory_holds_the_volume_and_a_slice(tmp_path):
    write_series(tmp_path / "ct", shape=(40, 256, 256), change=having("RescaleIntercept", 0))
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
    is_refused(
        write_series(tmp_path / "ct", change=change),
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

    is_refused(write_series(tmp_path / "ct", change=change), "transfer syntax MPEG2 .*, expected one of a CT image")
