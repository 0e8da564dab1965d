"""What makes DICOM slices a volume: each slice's place and scale, and the rules a stack must keep.

Slices are ordered by where they lie along the stack's normal. InstanceNumber, file names and PatientPosition
(head or feet first) play no part, for the positions are in the patient's coordinates already (DICOM PS3.3 C.7.6.2).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from kits_ml.data.volumes import Geometry
from kits_ml.errors import InputError, first_line

#: How far a slice may lie from the even, straight stack, in millimetres. Scanners round positions to 0.1 mm.
TOLERANCE_MM = 0.1
#: Slices nearer than this are at the same place.
SAME_PLACE_MM = 0.01
#: Angle between the direction of the stack and the slices' normal that still is no gantry tilt.
TOLERANCE_TILT_DEG = 0.1
#: Difference of direction cosines that still is the same direction.
TOLERANCE_DIRECTION = 1e-3

#: What pydicom and its decoders raise on files that are damaged.
UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(OSError, EOFError, MemoryError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
)

#: RescaleType of values that are no HU (PS3.3 C.11.1.1.2): densities, concentrations, effective atomic numbers, ...
_OTHER_QUANTITIES = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}

#: DICOM's world is LPS+, NIfTI's RAS+.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What the header of one slice says; see `parse_slice`.

    Attributes:
        path: the file.
        shape: rows and columns.
        spacing_mm: distance between rows and between columns.
        directions: unit vectors `(2, 3)`, LPS+: along a row (columns increase), down a column (rows increase).
        position_mm: centre of the first voxel, `(3,)`, LPS+.
        thickness_mm: None where the header gives none.
        tilt_deg: of the gantry, as the header says; 0 where it says nothing.
        slope, intercept: HU = slope * stored + intercept.
        padding: lowest and highest stored value that mean "nothing was measured here"; None without any.
    """

    path: Path
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    directions: np.ndarray
    position_mm: np.ndarray
    thickness_mm: float | None
    tilt_deg: float
    slope: float
    intercept: float
    padding: tuple[int, int] | None


def parse_slice(header: pydicom.Dataset, path: Path) -> Slice:
    """Reads the place and the scale of a CT slice from its header.

    Sources: DICOM PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image: both rescale tags are required, HU unless
    RescaleType says otherwise; "US", unspecified, is what GDCM and ITK write for HU), C.7.5.1.1.2 (padding).

    Raises:
        InputError: more than one frame, colour, no HU, or a tag that is missing or makes no sense.
    """
    num_frames = _numbers(header, "NumberOfFrames", 1, path, required=False)
    if (num_frames and num_frames[0] > 1) or "PerFrameFunctionalGroupsSequence" in header:
        count = int(num_frames[0]) if num_frames else 1
        raise InputError(f"{path}: {count} frames in one file (enhanced multi-frame); expected one slice a file")
    samples = _numbers(header, "SamplesPerPixel", 1, path, required=False)
    if samples and samples != [1]:
        raise InputError(f"{path}: {samples[0]:g} samples a pixel (colour), expected CT values")
    unit = text_value(header, "RescaleType", path).upper()
    if unit in _OTHER_QUANTITIES:
        raise InputError(f"{path}: RescaleType {unit}, expected HU")
    rows, columns = (_numbers(header, name, 1, path)[0] for name in ("Rows", "Columns"))
    spacing_mm = _numbers(header, "PixelSpacing", 2, path)
    if min(rows, columns, *spacing_mm) <= 0:
        found = f"{rows:g} x {columns:g} pixels of {_listed(spacing_mm)} mm"
        raise InputError(f"{path}: {found}, expected positive numbers")
    directions = np.reshape(_numbers(header, "ImageOrientationPatient", 6, path), (2, 3))
    if np.abs(directions @ directions.T - np.eye(2)).max() > 5e-3:
        found = _listed(directions.ravel())
        raise InputError(f"{path}: ImageOrientationPatient {found}, expected two unit vectors at right angles")
    (slope,) = _numbers(header, "RescaleSlope", 1, path)
    if slope == 0:
        raise InputError(f"{path}: RescaleSlope 0, expected the factor from stored values to HU")
    thickness_mm = _numbers(header, "SliceThickness", 1, path, required=False)
    tilt_deg = _numbers(header, "GantryDetectorTilt", 1, path, required=False)
    return Slice(
        path=path,
        shape=(int(rows), int(columns)),
        spacing_mm=tuple(spacing_mm),
        directions=directions,
        position_mm=np.array(_numbers(header, "ImagePositionPatient", 3, path)),
        thickness_mm=thickness_mm[0] if thickness_mm else None,
        tilt_deg=tilt_deg[0] if tilt_deg else 0.0,
        slope=slope,
        intercept=_numbers(header, "RescaleIntercept", 1, path)[0],
        padding=_padding(header, path),
    )


