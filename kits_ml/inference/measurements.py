"""What is seen in a label map: kidneys with their sides, tumours with their diameters, and crumbs.

A kidney is a connected piece of all that is labelled, tumour included; pieces that touch by a corner are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from kits_ml.config import QualitySettings
from kits_ml.data.body_box import find_body_box
from kits_ml.inference.pieces import Pieces
from kits_ml.inference.shapes import Shape
from kits_ml.inference.uncertainty import UncertaintyMeter
from kits_ml.labels import KIDNEY, LABEL_NAMES, NUM_CLASSES, TUMOUR

Side = Literal["left", "right", "both"]
Box = tuple[slice, slice, slice]

#: A piece with at least this share of its voxels on either side of the body's middle lies on both.
BOTH_SIDES_SHARE = 0.2
#: Two kidneys further apart than this, from left to right, are a left and a right one even where the body's middle is
#: misjudged. The spine alone is wider than half of it.
APART_MM = 60.0


@dataclass(frozen=True, kw_only=True)
class Kidney:
    """A kidney with its tumours.

    Attributes:
        side: the patient's left or right; `both` for a piece that lies on both sides of the body's middle.
        volume_ml: with its tumours.
        tumour_ml: of its tumours alone.
        length_mm: largest diameter, tumours included; see `shapes.largest_diameter`.
        mean_hu: of its tissue without tumours.
        centre: slice, row, column of its centre of gravity, from 0.
        confidence: mean of the highest softmax over its tissue without tumours, [0, 1]; None where no uncertainty is
            known.
        at_end: whether it reaches the first or the last slice, beyond which it may go on.
    """

    side: Side
    volume_ml: float
    tumour_ml: float
    length_mm: float
    mean_hu: float
    centre: tuple[int, int, int]
    confidence: float | None
    at_end: bool


@dataclass(frozen=True, kw_only=True)
class Tumour:
    """A connected piece of tumour.

    Attributes:
        kidney: number of the kidney that it touches, from 0; None where it touches none.
        side: that kidney's; where it touches none, that of its own place.
        volume_ml: its volume.
        diameter_mm: largest diameter in space; see `shapes.largest_diameter`.
        axial_diameter_mm: largest diameter within a slice, as RECIST measures it.
        axial_slice: the slice of that diameter, from 0.
        mean_hu: of its voxels.
        centre: slice, row, column of its centre of gravity, from 0.
        confidence: mean of the highest softmax over its voxels, [0, 1]; None where no uncertainty is known.
    """

    kidney: int | None
    side: Side
    volume_ml: float
    diameter_mm: float
    axial_diameter_mm: float
    axial_slice: int
    mean_hu: float
    centre: tuple[int, int, int]
    confidence: float | None


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A piece that is too small to be a kidney or a tumour.

    Attributes:
        label: `kidney` or `tumour`.
        volume_ml: its volume.
        centre: slice, row, column of its centre of gravity, from 0.
    """

    label: str
    volume_ml: float
    centre: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All that was seen: kidneys from the patient's right to left, tumours and fragments from large to small."""

    kidneys: tuple[Kidney, ...] = ()
    tumours: tuple[Tumour, ...] = ()
    fragments: tuple[Fragment, ...] = ()


def measure(
    image: np.ndarray,
    label_map: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    uncertainty: UncertaintyMeter | None = None,
    settings: QualitySettings,
) -> Measurements:
    """Measures every connected piece of a label map.

    Args:
        image: `(slices, rows, columns)` in HU, columns to the patient's left.
        label_map: the same shape, values 0, 1, 2.
        spacing_mm: distance between slices, rows and columns.
        uncertainty: of the same scan.
        settings: what is a fragment.

    Returns:
        The measurements; empty without a labelled voxel. A piece with too little kidney tissue is no kidney, however
        large its tumour is.
    """
    box = _labelled_box(label_map)
    if box is None:
        return Measurements()
    scan = _Scan(image, label_map, box, spacing_mm, uncertainty)
    middle = body_middle(image[box[0]])
    wholes = Pieces(lambda part: scan.labels[part] > 0, scan.labels.shape)
    whole = scan.gather(wholes, KIDNEY, least_ml=settings.fragment_kidney_ml)
    is_kidney = whole.tissue_ml >= settings.fragment_kidney_ml
    has_tissue = whole.num_voxels[:, KIDNEY] > 0
    kidneys = sorted(np.flatnonzero(has_tissue & is_kidney).tolist(), key=lambda number: whole.centres[number, 2])
    sides = _sides(kidneys, whole, middle, column_mm=spacing_mm[2])
    small = [whole.fragment(number) for number in np.flatnonzero(has_tissue & ~is_kidney)]

    pieces = Pieces(lambda part: scan.labels[part] == TUMOUR, scan.labels.shape)
    tumour = scan.gather(pieces, TUMOUR, least_ml=settings.fragment_tumour_ml)
    holders = _holders(pieces, wholes)
    tumours = []
    for number in range(1, pieces.count + 1):
        if tumour.tissue_ml[number] < settings.fragment_tumour_ml:
            small.append(tumour.fragment(number))
            continue
        holder = int(holders[number])
        kidney = kidneys.index(holder) if holder in kidneys else None
        side = _side(tumour.shapes[number], middle) if kidney is None else sides[kidney]
        tumours.append(scan.tumour(tumour, number, kidney=kidney, side=side))
    return Measurements(
        kidneys=tuple(scan.kidney(whole, number, side) for number, side in zip(kidneys, sides, strict=True)),
        tumours=tuple(sorted(tumours, key=lambda one: -one.volume_ml)),
        fragments=tuple(sorted(small, key=lambda one: -one.volume_ml)),
    )


