"""Arrays and voxel sizes from one order of axes to another, named by axis codes such as `"RAS"`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nibabel import orientations

from kits_ml.errors import InputError


def reorient(array: np.ndarray, *, source: str, target: str) -> np.ndarray:
    """Permutes and flips axes from one orientation to another; a view.

    Args:
        array: a volume of three axes.
        source: axis codes of `array`, e.g. `"RAS"`.
        target: axis codes wanted, e.g. `"IPL"`.

    Raises:
        InputError: codes that do not name each of the three directions once.
    """
    for codes in (source, target):
        axes = sorted("RAS"["RASLPI".index(code) % 3] for code in codes if code in "RASLPI")
        if len(codes) != 3 or axes != ["A", "R", "S"]:
            raise InputError(f"orientation {codes!r}: expected three axis codes, one each of R/L, A/P, S/I")
    transform = orientations.ornt_transform(orientations.axcodes2ornt(source), orientations.axcodes2ornt(target))
    return orientations.apply_orientation(array, transform)


def reorient_spacing(spacing_mm: Sequence[float], *, source: str, target: str) -> tuple[float, ...]:
    """The voxels' size along the axes of what `reorient` gives.

    Args:
        spacing_mm: along the three axes of the array before.
        source, target: as for `reorient`.

    Raises:
        InputError: not three sizes.
    """
    if len(spacing_mm) != 3:
        raise InputError(f"spacing_mm: found {len(spacing_mm)} values, expected 3, one for each axis of the array")
    directions = ["RASLPI".index(code) % 3 for code in source]
    return tuple(float(spacing_mm[directions.index("RASLPI".index(code) % 3)]) for code in target)
