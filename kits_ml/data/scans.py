"""The scans of a folder, without labels: what there is to segment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from kits_ml.data import cases, volumes
from kits_ml.data.dicom_files import is_dicom, series_files
from kits_ml.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: what its outputs are called.
        path: what `images.read_image` takes.
    """

    name: str
    path: Path


def find_scans(folder: str | Path, *, leave_out: Path | None = None) -> list[Scan]:
    """Lists the scans of a folder, by name.

    A scan is
        a NIfTI file, by its name without `.nii.gz`;
        a folder in the layout of KiTS (`imaging.nii.gz`, or `imaging/` with DICOM slices), by the folder's name;
            also one that is called `case_...` and has no image, which reading it will say;
        a folder that holds DICOM files at any depth, by the folder's name: one series is expected, which reading it
            checks.
    Hidden files, other files and other folders are passed over; a line says which folders.

    Args:
        folder: where to look; other folders within it are not searched for NIfTI files.
        leave_out: a folder that is none of the scans, though it may lie among them: that of the outputs.

    Raises:
        InputError: no such folder, nothing in it, or two scans of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with scans")
    found: dict[str, Scan] = {}
    passed_over = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or (leave_out is not None and child.resolve() == leave_out.resolve()):
            continue
        scan = _scan_of_folder(child) if child.is_dir() else _scan_of_file(child)
        if scan is None:
            passed_over += [child.name] * child.is_dir()
        elif scan.name in found:
            other = found[scan.name].path.relative_to(folder)
            raise InputError(f"{folder}: found {other} and {child.name}; expected one {scan.name}")
        else:
            found[scan.name] = scan
    if passed_over:
        log.info("%s: no scan in %s", folder, ", ".join(passed_over))
    if not found:
        raise InputError(
            f"{folder}: no scans; expected NIfTI files, folders of DICOM slices or folders such as "
            f"case_00000/{cases.IMAGE_NAME}"
        )
    return list(found.values())


def name_of(path: str | Path) -> str:
    """What reports call a scan: the name of its file or folder, not where that lies.

    In the layout of KiTS, where all have the same name, the case's stands before it: `case_00000/imaging.nii.gz`.
    """
    path = Path(path).absolute()
    path = path.resolve() if path.name == ".." else path
    return f"{path.parent.name}/{path.name}" if path.name in (cases.IMAGE_NAME, cases.DICOM_NAME) else path.name


def _scan_of_file(path: Path) -> Scan | None:
    suffix = next((end for end in volumes.NIFTI_SUFFIXES if path.name.endswith(end)), None)
    return Scan(name=path.name.removesuffix(suffix), path=path) if suffix else None


def _scan_of_folder(path: Path) -> Scan | None:
    nifti, slices = path / cases.IMAGE_NAME, path / cases.DICOM_NAME
    if nifti.exists() or slices.is_dir():
        return Scan(name=path.name, path=nifti if nifti.exists() else slices)
    if any(_may_be_dicom(file) for file in series_files(path)):
        return Scan(name=path.name, path=path)
    return Scan(name=path.name, path=nifti) if path.name.startswith("case_") else None


def _may_be_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or claims to be; reading it says what is wrong with it."""
    try:
        return path.suffix.lower() == ".dcm" or is_dicom(path)
    except OSError:
        return False
