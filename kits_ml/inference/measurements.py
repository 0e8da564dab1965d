"""What is seen in a label map: kidneys with their sides, tumours with their diameters, and crumbs.

A kidney is a connected piece of all that is labelled, tumour included; pieces that touch by a corner are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from kits_ml.config import QualitySettings
from kits_ml.data.body_box import find_body_box
from kits_ml.inference.uncertainty import UncertaintyMeter, mean_of
from kits_ml.labels import KIDNEY, LABEL_NAMES, TUMOUR

Side = Literal["left", "right", "both"]
Box = tuple[slice, slice, slice]

#: A piece with at least this share of its voxels on either side of the body's middle lies on both.
BOTH_SIDES_SHARE = 0.2
#: Two kidneys further apart than this, from left to right, are a left and a right one even where the body's middle is
#: misjudged. The spine alone is wider than half of it.
APART_MM = 60.0

_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class Kidney:
    """A kidney with its tumours.

    Attributes:
        side: the patient's left or right; `both` for a piece that lies on both sides of the body's middle.
        volume_ml: with its tumours.
        tumour_ml: of its tumours alone.
        length_mm: largest diameter, tumours included; see `largest_diameter`.
        mean_hu: of its tissue without tumours.
        centre: slice, row, column of its centre of gravity, from 0.
        confidence: mean softmax of its tissue without tumours, [0, 1]; None where no uncertainty is known.
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
        diameter_mm: largest diameter in space; see `largest_diameter`.
        axial_diameter_mm: largest diameter within a slice, as RECIST measures it.
        axial_slice: the slice of that diameter, from 0.
        mean_hu: of its voxels.
        centre: slice, row, column of its centre of gravity, from 0.
        confidence: mean softmax of its voxels, [0, 1]; None where no uncertainty is known.
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
    kidneys, small = [], []
    for piece in scan.pieces(scan.labels > 0):
        tissue = int((piece.labels == KIDNEY).sum())
        if tissue and tissue * scan.voxel_ml >= settings.fragment_kidney_ml:
            kidneys.append(piece)
        elif tissue:
            small.append(scan.fragment(piece, KIDNEY))
    middle = body_middle(image[box[0]])
    kidneys.sort(key=lambda piece: piece.centre[2])
    sides = _sides(kidneys, middle, column_mm=spacing_mm[2])
    numbers = np.zeros(scan.labels.shape, np.uint16)
    for number, piece in enumerate(kidneys, start=1):
        numbers[piece.box][piece.mask] = number
    tumours = []
    for piece in scan.pieces(scan.labels == TUMOUR):
        if piece.mask.sum() * scan.voxel_ml < settings.fragment_tumour_ml:
            small.append(scan.fragment(piece, TUMOUR))
            continue
        number = int(numbers[piece.box][piece.mask][0])  # touching pieces are one: every voxel has the same
        side = sides[number - 1] if number else _side(piece, middle)
        tumours.append(scan.tumour(piece, kidney=number - 1 if number else None, side=side))
    return Measurements(
        kidneys=tuple(scan.kidney(piece, side) for piece, side in zip(kidneys, sides, strict=True)),
        tumours=tuple(sorted(tumours, key=lambda one: -one.volume_ml)),
        fragments=tuple(sorted(small, key=lambda one: -one.volume_ml)),
    )


