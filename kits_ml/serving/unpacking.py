"""An upload on its way to a volume: unpacked within limits, then read as the command line reads it.

All of it happens in the reader's own process (`reader`), for decoders are C code and uploads are strangers'.
"""

from __future__ import annotations

import dataclasses
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from isal import igzip

from kits_ml.data import images, volumes
from kits_ml.data.voxels import UNREADABLE
from kits_ml.errors import InputError
from kits_ml.serving.limits import MOST_EXTRA_BYTES, MOST_FILES, SPACING_MM, Limits
from kits_ml.serving.refusals import RefusedError
from kits_ml.serving.uploads import Kind, check_header, refused_if

#: What an unpacked upload is called, in messages too.
NIFTI_NAME, SERIES_NAME = "upload.nii", "upload"

_PART_BYTES = 1 << 20

#: End of the directory (APPNOTE 4.3.16): 22 bytes, then a comment of at most 65,535; before it, zip64's locator.
_END, _END_BYTES, _LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20
_MOST_DIRECTORY_BYTES = MOST_FILES * 400

#: Bytes of a name and of a path that every file system takes, and how deep folders may lie in each other: what walks
#: through them calls itself for each.
_LONGEST_NAME, _LONGEST_PATH, _MOST_PARTS = 250, 1000, 16


def read_upload(path: Path, kind: Kind, limits: Limits) -> volumes.Volume:
    """Makes a volume of an upload; what is unpacked lies beside it.

    Args:
        path: the upload, in a folder of its own.
        kind: what `uploads.check` found.
        limits: for what is unpacked and for the volume.

    Returns:
        The volume; messages and its note name files without the server's folder.

    Raises:
        RefusedError: what is wrong with it (413 too large, 422 anything else).
    """
    folder = path.parent
    try:
        volume = images.read_image(_UNPACK[kind](path, limits))
    except InputError as error:
        raise RefusedError(422, without_folder(str(error), folder)) from error
    except RefusedError as error:
        raise RefusedError(error.status, without_folder(error.detail, folder)) from error
    except MemoryError as error:
        raise RefusedError(413, "the upload needs more memory than the service gives it") from error
    limits.check_shape(volume.array.shape)
    if not all(SPACING_MM[0] <= size <= SPACING_MM[1] for size in volume.spacing_mm):
        found = " x ".join(f"{size:g}" for size in volume.spacing_mm)
        raise RefusedError(422, f"voxels of {found} mm, expected {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm")
    return dataclasses.replace(volume, path=path, note=without_folder(volume.note, folder))


def without_folder(text: str, folder: Path) -> str:
    """A message in one line, which names files as the client knows them."""
    return " ".join(text.replace(f"{folder}/", "").replace(str(folder), "upload").split())


def _as_it_is(path: Path, limits: Limits) -> Path:
    return path.rename(path.with_name(NIFTI_NAME))


def _gunzip(path: Path, limits: Limits) -> Path:
    """Unpacks as much as the header tells of; more is an error, not a full disk."""
    target = path.with_name(NIFTI_NAME)
    with refused_if(UNREADABLE, "a truncated or damaged gzip file"), igzip.open(path, "rb") as packed:
        part = packed.read(_PART_BYTES)
        most = check_header(part, limits) + MOST_EXTRA_BYTES
        with target.open("wb") as stream:
            size = 0
            while part:
                size += len(part)
                if size > most:
                    raise RefusedError(422, f"a gzip file of more than {most:,} bytes, its header tells of less")
                stream.write(part)
                part = packed.read(_PART_BYTES)
    path.unlink()
    return target


def _unzip(path: Path, limits: Limits) -> Path:
    """Unpacks the files of a zip into a folder, hidden ones left out as the reader of series leaves them out."""
    folder = path.with_name(SERIES_NAME)
    folder.mkdir()
    _check_directory(path)
    damaged = (*UNREADABLE, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)
    with refused_if(damaged, "a damaged zip"), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > MOST_FILES:
            raise RefusedError(413, f"a zip of {len(entries):,} files, expected at most {MOST_FILES:,}")
        limits.check_unpacked(sum(entry.file_size for entry in entries))
        wanted = [(entry, parts) for entry in entries if not _is_hidden(parts := _safe_parts(entry))]
        num_folders = len({parts[:depth] for _, parts in wanted for depth in range(1, len(parts))})
        if num_folders > MOST_FILES:
            raise RefusedError(413, f"a zip of {num_folders:,} folders, expected at most {MOST_FILES:,}")
        for entry, parts in wanted:
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            # what an entry unpacks to beyond the size it declares, zipfile does not give out
            with archive.open(entry) as packed, target.open("xb") as stream:
                shutil.copyfileobj(packed, stream, _PART_BYTES)
    path.unlink()
    return folder


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def _check_directory(path: Path) -> None:
    """zipfile reads the whole directory into memory, so its size is looked at first, where zipfile looks."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - (1 << 16) - _END_BYTES - _LOCATOR_BYTES))
        tail = stream.read()
    plain_end = tail[-_END_BYTES:].startswith(_END) and tail.endswith(b"\0\0")
    at = len(tail) - _END_BYTES if plain_end else tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        raise RefusedError(422, "a truncated zip: its directory is missing")
    if tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR):
        raise RefusedError(422, f"a zip64 archive, expected a plain zip of at most {MOST_FILES:,} files")
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if size > _MOST_DIRECTORY_BYTES:
        raise RefusedError(
            413, f"a zip with a directory of {size:,} bytes, expected at most {_MOST_DIRECTORY_BYTES:,}"
        )


def _safe_parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of an entry.

    Raises:
        RefusedError: a name that leads elsewhere, a link, an encrypted entry, or another compression than deflate,
            whose decoders may ask for gigabytes.
    """
    name = entry.orig_filename  # `filename` is cut at NUL
    parts = PurePosixPath(name).parts
    lengths = [len(part.encode(errors="replace")) for part in parts]
    leads_elsewhere = name.startswith("/") or ".." in parts or name[1:2] == ":" or "\\" in name or "\0" in name
    too_long = not parts or max(lengths) > _LONGEST_NAME or sum(lengths) > _LONGEST_PATH or len(parts) > _MOST_PARTS
    if leads_elsewhere or too_long:
        raise RefusedError(422, f"a zip with a file named {name[:100]!r}, expected plain relative names")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise RefusedError(422, f"a zip in which {name[:100]!r} is a link or no file, expected files alone")
    if entry.flag_bits & 0x1:
        raise RefusedError(422, f"a zip in which {name[:100]!r} is encrypted, expected plain files")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(422, f"a zip in which {name[:100]!r} is compressed in another way than deflate")
    return parts


_UNPACK = {"nifti": _as_it_is, "gzip": _gunzip, "zip": _unzip}