def stack_slices(slices: Sequence[Slice], folder: Path) -> tuple[list[Slice], Geometry, str]:
    """Puts slices in order and checks that they are one whole, straight, even stack.

    Args:
        slices: at least one, in any order.
        folder: what messages name.

    Returns:
        The slices in order along their normal; the grid of an array `(columns, rows, slices)` of them, in RAS+ as
        NIfTI wants it; and a note for the user, empty if there is nothing to say. A single slice is as deep as its
        SliceThickness. Slices missing at either end of a stack leave no trace and cannot be found.

    Raises:
        InputError: slices that differ in size, spacing or direction, that lie at the same place, that are missing,
            uneven, shifted or tilted; or a single slice without thickness.
    """
    for one in slices:
        _check_alike(one, slices[0])
        if abs(one.tilt_deg) > TOLERANCE_TILT_DEG:
            raise InputError(
                f"{folder}: gantry tilt of {one.tilt_deg:g} degrees (GantryDetectorTilt in {one.path.name}), "
                "expected none; resample the series without tilt first"
            )
    directions = _orthonormal(slices[0].directions)
    heights = np.array([one.position_mm @ directions[2] for one in slices])
    order = np.argsort(heights, kind="stable")
    ordered, heights = [slices[index] for index in order], heights[order]
    note = ""
    if len(ordered) > 1:
        _check_heights(heights, ordered, folder)
        _check_straight(ordered, heights, directions[2], folder)
        gap_mm = float(heights[-1] - heights[0]) / (len(ordered) - 1)
    else:
        gap_mm = ordered[0].thickness_mm or 0.0
        if gap_mm <= 0:
            raise InputError(f"{ordered[0].path}: a single slice without SliceThickness, expected one or more slices")
        note = f"{folder}: a single slice; its thickness of {gap_mm:g} mm is taken for its depth"
    return ordered, _geometry(ordered, directions, gap_mm), note


def _geometry(ordered: list[Slice], directions: np.ndarray, gap_mm: float) -> Geometry:
    """DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, with the slices as third axis."""
    (rows, columns), (row_mm, column_mm) = ordered[0].shape, ordered[0].spacing_mm
    affine = np.eye(4)
    # PixelSpacing gives the distance between rows first; a row runs along the first direction
    affine[:3, :3] = directions.T * (column_mm, row_mm, gap_mm)
    affine[:3, 3] = ordered[0].position_mm
    return Geometry(shape=(columns, rows, len(ordered)), affine=_LPS_TO_RAS @ affine)


def _orthonormal(directions: np.ndarray) -> np.ndarray:
    """Row and column direction without rounding, and the normal: `(3, 3)`."""
    along = directions[0] / np.linalg.norm(directions[0])
    down = directions[1] - (directions[1] @ along) * along
    down /= np.linalg.norm(down)
    return np.array([along, down, np.cross(along, down)])


def _check_alike(one: Slice, first: Slice) -> None:
    found = expected = None
    if one.shape != first.shape:
        found, expected = ("{} rows x {} columns".format(*each.shape) for each in (one, first))
    elif not np.allclose(one.spacing_mm, first.spacing_mm, rtol=1e-4, atol=0):
        found, expected = (f"PixelSpacing {_listed(each.spacing_mm)} mm" for each in (one, first))
    elif np.abs(one.directions - first.directions).max() > TOLERANCE_DIRECTION:
        found, expected = (f"ImageOrientationPatient {_listed(each.directions.ravel())}" for each in (one, first))
    if found:
        raise InputError(f"{one.path}: {found}, expected {expected} as in {first.path.name}")


