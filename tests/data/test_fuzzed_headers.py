"""Whatever a NIfTI header says, the file is read or refused in one line; no other error, no huge allocation."""

import contextlib
import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kits_ml.data import volumes
from kits_ml.errors import InputError

SHAPE = (3, 4, 5)
STORED = np.arange(60, dtype=np.int16).reshape(SHAPE)

#: Far above what reading sixty voxels takes, far below what a header may ask for.
MOST_BYTES = 20e6

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def _file(cls=nib.Nifti1Image, *, big_endian: bool = False) -> tuple[bytearray, nib.Nifti1Header]:
    image = cls(STORED, volumes.kits_geometry(SHAPE, (3.0, 0.8, 0.7)).affine)
    swapped = image.header.as_byteswapped(">" if big_endian else "<")
    payload = cls(STORED, None, swapped).to_bytes()
    return bytearray(payload), type(swapped)(payload[: swapped.sizeof_hdr])


@contextlib.contextmanager
def _little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def _read(path, payload: bytes) -> None:
    """Reads a file, which may be refused."""
    path.write_bytes(payload)
    with _little_memory():
        refusal, volume = _attempt(path)
    if volume is None:
        assert refusal.startswith(str(path))
        assert "\n" not in refusal
        return
    assert volume.array.shape == volume.geometry.house_shape
    assert volume.array.dtype in (np.int16, np.float32)
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.spacing_mm).all()
    assert min(volume.spacing_mm) > 0
    volumes.write_label_map(path.with_name("out.nii"), np.zeros(volume.array.shape, np.uint8), volume.geometry)
    written = volumes.read_geometry(path.with_name("out.nii"))
    assert written.shape == volume.geometry.shape
    np.testing.assert_array_equal(written.affine, volume.geometry.affine)


def _attempt(path) -> tuple[str, volumes.Volume | None]:
    try:
        return "", volumes.read_image(path)
    except InputError as error:
        return str(error), None


_FIELDS = list(nib.Nifti1Header().keys())


@FUZZ
@given(
    st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    st.booleans(),
    st.dictionaries(st.sampled_from(_FIELDS), st.binary(min_size=8, max_size=8), min_size=1, max_size=3),
    st.sampled_from([".nii", ".nii.gz"]),
)
def test_random_bytes_in_fields(tmp_path, cls, big_endian, fields, suffix):
    payload, header = _file(cls, big_endian=big_endian)
    for name, raw in fields.items():
        if name in header.template_dtype.fields:
            dtype, offset = header.template_dtype.fields[name][:2]
            payload[offset : offset + min(dtype.itemsize, 8)] = raw[: dtype.itemsize]
    _read(tmp_path / f"scan{suffix}", bytes(payload) if suffix == ".nii" else gzip.compress(bytes(payload), 1))


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_random_bytes_anywhere(tmp_path, edits):
    payload, _ = _file()
    for place, byte in edits:
        payload[place] = byte
    _read(tmp_path / "scan.nii", bytes(payload))


_NUMBERS = [0, -1, 1, 2, 1e-30, 1e30, 3e38, np.inf, -np.inf, np.nan]


@FUZZ
@given(
    st.sampled_from(
        ["vox_offset", "scl_slope", "scl_inter", "pixdim", "srow_x", "quatern_b", "quatern_d", "qoffset_x"]
    ),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_NUMBERS),
    st.sampled_from([(1, 0), (0, 1), (0, 0), (1, 1)]),
)
@example("scl_slope", 3e38, 0, (0, 1))
@example("vox_offset", np.inf, 0, (0, 1))
@example("vox_offset", 1e30, 0, (0, 1))
def test_numbers_that_are_none(tmp_path, field, value, other, codes):
    payload, header = _file()
    header["qform_code"], header["sform_code"] = codes
    header[field] = value
    if field == "scl_slope":
        header["scl_inter"] = other
    payload[: len(header.binaryblock)] = header.binaryblock
    _read(tmp_path / "scan.nii", bytes(payload))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dim",
    [(3, 32767, 32767, 32767), (3, 20000, 20000, 50), (3, -3, 4, 5), (3, 0, 4, 5), (3, 3, 4, 6), (7, *[32767] * 7)],
)
def test_sizes_that_the_file_does_not_have(tmp_path, dim, suffix):
    payload, header = _file()
    header["dim"][: len(dim)] = dim
    payload[: len(header.binaryblock)] = header.binaryblock
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(bytes(payload) if suffix == ".nii" else gzip.compress(bytes(payload)))
    with _little_memory(), pytest.raises(InputError, match=r"scan\.nii"):
        volumes.read_image(path)


@FUZZ
@given(st.integers(0, 471), st.booleans())
def test_truncated_anywhere(tmp_path, length, packed):
    payload, _ = _file()
    assert len(payload) == 352 + 120
    whole = gzip.compress(bytes(payload)) if packed else bytes(payload)
    path = tmp_path / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(whole[: min(length, len(whole) - 1)])
    with pytest.raises(InputError, match=r"truncated or damaged|not a readable NIfTI file"):
        volumes.read_image(path)


@FUZZ
@given(st.binary(max_size=600), st.sampled_from([".nii", ".nii.gz"]))
def test_anything_at_all(tmp_path, payload, suffix):
    (tmp_path / f"scan{suffix}").write_bytes(payload)
    with pytest.raises(InputError):
        volumes.read_image(tmp_path / f"scan{suffix}")


@pytest.mark.parametrize("magic", [b"n+2\0", b"ni1\0", b"\0\0\0\0", b"N+1\0"])
def test_a_wrong_magic(tmp_path, magic):
    payload, _ = _file()
    payload[344:348] = magic
    _read(tmp_path / "scan.nii", bytes(payload))
