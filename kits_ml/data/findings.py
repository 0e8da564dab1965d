"""What is remarkable about cases: named rules with thresholds, each with its reason.

An error makes a case useless as it is, a warning deserves a look, a note only says what is so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kits_ml.data.fingerprint import Fingerprint
from kits_ml.data.placement import MAX_SHEAR_DEGREES
from kits_ml.data.volumes import HOUSE_ORIENTATION

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

#: A 12-bit scanner ends here; higher values come from metal on an extended scale, or from an overflow.
HIGHEST_HU = 3071
#: Air outside the body is about -1000; lower values are padding around the scanner's field of view.
LOWEST_HU = -1024
#: Every whole scan holds air; without any, intensities were clipped, shifted or cut to the body.
AIR_HU = -500
#: Mean HU of kidney tissue: from fat to more contrast agent than kidneys take up. KiTS19: 35 to 222.
KIDNEY_MEAN_HU = (-20, 400)
#: Pixel sizes of body CT. KiTS19: 0.44 to 1.04.
IN_PLANE_SPACING_MM = (0.3, 1.5)
#: Slices further apart miss small tumours altogether, closer ones are not made. KiTS19: 0.5 to 5.
SLICE_SPACING_MM = (0.2, 7.5)
#: Scanners make square pixels; a larger relative difference comes from resampling or a wrong header.
SQUARE_TOLERANCE = 0.01
#: The matrix of nearly every body CT.
MATRIX = (512, 512)
#: Slices tilted further than this are not quite axial.
MAX_TILT_DEGREES = 5.0
#: Rounding in headers stays below this.
HEADER_SPACING_MM = 0.01
#: A kidney is about 110 mm long: shorter scans hold only part of it, and volumes say nothing.
WHOLE_SCAN_MM = 100.0
#: Kidneys with tumours: from one small kidney to very large masses. KiTS19: 192 to 1962.
KIDNEY_ML = (80.0, 3000.0)
#: From a sphere of 7 mm to very large masses. KiTS19: 0.8 to 1464.
TUMOUR_ML = (0.2, 2500.0)

_CORRECTED = "its labels were corrected in December 2019: make sure to have the later version"
_EXCLUDED = "often left out by others"

#: What is known of single cases of KiTS, by number.
KITS19_ODDITIES = {
    15: f"{_CORRECTED}; {_EXCLUDED}",
    23: f"{_CORRECTED}; {_EXCLUDED}",
    37: f"{_CORRECTED}; {_EXCLUDED}",
    68: _EXCLUDED,
    125: f"{_CORRECTED}; {_EXCLUDED}",
    133: _EXCLUDED,
    160: "252x512x796: a second contrast phase is appended beside the first",
    400: "of KiTS23 is a copy of case_00185",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One remark about one case.

    Attributes:
        case: the case's name.
        level: error, warning or note.
        rule: a short name, the same for all such findings.
        message: what was found and what was expected.
    """

    case: str
    level: Level
    rule: str
    message: str


def judge(fingerprints: Iterable[Fingerprint]) -> list[Finding]:
    """All findings of a folder of cases: of each case, and what cases share. In order of case, then of severity."""
    fingerprints = list(fingerprints)
    found = [
        Finding(case=one.case, level=level, rule=rule, message=message)
        for one in fingerprints
        for rules in (_grid, _hounsfield, _label_map, _known)
        for level, rule, message in rules(one)
    ]
    found += _duplicates(fingerprints)
    return sorted(found, key=lambda finding: (finding.case, LEVELS.index(finding.level)))


