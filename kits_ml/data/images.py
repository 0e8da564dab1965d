"""A scan, in whichever form it comes: a NIfTI file or a folder of DICOM slices."""

from __future__ import annotations

from pathlib import Path

from kits_ml.data import volumes
from kits_ml.data.dicom_files import is_dicom, series_files
from kits_ml.errors import InputError


def read_image(path: str | Path) -> volumes.Volume:
    """Reads a CT volume in HU.

    Args:
        path: a NIfTI file, or a folder with the slices of one CT series.

    Returns:
        The volume; see `volumes.read_image` and `dicom.read_series`.

    Raises:
        InputError: what is wrong with the file or the series; a single DICOM file, which is no volume.
    """
    path = Path(path)
    if path.is_dir():
        from kits_ml.data import dicom  # half a second of imports

        return dicom.read_series(path)
    if path.is_file() and is_dicom(path):
        raise InputError(f"{path}: a single DICOM file; expected the folder that holds its series, or a NIfTI file")
    return volumes.read_image(path)


def image_files(path: Path) -> list[Path]:
    """The files a scan consists of, in name order; none where it is missing."""
    if path.is_dir():
        return series_files(path)
    return [path] if path.exists() else []
