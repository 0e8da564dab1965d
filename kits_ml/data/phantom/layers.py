"""What the painter puts on a slice, one after the other: a shape, its tissue, its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kits_ml.data.phantom.shapes import Canvas, Column, Ellipsoid, Tube, Window, ramp
from kits_ml.data.phantom.texture import SmoothNoise


class Layer(Protocol):
    """Something that paints itself on a slice."""

    z_range_mm: tuple[float, float]

    def paint(self, canvas: Canvas) -> None:
        """Paints what the slice shows of it."""


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """A uniform or mottled material.

    Attributes:
        hu: mean.
        mottle_hu: standard deviation of the mottling.
        noise: the field that mottles.
    """

    hu: float
    mottle_hu: float = 0.0
    noise: SmoothNoise | None = None

    def values(self, canvas: Canvas, window: Window) -> float | np.ndarray:
        """HU in a window."""
        if self.noise is None:
            return np.float32(self.hu)
        values = self.noise.plane(canvas.z_mm, canvas.rows_mm[window[0]], canvas.columns_mm[window[1]])
        values *= self.mottle_hu
        values += self.hu
        return values


class Solid:
    """A shape filled with a tissue.

    Args:
        shape: where.
        tissue: what.
        inside: whether it ends at the wall of the trunk's cavity.
        label: written where the shape fills at least half of a pixel; `None` leaves the label map alone.
        only_on: the label is written only over this label.
        clip: another shape that it ends at.
    """

    def __init__(
        self,
        shape: Ellipsoid | Column | Tube,
        tissue: Tissue,
        *,
        inside: bool = False,
        label: int | None = None,
        only_on: int | None = None,
        clip: Ellipsoid | None = None,
    ):
        self._shape, self._tissue, self._inside = shape, tissue, inside
        self._label, self._only_on, self._clip = label, only_on, clip
        self.z_range_mm = shape.z_range_mm

    def paint(self, canvas: Canvas) -> None:
        """Paints tissue, and label where there is one."""
        found = self._shape.coverage(canvas)
        if found is None:
            return
        window, coverage = found
        if self._inside:
            coverage *= canvas.cavity[window]
        if self._clip is not None:
            coverage *= _coverage_within(self._clip, canvas, window)
        canvas.blend(window, coverage, self._tissue.values(canvas, window))
        if self._label is not None:
            labels = canvas.label_map[window]
            mask = coverage >= 0.5
            if self._only_on is not None:
                mask &= labels == self._only_on
            labels[mask] = self._label


class Hollow:
    """A tube with a wall and a filling, and perhaps gas above a fluid level.

    Args:
        tube: with a wall thickness.
        wall, filling: tissues.
        gas_level_mm: y of the fluid level; what lies in front of it is gas.
        inside: whether it ends at the wall of the trunk's cavity.
        label: written where the tube fills at least half of a pixel; `None` leaves the label map alone.
    """

    _GAS_HU = -900.0

    def __init__(
        self,
        tube: Tube,
        *,
        wall: Tissue,
        filling: Tissue,
        gas_level_mm: float | None = None,
        inside: bool = False,
        label: int | None = None,
    ):
        self._label = label
        self._tube, self._wall, self._filling, self._inside = tube, wall, filling, inside
        self._gas_level_mm = gas_level_mm
        self.z_range_mm = tube.z_range_mm

    def paint(self, canvas: Canvas) -> None:
        """Paints the wall, then the lumen."""
        found = self._tube.coverages(canvas)
        if found is None:
            return
        window, outer, inner = found
        if self._inside:
            outer *= canvas.cavity[window]
            inner *= canvas.cavity[window]
        canvas.blend(window, outer, self._wall.values(canvas, window))
        if self._label is not None:
            canvas.label_map[window][outer >= 0.5] = self._label
        filling = np.clip(self._filling.values(canvas, window), self._GAS_HU, 900.0)
        if self._gas_level_mm is not None:
            gas = ramp(self._gas_level_mm - canvas.y_mm[window], 2.0)
            filling = filling + gas * (self._GAS_HU - filling)
        canvas.blend(window, inner, filling)


def _coverage_within(shape: Ellipsoid, canvas: Canvas, window: Window) -> np.ndarray:
    """Coverage of another shape on the pixels of a window."""
    coverage = np.zeros([part.stop - part.start for part in window], np.float32)
    found = shape.coverage(canvas)
    if found is not None:
        common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(window, found[0], strict=True)]
        if all(part.start < part.stop for part in common):
            here, there = (
                tuple(slice(part.start - w.start, part.stop - w.start) for part, w in zip(common, whole, strict=True))
                for whole in (window, found[0])
            )
            coverage[here] = found[1][there]
    return coverage
