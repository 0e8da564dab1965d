"""Which files are DICOM, from their names and first bytes; nothing is imported for that, so a NIfTI costs no time."""

from __future__ import annotations

import os
from pathlib import Path


def series_files(folder: Path) -> list[Path]:
    """All files that count as the series, in name order: no hidden ones, no DICOMDIR."""
    return sorted(
        Path(parent, name)
        for parent, folders, names in _walk(folder)
        for name in names
        if not name.startswith(".") and name.upper() != "DICOMDIR"
    )


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10 section 7.1); a few old ones lack that preamble."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _walk(folder: Path):
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield parent, folders, names
