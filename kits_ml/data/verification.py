"""Reading a label map again that was just written: a disk may be full, broken, or not what it seems."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import isal_zlib

from kits_ml.data import blocks, volumes, voxels
from kits_ml.errors import InputError


def write_verified(path: str | Path, label_map: np.ndarray, geometry: volumes.Geometry) -> None:
    """Writes a label map, reads it again, and removes it where it is not what was written.

    Compared are type, shape, affine (the scan's own, bit for bit) and the CRC-32 of all voxels.

    Args:
        path, label_map, geometry: as for `volumes.write_label_map`.

    Raises:
        InputError: what differs.
    """
    path = Path(path)
    volumes.write_label_map(path, label_map, geometry)
    try:
        problem = _difference(path, geometry.to_file(np.asarray(label_map, np.uint8)), geometry)
    except InputError as error:
        problem = str(error).removeprefix(f"{path}: ")
    if problem:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{path}: read back after writing: {problem}; expected what was written, so the file was removed"
        )


def _difference(path: Path, stored: np.ndarray, geometry: volumes.Geometry) -> str:
    """What of a file is not as it was meant to be; empty if nothing."""
    found = volumes.read_geometry(path)
    if found.shape != tuple(geometry.shape):
        return f"shape {found.shape} instead of {tuple(geometry.shape)}"
    # a grid without a file's header is written in float32
    same_place = geometry.header is not None or volumes.same_grid(found, geometry)
    if not same_place or (geometry.header is not None and not np.array_equal(found.affine, geometry.affine)):
        return f"affine {found.affine.tolist()} instead of {geometry.affine.tolist()}"
    image = nib.load(path)
    if image.header.get_data_dtype() != np.uint8:
        return f"voxels of type {image.header.get_data_dtype()} instead of uint8"
    read, written = _checksum(voxels.chunks(image, path)), _checksum(blocks.in_file_order(stored))
    return "" if read == written else f"voxels with CRC-32 {read:08x} instead of {written:08x}"


def _checksum(parts: Iterable[np.ndarray]) -> int:
    """CRC-32 of voxels that come some at a time."""
    value = 0
    for part in parts:
        value = isal_zlib.crc32(np.ascontiguousarray(part), value)
    return value