def body_middle(image: np.ndarray) -> float:
    """The column, from 0 and between columns too, of the body's middle; the scan's where no body is told from air.

    Args:
        image: `(slices, rows, columns)` in HU.
    """
    found = find_body_box(image)
    first, end = found[1] if found else (0, image.shape[2])
    return (first + end - 1) / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class _Gathered:
    """What is known of a mask's pieces, by number from 1; volumes count the voxels of one label, the tissue.

    Attributes:
        label: of the tissue.
        num_voxels: of each label, `(pieces + 1, classes)`.
        centres: slice, row and column of their centres of gravity in the scan, `(pieces + 1, 3)`.
        shapes: of the large ones.
        voxel_ml: the volume of a voxel.
    """

    label: int
    num_voxels: np.ndarray
    centres: np.ndarray
    shapes: Mapping[int, Shape]
    voxel_ml: float

    @property
    def tissue_ml(self) -> np.ndarray:
        return self.num_voxels[:, self.label] * self.voxel_ml

    def centre(self, number: int) -> tuple[int, int, int]:
        return tuple(round(place) for place in self.centres[number].tolist())

    def fragment(self, number: int) -> Fragment:
        return Fragment(
            label=LABEL_NAMES[self.label],
            volume_ml=float(self.tissue_ml[number]),
            centre=self.centre(number),
        )

    def mean_hu(self, number: int) -> float:
        return self.shapes[number].hu_sum / int(self.num_voxels[number, self.label])


