"""The numbers in a NIfTI file, some at a time: what they take in memory is the result and nothing else.

A file of float64 is four times the int16 volume that may be made of it, so it is never in memory as it is stored.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.openers import Opener

from kits_ml.data import label_values
from kits_ml.errors import InputError, first_line

#: What damaged and truncated files raise.
UNREADABLE = (OSError, EOFError, zlib.error, isal_zlib.error)

#: How much larger than its file what is in it can be, by suffix. A byte of deflate gives at most 1032.
_MOST_UNPACKED = {".gz": 1032, ".bz2": 1 << 20, ".zst": 1 << 20}

#: Small enough to stay in the processor's cache between unpacking and converting.
_CHUNK_VOXELS = 1 << 18

_INT16 = np.iinfo(np.int16)


def read_hu(image: nib.Nifti1Pair, path: Path) -> np.ndarray:
    """Reads HU in the file's axis order.

    Returns:
        Fortran-contiguous; int16 where the stored values and scaling are whole numbers that fit, else float32.

    Raises:
        InputError: damaged, no plain numbers, NaN or infinite voxels.
    """
    _check_size(image, path)
    whole = image.header.get_data_dtype().kind in "iu" and _scaling_is_whole(image)
    array = np.empty(image.shape[:3], np.int16 if whole else np.float32, order="F")
    filled = num_bad = 0
    for chunk in chunks(image, path):
        if array.dtype == np.int16 and (chunk.min() < _INT16.min or chunk.max() > _INT16.max):
            array = array.astype(np.float32)
        target = array.reshape(-1, order="F")[filled : filled + len(chunk)]
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is counted
            target[:] = chunk
        filled += len(chunk)
        if array.dtype != np.int16:
            num_bad += int(np.count_nonzero(~np.isfinite(target)))
    if num_bad:
        raise InputError(f"{path}: {num_bad} of {array.size} voxels are NaN or infinite; expected HU values")
    return array


def read_labels(image: nib.Nifti1Pair, path: Path, mapping: Mapping[int, int] | None) -> np.ndarray:
    """Reads label values in the file's axis order; see `label_values.to_kits`.

    Returns:
        Fortran-contiguous uint8.

    Raises:
        InputError: damaged, no plain numbers, or values that are not in the mapping.
    """
    _check_size(image, path)
    array = np.empty(image.shape[:3], np.uint8, order="F")
    flat = array.reshape(-1, order="F")
    filled = 0
    for chunk in chunks(image, path):
        flat[filled : filled + len(chunk)] = label_values.to_kits(chunk, path=path, mapping=mapping)
        filled += len(chunk)
    return array


def chunks(image: nib.Nifti1Pair, path: Path) -> Iterator[np.ndarray]:
    """Yields the voxels in the file's order, scaled; the same memory each time."""
    dtype = image.header.get_data_dtype()
    if dtype.names or dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels of type {dtype}, expected plain numbers")
    num_voxels = int(np.prod(image.shape[:3], dtype=np.int64))
    buffer = np.empty(min(num_voxels, _CHUNK_VOXELS), dtype)
    stored_bytes = memoryview(buffer).cast("B") if dtype.isnative else memoryview(buffer.view(np.uint8))
    try:
        with _open(image) as stream:
            _skip(stream, int(image.dataobj.offset))
            for first in range(0, num_voxels, len(buffer)):
                chunk = buffer[: num_voxels - first]
                _fill(stream, stored_bytes[: chunk.nbytes], f"voxel {first} of {num_voxels}")
                yield _scaled(chunk.astype(dtype.newbyteorder("="), copy=False), image)
            while stream.read(1 << 20):  # to the end, so that the checksum is checked
                pass
    except FileNotFoundError as error:
        raise InputError(f"{path}: its voxels are missing, expected {Path(error.filename).name} beside it") from error
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path}: truncated or damaged ({first_line(error)})") from error


def _check_size(image: nib.Nifti1Pair, path: Path) -> None:
    """Refuses a header that asks for more than its file can hold, before memory is asked for."""
    stored = Path(str(image.dataobj.file_like))
    if not stored.exists():
        return  # whoever reads it says so
    offset = int(image.dataobj.offset)
    first_byte = image.header.single_vox_offset if image.header.is_single else 0
    if offset < first_byte:
        raise InputError(
            f"{path}: its header says that voxels begin at byte {offset}, expected {first_byte} or later"
        )
    # in Python's whole numbers, which do not overflow
    needed = offset + math.prod(image.shape[:3]) * image.header.get_data_dtype().itemsize
    available = stored.stat().st_size * _MOST_UNPACKED.get(stored.suffix, 1)
    if needed > available:
        raise InputError(
            f"{path}: truncated or damaged (its header asks for {needed} bytes of voxels, shape "
            f"{tuple(map(int, image.shape[:3]))}; the file can hold {available})"
        )


def _open(image: nib.Nifti1Pair) -> BinaryIO | Opener:
    """The file with the voxels: of a pair (`.hdr`, `.img`) it is another than the header's."""
    path = str(image.dataobj.file_like)
    return igzip.open(path, "rb") if path.endswith(".gz") else Opener(path, "rb")


def _skip(stream: BinaryIO | Opener, num_bytes: int) -> None:
    for first in range(0, num_bytes, 1 << 20):
        _fill(stream, memoryview(bytearray(min(1 << 20, num_bytes - first))), "the header")


def _fill(stream: BinaryIO | Opener, buffer: memoryview, where: str) -> None:
    filled = 0
    while filled < len(buffer):
        num_read = stream.readinto(buffer[filled:])
        if not num_read:
            raise EOFError(f"it ends at {where}")
        filled += num_read


def _scaling_is_whole(image: nib.Nifti1Pair) -> bool:
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    # beyond, the products of whole numbers would not fit into 64 bits
    return slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**31


def _scaled(stored: np.ndarray, image: nib.Nifti1Pair) -> np.ndarray:
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if stored.dtype.kind in "iu" and _scaling_is_whole(image):
        return stored.astype(np.int64) * int(slope) + int(intercept)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite and NaN are counted
        return stored * np.float32(slope) + np.float32(intercept)