def _check_heights(heights: np.ndarray, ordered: list[Slice], folder: Path) -> None:
    gaps = np.diff(heights)
    same = np.flatnonzero(gaps < SAME_PLACE_MM)
    if same.size:
        first, second = ordered[same[0]].path.name, ordered[same[0] + 1].path.name
        raise InputError(
            f"{folder}: {same.size} of {len(ordered)} slices at the place of another one (first {first} and {second} "
            f"at {heights[same[0]]:.2f} mm), expected one slice a position; two phases or copies in one series?"
        )
    gap_mm = np.sort(gaps)[(len(gaps) - 1) // 2]
    holes = [
        (index, round(gaps[index] / gap_mm) - 1)
        for index in np.flatnonzero(gaps > 1.5 * gap_mm)
        if abs(gaps[index] - round(gaps[index] / gap_mm) * gap_mm) <= max(2 * TOLERANCE_MM, 0.05 * gap_mm)
    ]
    if holes:
        named = [f"{heights[index]:.2f} and {heights[index + 1]:.2f} mm" for index, _ in holes[:3]]
        more = f" and {len(holes) - 3} more gaps" if len(holes) > 3 else ""
        count = sum(count for _, count in holes)
        raise InputError(
            f"{folder}: {count} slice{'s are' if count > 1 else ' is'} missing, between {', '.join(named)}{more}; "
            f"expected a slice every {gap_mm:.3g} mm"
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > TOLERANCE_MM:
        raise InputError(
            f"{folder}: uneven slice spacing, {gaps.min():.3f} to {gaps.max():.3f} mm; expected even spacing, "
            f"no slice more than {TOLERANCE_MM} mm off"
        )


def _check_straight(ordered: list[Slice], heights: np.ndarray, normal: np.ndarray, folder: Path) -> None:
    """Slices must lie above each other: what moves in the plane is a tilt where it grows evenly, else a shift."""
    positions = np.array([one.position_mm for one in ordered])
    rise = heights - heights[0]
    sideways = positions - positions[0] - np.outer(rise, normal)
    allowed = np.maximum(TOLERANCE_MM, math.tan(math.radians(TOLERANCE_TILT_DEG)) * rise)
    lengths = np.linalg.norm(sideways, axis=1)
    if (lengths <= allowed).all():
        return
    slope = rise @ sideways / (rise @ rise)
    rest = np.linalg.norm(sideways - np.outer(rise, slope), axis=1)
    if rest.max() <= TOLERANCE_MM:
        angle = math.degrees(math.atan(float(np.linalg.norm(slope))))
        raise InputError(
            f"{folder}: gantry tilt, the slices are stacked {angle:.1f} degrees off their normal; expected at most "
            f"{TOLERANCE_TILT_DEG:g}; resample the series without tilt first"
        )
    worst = int(np.argmax(lengths - allowed))
    raise InputError(
        f"{ordered[worst].path}: shifted by {lengths[worst]:.2f} mm within its plane against "
        f"{ordered[0].path.name}, expected slices straight above each other"
    )


def text_value(header: pydicom.Dataset, keyword: str, path: Path) -> str:
    """A tag's text on one line, several values joined by backslashes; empty where it is missing.

    Raises:
        InputError: a value that cannot be read.
    """
    try:
        value = header.get(keyword)
        values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
        return "" if value is None else " ".join("\\".join(str(one) for one in values).split())
    except UNREADABLE as error:
        raise InputError(f"{path}: unreadable {keyword} ({first_line(error)})") from error


def _numbers(
    header: pydicom.Dataset, keyword: str, count: int, path: Path, *, required: bool = True
) -> list[float] | None:
    """The finite numbers of a tag; None where it is empty or missing and not required."""
    try:
        value = header.get(keyword)
        value = [] if value is None or value == "" else value
        values = [float(value)] if isinstance(value, str | int | float) else [float(one) for one in value]
    except UNREADABLE as error:
        raise InputError(f"{path}: unreadable {keyword} ({first_line(error)})") from error
    if not values and not required:
        return None
    if not values:
        raise InputError(f"{path}: no {keyword}, expected {count} numbers as in every CT slice")
    if len(values) != count or not all(map(math.isfinite, values)):
        raise InputError(f"{path}: {keyword} {_listed(values)}, expected {count} finite numbers")
    return values


def _padding(header: pydicom.Dataset, path: Path) -> tuple[int, int] | None:
    """Stored values that mean padding; a file may give them as unsigned where its voxels are signed."""
    ends = [
        _numbers(header, name, 1, path, required=False) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if ends[0] is None:
        return None
    bits = int(_numbers(header, "BitsAllocated", 1, path)[0])
    if bits not in (8, 16, 32):
        raise InputError(f"{path}: BitsAllocated {bits}, expected 16 as in every CT slice")
    values = [int(end[0]) for end in ends if end]
    if _numbers(header, "PixelRepresentation", 1, path) == [1]:
        values = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in values]
    return min(values), max(values)


def _listed(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