def largest_diameter(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Largest distance between two points of a mask's surface, in millimetres: Feret's diameter.

    The surface is taken midway between neighbouring voxels of which one is in the mask, which is where a triangle
    mesh at 0.5 has its corners (pyradiomics' Maximum3DDiameter). A sphere so keeps its diameter, where the distance
    of voxel centres would fall short by about a voxel; a single voxel measures its longest edge.

    Args:
        mask: boolean, two or three axes, at least one voxel; its surroundings count as outside.
        spacing_mm: distance between voxels along each axis.
    """
    points = []
    for axis in range(mask.ndim):
        padding = [(int(one == axis),) * 2 for one in range(mask.ndim)]
        steps = np.argwhere(np.diff(np.pad(mask, padding).astype(np.int8), axis=axis)).astype(float)
        steps[:, axis] -= 0.5
        points.append(steps)
    surface = np.concatenate(points) * np.asarray(spacing_mm, float)
    corners = surface[ConvexHull(surface).vertices]
    return float(pdist(corners).max())


def body_middle(image: np.ndarray) -> float:
    """The column, from 0 and between columns too, of the body's middle; the scan's where no body is told from air.

    Args:
        image: `(slices, rows, columns)` in HU.
    """
    found = find_body_box(image)
    first, end = found[1] if found else (0, image.shape[2])
    return (first + end - 1) / 2


@dataclass(frozen=True, eq=False)
class _Piece:
    """A connected piece: its box within what is labelled, its mask and labels there, and its centre there."""

    box: Box
    mask: np.ndarray
    labels: np.ndarray
    centre: tuple[float, float, float]
    first_column: int


class _Scan:
    """The part of a scan in which something is labelled."""

    def __init__(self, image, label_map, box: Box, spacing_mm: Sequence[float], uncertainty: UncertaintyMeter | None):
        self.image, self.labels, self.box = image[box], label_map[box], box
        self.spacing_mm = tuple(float(size) for size in spacing_mm)
        self.voxel_ml = float(np.prod(self.spacing_mm)) / 1000
        self.confidence = None if uncertainty is None else uncertainty.confidence[box]
        self.num_slices = len(image)

    def pieces(self, mask: np.ndarray) -> list[_Piece]:
        numbers, _ = ndimage.label(mask, structure=_TOUCHING)
        found = []
        for number, box in enumerate(ndimage.find_objects(numbers), start=1):
            inside = numbers[box] == number
            local = [np.average(np.arange(size), weights=weight) for size, weight in _profiles(inside)]
            centre = tuple(
                float(place + here.start + there.start)
                for place, here, there in zip(local, box, self.box, strict=True)
            )
            labels = np.where(inside, self.labels[box], 0)
            found.append(_Piece(box, inside, labels, centre, box[2].start + self.box[2].start))
        return found

    def kidney(self, piece: _Piece, side: Side) -> Kidney:
        tissue, first = piece.labels == KIDNEY, piece.box[0].start + self.box[0].start
        return Kidney(
            side=side,
            volume_ml=float(piece.mask.sum() * self.voxel_ml),
            tumour_ml=float((piece.labels == TUMOUR).sum() * self.voxel_ml),
            length_mm=largest_diameter(piece.mask, self.spacing_mm),
            mean_hu=self._mean_hu(piece, tissue),
            centre=_rounded(piece.centre),
            confidence=self._confidence(piece, tissue),
            at_end=first == 0 or first + len(piece.mask) == self.num_slices,
        )

    def tumour(self, piece: _Piece, *, kidney: int | None, side: Side) -> Tumour:
        axial_mm = [largest_diameter(one, self.spacing_mm[1:]) for one in piece.mask]
        longest = int(np.argmax(axial_mm))
        return Tumour(
            kidney=kidney,
            side=side,
            volume_ml=float(piece.mask.sum() * self.voxel_ml),
            diameter_mm=largest_diameter(piece.mask, self.spacing_mm),
            axial_diameter_mm=axial_mm[longest],
            axial_slice=longest + piece.box[0].start + self.box[0].start,
            mean_hu=self._mean_hu(piece, piece.mask),
            centre=_rounded(piece.centre),
            confidence=self._confidence(piece, piece.mask),
        )

    def fragment(self, piece: _Piece, label: int) -> Fragment:
        volume_ml = float((piece.labels == label).sum() * self.voxel_ml)
        return Fragment(label=LABEL_NAMES[label], volume_ml=volume_ml, centre=_rounded(piece.centre))

    def _mean_hu(self, piece: _Piece, mask: np.ndarray) -> float:
        return float(self.image[piece.box][mask].mean(dtype=np.float64))

    def _confidence(self, piece: _Piece, mask: np.ndarray) -> float | None:
        return None if self.confidence is None else mean_of(self.confidence[piece.box], mask)


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


def _profiles(mask: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """For each axis its size and how many voxels lie at each place."""
    axes = range(mask.ndim)
    return [(mask.shape[axis], mask.sum(axis=tuple(one for one in axes if one != axis))) for axis in axes]


def _sides(kidneys: Sequence[_Piece], middle: float, *, column_mm: float) -> list[Side]:
    """Sides of kidneys in order of their columns: by the body's middle, or of two that lie apart by each other."""
    sides = [_side(piece, middle) for piece in kidneys]
    if len(kidneys) == 2 and sides[0] == sides[1] != "both":
        apart_mm = (kidneys[1].centre[2] - kidneys[0].centre[2]) * column_mm
        if apart_mm >= APART_MM:
            return ["right", "left"]
    return sides


def _side(piece: _Piece, middle: float) -> Side:
    """Columns run to the patient's left."""
    by_column = piece.mask.sum(axis=(0, 1))
    columns = np.arange(len(by_column)) + piece.first_column
    left = by_column[columns > middle].sum() / by_column.sum()
    if BOTH_SIDES_SHARE <= left <= 1 - BOTH_SIDES_SHARE:
        return "both"
    return "left" if left > 0.5 else "right"


def _rounded(centre: Sequence[float]) -> tuple[int, int, int]:
    return tuple(round(place) for place in centre)


def as_dict(one: Any) -> dict[str, Any]:
    """A kidney, tumour or fragment for JSON: three decimals of whatever has any."""
    values = {}
    for name in one.__dataclass_fields__:
        value = getattr(one, name)
        values[name] = round(value, 3) if isinstance(value, float) else list(value) if name == "centre" else value
    return values