class _Scan:
    """The part of a scan in which something is labelled."""

    def __init__(self, image, label_map, box: Box, spacing_mm: Sequence[float], uncertainty: UncertaintyMeter | None):
        self.image, self.labels, self.box = image[box], label_map[box], box
        self.spacing_mm = tuple(float(size) for size in spacing_mm)
        self.voxel_ml = float(np.prod(self.spacing_mm)) / 1000
        self.uncertainty = uncertainty
        self.shape = image.shape

    def gather(self, pieces: Pieces, label: int, *, least_ml: float) -> _Gathered:
        """Looks at all pieces, a slab at a time; at the shape of those alone that have that volume at least."""
        starts = np.array([part.start for part in self.box])
        num_voxels = np.zeros((pieces.count + 1, NUM_CLASSES), np.int64)
        sums = np.zeros((pieces.count + 1, 3))
        large = np.flatnonzero(pieces.num_voxels * self.voxel_ml >= least_ml).tolist()
        shapes = {number: Shape(self.shape[2]) for number in large if number}
        for part, numbers in pieces.numbers():
            labels, confidence = self.labels[part], self._confidence_of(part)
            for number, box in enumerate(ndimage.find_objects(numbers), start=1):
                if box is None:
                    continue
                mask = numbers[box] == number
                start = np.add(starts, [part.start + box[0].start, box[1].start, box[2].start])
                num_voxels[number] += np.bincount(labels[box][mask], minlength=NUM_CLASSES)
                sums[number] += _place_sums(mask, start)
                if number not in shapes:
                    continue
                shapes[number].add(
                    mask,
                    start.tolist(),
                    tissue=mask & (labels[box] == label),
                    image=self.image[part][box],
                    confidence=None if confidence is None else confidence[box],
                )
                if label == TUMOUR:
                    shapes[number].add_axial(mask, int(start[0]), self.spacing_mm[1:])
        centres = sums / np.maximum(num_voxels.sum(axis=1, keepdims=True), 1)
        return _Gathered(label=label, num_voxels=num_voxels, centres=centres, shapes=shapes, voxel_ml=self.voxel_ml)

    def kidney(self, whole: _Gathered, number: int, side: Side) -> Kidney:
        shape = whole.shapes[number]
        return Kidney(
            side=side,
            volume_ml=float(whole.num_voxels[number].sum() * self.voxel_ml),
            tumour_ml=float(whole.num_voxels[number, TUMOUR] * self.voxel_ml),
            length_mm=shape.length_mm(self.spacing_mm),
            mean_hu=whole.mean_hu(number),
            centre=whole.centre(number),
            confidence=self._confidence(whole, number),
            at_end=shape.first_slice == 0 or shape.end_slice == self.shape[0],
        )

    def tumour(self, tumour: _Gathered, number: int, *, kidney: int | None, side: Side) -> Tumour:
        shape = tumour.shapes[number]
        longest = max(shape.axial_mm, key=lambda index: round(shape.axial_mm[index], 6))  # of equals the first
        return Tumour(
            kidney=kidney,
            side=side,
            volume_ml=float(tumour.tissue_ml[number]),
            diameter_mm=shape.length_mm(self.spacing_mm),
            axial_diameter_mm=shape.axial_mm[longest],
            axial_slice=longest,
            mean_hu=tumour.mean_hu(number),
            centre=tumour.centre(number),
            confidence=self._confidence(tumour, number),
        )

    def _confidence(self, gathered: _Gathered, number: int) -> float | None:
        if self.uncertainty is None:
            return None
        return gathered.shapes[number].confidence_sum / int(gathered.num_voxels[number, gathered.label]) / 255

    def _confidence_of(self, part: slice) -> np.ndarray | None:
        if self.uncertainty is None:
            return None
        slices, rows, columns = self.box
        return self.uncertainty.confidence[slices.start + part.start : slices.start + part.stop, rows, columns]


def _labelled_box(label_map: np.ndarray) -> Box | None:
    """The smallest box around all labels, found slice by slice; None without any."""
    slices = [index for index, one in enumerate(label_map) if one.any()]
    if not slices:
        return None
    plane = np.zeros(label_map.shape[1:], bool)
    for index in slices:
        plane |= label_map[index] > 0
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return tuple(slice(int(hits[0]), int(hits[-1]) + 1) for hits in (slices, rows, columns))


def _place_sums(mask: np.ndarray, start: np.ndarray) -> list[float]:
    """The sums of a mask's slices, rows and columns, counted from where it starts."""
    profiles = (mask.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1)))
    return [
        float(profile @ (np.arange(len(profile)) + first)) for profile, first in zip(profiles, start, strict=True)
    ]


def _holders(pieces: Pieces, wholes: Pieces) -> np.ndarray:
    """For each piece the whole that it is part of, `(pieces + 1,)`; touching pieces are one, so it is part of one."""
    holders = np.zeros(pieces.count + 1, np.int64)
    if pieces.count:
        for (_, numbers), (_, around) in zip(pieces.numbers(), wholes.numbers(), strict=True):
            inside = numbers > 0
            holders[numbers[inside]] = around[inside]
    return holders


def _sides(kidneys: Sequence[int], whole: _Gathered, middle: float, *, column_mm: float) -> list[Side]:
    """Sides of kidneys in order of their columns: by the body's middle, or of two that lie apart by each other."""
    sides = [_side(whole.shapes[number], middle) for number in kidneys]
    if len(kidneys) == 2 and sides[0] == sides[1] != "both":
        right, left = (whole.centres[number, 2] for number in kidneys)
        if (left - right) * column_mm >= APART_MM:
            return ["right", "left"]
    return sides


def _side(shape: Shape, middle: float) -> Side:
    """Columns run to the patient's left."""
    columns = np.arange(len(shape.by_column))
    left = shape.by_column[columns > middle].sum() / shape.by_column.sum()
    if BOTH_SIDES_SHARE <= left <= 1 - BOTH_SIDES_SHARE:
        return "both"
    return "left" if left > 0.5 else "right"


def as_dict(one: Any) -> dict[str, Any]:
    """A kidney, tumour or fragment for JSON: three decimals of whatever has any."""
    values = {}
    for name in one.__dataclass_fields__:
        value = getattr(one, name)
        values[name] = round(value, 3) if isinstance(value, float) else list(value) if name == "centre" else value
    return values
