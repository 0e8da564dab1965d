"""The body of a request: received within limits, and what it is by its first bytes.

What the client says of it (name, type) decides nothing, for `curl --data-binary` says nothing true.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import nibabel as nib

from kits_ml.errors import first_line
from kits_ml.files import is_disk_full
from kits_ml.serving.limits import MOST_EXTRA_BYTES, Limits
from kits_ml.serving.refusals import RefusedError

Kind = Literal["nifti", "gzip", "zip"]

EXPECTED = "expected a NIfTI file (.nii or .nii.gz) or a zip of the DICOM slices of one CT series"

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

#: Enough for the longest header, NIfTI-2's, and for what stands before it in a gzip file.
_HEADER_BYTES, _HEAD_BYTES = 544, 1 << 16


async def receive(body: AsyncIterator[bytes], path: Path, *, limits: Limits, seconds: float) -> None:
    """Writes a request's body into a file.

    Args:
        body: in parts.
        path: the file.
        limits: its `upload_bytes` counts.
        seconds: time for all of it.

    Raises:
        RefusedError: nothing (400), too much (413) or too slow (408).
    """
    try:
        async with asyncio.timeout(seconds):
            size = await _write(body, path, most=limits.upload_bytes)
    except TimeoutError as error:
        raise RefusedError(408, f"the upload took more than {seconds:g} s") from error
    if size == 0:
        raise RefusedError(400, f"an empty body, {EXPECTED}")


def check_length(length: str | None, limits: Limits) -> None:
    """Raises `RefusedError` (413) where the header Content-Length tells already that there will be too much."""
    if length is not None and length.isdecimal() and int(length) > limits.upload_bytes:
        raise _too_large(limits.upload_bytes)


async def _write(body: AsyncIterator[bytes], path: Path, *, most: int) -> int:
    size = 0
    with path.open("wb") as stream:
        async for part in body:
            size += len(part)
            if size > most:
                raise _too_large(most)
            stream.write(part)
    return size


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"an upload of more than {most / 1e6:g} MB, which is the most")


def check(path: Path, limits: Limits) -> Kind:
    """Looks at the first bytes of an upload: what it is, and whether a NIfTI header asks for too much.

    Raises:
        RefusedError: another kind of file (415), a header that makes no sense (422) or asks for too much (413).
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(_ZIP):
        return "zip"
    kind: Kind = "gzip" if head.startswith(_GZIP) else "nifti"
    if kind == "gzip":
        with refused_if(zlib.error, "a damaged gzip file"):
            head = zlib.decompressobj(wbits=31).decompress(head, _HEADER_BYTES)
    expected_bytes = check_header(head, limits)
    if kind == "nifti" and path.stat().st_size < expected_bytes:
        raise RefusedError(422, f"a NIfTI file cut short: its header tells of {expected_bytes:,} bytes")
    return kind


def check_header(head: bytes, limits: Limits) -> int:
    """Checks a NIfTI header before anything is made of it.

    Args:
        head: the first bytes of the unpacked file.
        limits: for the volume.

    Returns:
        The bytes that the file must have at least, unpacked.

    Raises:
        RefusedError: see `check`.
    """
    header = _parse(head)
    damaged = (nib.spatialimages.HeaderDataError, ValueError, OverflowError, KeyError)
    with refused_if(damaged, "a damaged NIfTI header"):
        shape, dtype = tuple(int(size) for size in header.get_data_shape()), header.get_data_dtype()
        offset = float(header["vox_offset"])
    if len(shape) < 3 or min(shape) < 1 or any(size > 1 for size in shape[3:]):
        raise RefusedError(422, f"{len(shape)} axes of sizes {shape}, expected a volume of three axes")
    limits.check_shape(shape[:3])
    if not math.isfinite(offset) or not 0 <= offset <= MOST_EXTRA_BYTES:
        raise RefusedError(422, f"voxels that begin at byte {offset:g}, expected at most {MOST_EXTRA_BYTES}")
    num_bytes = int(offset) + math.prod(shape) * dtype.itemsize
    limits.check_unpacked(num_bytes)
    return num_bytes


def _parse(head: bytes) -> nib.Nifti1Header:
    for cls in (nib.Nifti1Header, nib.Nifti2Header):
        size = cls.template_dtype.itemsize
        if cls.may_contain_header(head[:size]):
            header = cls(head[:size], check=False)
            if header["magic"].item().startswith(b"ni"):
                raise RefusedError(415, f"the header of a NIfTI pair (.hdr, .img), {EXPECTED}")
            return header
    if head[128:132] == b"DICM":
        raise RefusedError(415, f"a single DICOM file, {EXPECTED}")
    raise RefusedError(415, f"a file of another kind, {EXPECTED}")


@contextlib.contextmanager
def refused_if(errors: type[BaseException] | tuple[type[BaseException], ...], what: str) -> Iterator[None]:
    """Turns errors of damaged files into `RefusedError` (422); a disk that is full is not the file's fault (507)."""
    try:
        yield
    except errors as error:
        if is_disk_full(error):
            raise RefusedError(507, "no space left to unpack the upload") from error
        raise RefusedError(422, f"{what} ({first_line(error)})") from error
