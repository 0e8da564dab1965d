"""Whether a header says where its voxels are: in three directions, in millimetres, and as it was meant."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from kits_ml.errors import InputError

#: Axes at right angles up to rounding; beyond, it is a tilted gantry or a damaged affine.
MAX_SHEAR_DEGREES = 0.5

#: NIfTI's codes of units of length that are no millimetres.
_OTHER_UNITS = {1: "metre", 3: "micrometre"}


def check_unit(header: nib.Nifti1Header, path: Path) -> None:
    """Refuses another unit of length than millimetres; many files name none, and mean those.

    Raises:
        InputError: metres or micrometres.
    """
    code = int(header["xyzt_units"]) & 7
    if code in _OTHER_UNITS:
        raise InputError(f"{path}: its unit of length is the {_OTHER_UNITS[code]}, expected the millimetre")


def places_voxels(affine: np.ndarray) -> bool:
    """Whether a matrix gives each axis a direction of its own, and nothing is a kilometre away or long."""
    if not np.isfinite(affine).all() or abs(affine).max() > 1e6 or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return False
    return not np.isnan(orientations.io_orientation(affine)).any()


def shear_degrees(affine: np.ndarray) -> float:
    """How far the axes of a voxel-to-world matrix `(4, 4)` are from being at right angles."""
    directions = _directions(affine)
    cosines = np.abs((directions.T @ directions)[np.triu_indices(3, 1)])
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))).max())


def tilt_degrees(affine: np.ndarray) -> float:
    """How far the axes of a voxel-to-world matrix `(4, 4)` are from the scanner's."""
    return float(np.degrees(np.arccos(np.clip(np.abs(_directions(affine)).max(axis=0), 0, 1))).max())


def doubts(header: nib.Nifti1Header, affine: np.ndarray, path: Path) -> str:
    """What of the placement is not to be relied on; empty if all is."""
    found = []
    if not header["qform_code"] and not header["sform_code"]:
        found.append("its header gives no orientation (qform and sform codes are 0): left and right are a guess")
    if (shear := shear_degrees(affine)) > MAX_SHEAR_DEGREES:
        found.append(f"its axes are {shear:.1f} degrees from right angles: lengths and volumes mislead")
    return f"{path}: {'; '.join(found)}" if found else ""


def _directions(affine: np.ndarray) -> np.ndarray:
    """The axes as columns of length 1, `(3, 3)`."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