def _grid(one: Fingerprint) -> Iterator[tuple[Level, str, str]]:
    """Where the voxels are. NIfTI slices are evenly spaced by construction: what can go wrong is the affine."""
    in_plane = (one.row_spacing_mm, one.column_spacing_mm)
    if not all(_within(value, IN_PLANE_SPACING_MM) for value in in_plane):
        pixel = "x".join(f"{value:g}" for value in in_plane)
        yield "warning", "pixel_size", f"pixels of {pixel} mm, expected {_range(IN_PLANE_SPACING_MM)} mm"
    if abs(in_plane[0] - in_plane[1]) > SQUARE_TOLERANCE * max(in_plane):
        yield "warning", "pixel_not_square", f"pixels of {in_plane[0]:g}x{in_plane[1]:g} mm, expected square ones"
    if not _within(one.slice_spacing_mm, SLICE_SPACING_MM):
        expected = f"expected {_range(SLICE_SPACING_MM)} mm"
        yield "warning", "slice_spacing", f"slices {one.slice_spacing_mm:g} mm apart, {expected}"
    if one.shear_degrees > MAX_SHEAR_DEGREES:
        yield "warning", "sheared", f"axes are {one.shear_degrees:.1f} degrees from right angles: lengths mislead"
    if one.tilt_degrees > MAX_TILT_DEGREES:
        yield "warning", "tilted", f"axes are tilted by {one.tilt_degrees:.1f} degrees: slices are not axial"
    if one.header_spacing_error_mm > HEADER_SPACING_MM:
        yield "warning", "header_spacing", f"pixdim and affine differ by {one.header_spacing_error_mm:.3g} mm"
    if (one.rows, one.columns) != MATRIX:
        yield "note", "matrix", f"{one.rows}x{one.columns} pixels; most CT has {MATRIX[0]}x{MATRIX[1]}"
    if one.orientation != HOUSE_ORIENTATION:
        yield "note", "orientation", f"stored as {one.orientation}, read as {HOUSE_ORIENTATION}"
    if _length_mm(one) < WHOLE_SCAN_MM:
        message = f"covers {_length_mm(one):g} mm, less than a kidney's length: volumes are not judged"
        yield "warning", "short_scan", message


def _hounsfield(one: Fingerprint) -> Iterator[tuple[Level, str, str]]:
    if one.hu.max > HIGHEST_HU:
        yield "warning", "hu_high", f"highest HU {one.hu.max:g}, above {HIGHEST_HU}: metal or an overflow"
    if one.hu.min < LOWEST_HU:
        yield "note", "hu_padding", f"lowest HU {one.hu.min:g}, below {LOWEST_HU}: padding outside the field of view"
    if one.hu.min == one.hu.max:
        yield "error", "constant", f"every voxel is {one.hu.min:g}: an empty image"
    elif one.hu.min > AIR_HU:
        yield "warning", "no_air", f"lowest HU {one.hu.min:g}, expected air: clipped, shifted or cut to the body"
    if not one.whole_hu:
        yield "note", "fractional_hu", "HU are not whole numbers: resampled or rescaled"
    if one.kidney_hu is not None and not _within(one.kidney_hu.mean, KIDNEY_MEAN_HU):
        expected = f"expected {_range(KIDNEY_MEAN_HU)}: not HU, or labels that do not lie on the kidneys"
        yield "error", "kidney_hu", f"mean HU of kidney {one.kidney_hu.mean:.0f}, {expected}"


def _label_map(one: Fingerprint) -> Iterator[tuple[Level, str, str]]:
    if one.note:
        yield "note", "reader", one.note
    if not one.has_labels:
        yield "note", "no_label_map", "no segmentation: good for prediction only"
        return
    if one.labels_dtype != "uint8":
        yield "note", "labels_dtype", f"labels are stored as {one.labels_dtype}; most are uint8"
    if not one.kidney_slices:
        yield "warning", "no_kidney", "the label map is empty"
        return
    if not one.tumour_slices:
        yield "note", "no_tumour", "no voxel is labelled tumour"
    if _length_mm(one) < WHOLE_SCAN_MM:
        return
    if one.kidney_at_end:
        yield "warning", "kidney_at_end", "the first or last slice shows kidney: the scan may cut it off"
    if not _within(one.kidney_ml, KIDNEY_ML):
        yield "warning", "kidney_volume", f"kidneys of {one.kidney_ml:.4g} ml, expected {_range(KIDNEY_ML)} ml"
    if one.tumour_slices and not _within(one.tumour_ml, TUMOUR_ML):
        yield "warning", "tumour_volume", f"tumour of {one.tumour_ml:.3g} ml, expected {_range(TUMOUR_ML)} ml"


def _known(one: Fingerprint) -> Iterator[tuple[Level, str, str]]:
    """Oddities of KiTS, where the name is one of KiTS. Another data set in its layout may use the same names."""
    match = re.fullmatch(r"case_(\d{5})", one.case)
    if match and int(match[1]) in KITS19_ODDITIES:
        yield "note", "known_in_kits", f"if this is KiTS: {one.case} {KITS19_ODDITIES[int(match[1])]}"


def _duplicates(fingerprints: list[Fingerprint]) -> Iterator[Finding]:
    """The same voxels under two names: such cases could end up on both sides of a split."""
    names = defaultdict(list)
    for one in fingerprints:
        names[one.voxels_digest].append(one.case)
    for group in names.values():
        for name in group if len(group) > 1 else ():
            others = ", ".join(other for other in group if other != name)
            yield Finding(case=name, level="error", rule="duplicate", message=f"the same voxels as {others}")


def _length_mm(one: Fingerprint) -> float:
    return one.slices * one.slice_spacing_mm


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"
