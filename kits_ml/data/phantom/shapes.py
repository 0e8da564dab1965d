"""Shapes in millimetres, and the slice they are painted on.

World coordinates: x to the patient's left (columns), y to posterior (rows), z to inferior (slices); the origin is
the middle of the spine at the height of the kidneys. A shape answers with its *coverage*: the part of each voxel it
fills, in [0, 1], which is partial volume in plane and through the thickness of the slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits_ml.data.phantom.texture import SmoothNoise

Window = tuple[slice, slice]


@dataclass(kw_only=True)
class Canvas:
    """One slice being painted, cropped to the body.

    Attributes:
        image: HU, `(rows, columns)` float32.
        label_map: `(rows, columns)` uint8.
        x_mm, y_mm: where each pixel is in the undeformed anatomy, `(rows, columns)` float32.
        columns_mm, rows_mm: where columns and rows are on the scanner.
        z_mm: height of the slice's middle.
        thickness_mm: of the slice.
        blur_mm: width of an edge in plane.
        reach_mm: how far the deformation moves a point at most.
        cavity: how much of each pixel is inside the wall of the trunk, `(rows, columns)` float32.
    """

    image: np.ndarray
    label_map: np.ndarray
    x_mm: np.ndarray
    y_mm: np.ndarray
    columns_mm: np.ndarray
    rows_mm: np.ndarray
    z_mm: float
    thickness_mm: float
    blur_mm: float
    reach_mm: float
    cavity: np.ndarray | None = None

    def window(self, x_mm: float, y_mm: float, half_x_mm: float, half_y_mm: float) -> Window | None:
        """The pixels that may lie within a box around a point; `None` if there are none."""
        rows = self._interval(self.rows_mm, y_mm, half_y_mm + self.reach_mm)
        columns = self._interval(self.columns_mm, x_mm, half_x_mm + self.reach_mm)
        return None if rows is None or columns is None else (rows, columns)

    def blend(self, window: Window, coverage: np.ndarray, hu: float | np.ndarray) -> None:
        """Replaces the covered part of each pixel by a tissue."""
        patch = self.image[window]
        change = hu - patch
        change *= coverage
        patch += change

    @staticmethod
    def _interval(positions_mm: np.ndarray, centre_mm: float, half_mm: float) -> slice | None:
        first_mm = float(positions_mm[0])
        step_mm = (float(positions_mm[-1]) - first_mm) / max(len(positions_mm) - 1, 1)
        start = max(0, math.floor((centre_mm - half_mm - first_mm) / step_mm))
        stop = min(len(positions_mm), math.ceil((centre_mm + half_mm - first_mm) / step_mm) + 1)
        return slice(start, stop) if start < stop else None


def ramp(depth: np.ndarray, width: float) -> np.ndarray:
    """Coverage at a depth below a surface: 0 outside, 1/2 on it, 1 inside; in place, edges `width` wide."""
    depth *= 1.0 / width
    depth += 0.5
    return np.clip(depth, 0.0, 1.0, out=depth)


class Ellipsoid:
    """An ellipsoid, perhaps lumpy.

    Args:
        centre_mm: `(x, y, z)`.
        radii_mm: along the three axes of `frame`.
        frame: rows are the unit vectors of the axes, `(3, 3)`; the world's own by default.
        lumps: a field that moves the surface in and out.
        lump_share: standard deviation of that, as a share of the radius.
        edge_mm: width of a gradual edge.
    """

    def __init__(
        self,
        centre_mm: Sequence[float],
        radii_mm: Sequence[float],
        *,
        frame: np.ndarray | None = None,
        lumps: SmoothNoise | None = None,
        lump_share: float = 0.0,
        edge_mm: float = 0.0,
    ):
        self.centre_mm = tuple(float(value) for value in centre_mm)
        self.radii_mm = tuple(float(value) for value in radii_mm)
        self.frame = np.eye(3) if frame is None else np.asarray(frame, float)
        self._lumps, self._lump_share = lumps, lump_share if lumps is not None else 0.0
        self._edge_mm = edge_mm
        form = self.frame.T @ np.diag(1 / np.square(self.radii_mm)) @ self.frame
        self._plane = tuple(float(form[i, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
        inverse = np.linalg.inv(form[:2, :2])
        self._shift = tuple(float(value) for value in -inverse @ form[:2, 2])
        self._half_height_mm = 1 / math.sqrt(float(form[2, 2] - form[:2, 2] @ inverse @ form[:2, 2]))
        self._half_plane_mm = tuple(float(value) for value in np.sqrt(np.diag(inverse)))
        self._scale_mm = float(np.linalg.det(form[:2, :2])) ** -0.25
        reach_mm = self._half_height_mm * (1 + 2.5 * self._lump_share) + 5
        self.z_range_mm = (self.centre_mm[2] - reach_mm, self.centre_mm[2] + reach_mm)

    def coverage(self, canvas: Canvas) -> tuple[Window, np.ndarray] | None:
        """The pixels it may fill and how much of each; `None` where the slice misses it."""
        depth_mm = canvas.z_mm - self.centre_mm[2]
        height = abs(depth_mm) / self._half_height_mm
        across = (canvas.blur_mm + self._edge_mm) * math.sqrt(max(1 - height**2, 0.05)) / self._scale_mm
        width = math.hypot(across, canvas.thickness_mm * min(height, 1.0) / self._half_height_mm)
        rim = 1 + width / 2 + 2.5 * self._lump_share
        if height >= rim:
            return None
        x_mm = self.centre_mm[0] + self._shift[0] * depth_mm
        y_mm = self.centre_mm[1] + self._shift[1] * depth_mm
        spread = math.sqrt(rim**2 - height**2)
        window = canvas.window(x_mm, y_mm, spread * self._half_plane_mm[0], spread * self._half_plane_mm[1])
        if window is None:
            return None
        level = self._level(canvas, window, x_mm, y_mm)
        level += height**2
        np.sqrt(level, out=level)
        np.subtract(1.0, level, out=level)
        if self._lumps is not None:
            lumps = self._lumps.plane(canvas.z_mm, canvas.rows_mm[window[0]], canvas.columns_mm[window[1]])
            np.clip(lumps, -2.5, 2.5, out=lumps)
            lumps *= self._lump_share
            level += lumps
        coverage = ramp(level, width)
        thin = 1.6 * self._half_height_mm / canvas.thickness_mm
        if thin < 1:
            coverage *= thin
        return window, coverage

    def _level(self, canvas: Canvas, window: Window, x_mm: float, y_mm: float) -> np.ndarray:
        xx, xy, yy = self._plane
        x = canvas.x_mm[window] - x_mm
        y = canvas.y_mm[window] - y_mm
        level = x * xx
        if xy:
            level += (2 * xy) * y
        level *= x
        y *= y
        y *= yy
        level += y
        return level


class Column:
    """A vertical shape whose cross-section, a rounded ellipse, changes with height.

    Args:
        knots: rows of `(z, x, y, radius_x, radius_y)` in millimetres, z increasing; linear between, none outside.
        squareness: 0 for an ellipse, towards 1 for fuller corners.
    """

    def __init__(self, knots: np.ndarray | Sequence[Sequence[float]], *, squareness: float = 0.0):
        self._knots = np.asarray(knots, float)
        self._squareness = squareness
        self.z_range_mm = (float(self._knots[0, 0]), float(self._knots[-1, 0]))

    def until(self, z_mm: float) -> Column:
        """The part above a height."""
        return Column(self._knots[self._knots[:, 0] <= z_mm], squareness=self._squareness)

    def inset(self, by_mm: float) -> Column:
        """The column made smaller by a distance."""
        return Column(self._knots - np.array([0, 0, 0, by_mm, by_mm]), squareness=self._squareness)

    def section(self, z_mm: float) -> tuple[float, float, float, float]:
        """`(x, y, radius_x, radius_y)` in millimetres at a height; the ends continue."""
        heights_mm = self._knots[:, 0]
        x, y, radius_x, radius_y = (float(np.interp(z_mm, heights_mm, self._knots[:, i])) for i in range(1, 5))
        return x, y, radius_x, radius_y

    def point(self, angle: float, z_mm: float) -> tuple[float, float, float]:
        """The point of the surface at an angle from posterior towards the patient's left, in radians."""
        x, y, radius_x, radius_y = self.section(z_mm)
        corner = self._squareness * (math.sin(angle) * math.cos(angle)) ** 2
        reach = math.sqrt((1 - math.sqrt(1 - 4 * corner)) / (2 * corner)) if corner > 1e-6 else 1.0
        return x + radius_x * reach * math.sin(angle), y + radius_y * reach * math.cos(angle), z_mm

    def coverage(self, canvas: Canvas) -> tuple[Window, np.ndarray] | None:
        """The pixels it may fill and how much of each; `None` where the slice misses it."""
        x_mm, y_mm, radius_x, radius_y = self.section(canvas.z_mm)
        if min(radius_x, radius_y) < 0.3:
            return None
        window = canvas.window(x_mm, y_mm, radius_x + canvas.blur_mm, radius_y + canvas.blur_mm)
        if window is None:
            return None
        x = canvas.x_mm[window] - x_mm
        x *= 1 / radius_x
        x *= x
        y = canvas.y_mm[window] - y_mm
        y *= 1 / radius_y
        y *= y
        if self._squareness:  # the rounding below holds near the surface only
            np.minimum(x, 1.4, out=x)
            np.minimum(y, 1.4, out=y)
        level = x + y
        if self._squareness:
            x *= y
            x *= self._squareness
            level -= x
        np.sqrt(level, out=level)
        np.subtract(1.0, level, out=level)
        return window, ramp(level, canvas.blur_mm / math.sqrt(radius_x * radius_y))


class Tube:
    """A chain of round segments: a vessel, a loop of bowel, a rib.

    Args:
        points_mm: `(n, 3)` points `(x, y, z)` of the centre line.
        radii_mm: radius at each point, or one for all.
        wall_mm: thickness of the wall, for `coverages`.
    """

    def __init__(
        self, points_mm: Sequence[Sequence[float]], radii_mm: float | Sequence[float], *, wall_mm: float = 0.0
    ):
        points = np.asarray(points_mm, float)
        radii = np.broadcast_to(np.asarray(radii_mm, float), len(points))
        self.wall_mm = wall_mm
        self._segments = [
            (*map(float, points[i]), *map(float, points[i + 1] - points[i]), float(radii[i]), float(radii[i + 1]))
            for i in range(len(points) - 1)
        ]
        reach_mm = float(radii.max()) + 3
        self.z_range_mm = (float(points[:, 2].min()) - reach_mm, float(points[:, 2].max()) + reach_mm)

    def coverage(self, canvas: Canvas) -> tuple[Window, np.ndarray] | None:
        """The pixels it may fill and how much of each; `None` where the slice misses it."""
        found = self.coverages(canvas)
        return None if found is None else found[:2]

    def coverages(self, canvas: Canvas) -> tuple[Window, np.ndarray, np.ndarray | None] | None:
        """As `coverage`, with the coverage of the lumen inside the wall as third part if there is a wall."""
        pieces = [piece for segment in self._segments if (piece := self._piece(segment, canvas)) is not None]
        if not pieces:
            return None
        windows = [piece[0] for piece in pieces]
        rows = slice(min(w[0].start for w in windows), max(w[0].stop for w in windows))
        columns = slice(min(w[1].start for w in windows), max(w[1].stop for w in windows))
        outer = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        inner = np.zeros_like(outer) if self.wall_mm else None
        for window, depth_mm, width_mm, share in pieces:
            place = tuple(
                slice(part.start - whole.start, part.stop - whole.start)
                for part, whole in zip(window, (rows, columns), strict=True)
            )
            if inner is not None:
                lumen = ramp(depth_mm - self.wall_mm, width_mm)
                np.maximum(inner[place], lumen, out=inner[place])
            solid = ramp(depth_mm, width_mm)
            solid *= share
            np.maximum(outer[place], solid, out=outer[place])
        return (rows, columns), outer, inner

    def _piece(self, segment: tuple[float, ...], canvas: Canvas) -> tuple[Window, np.ndarray, float, float] | None:
        """Depth below the surface of one segment, edge width and the most of a voxel it can fill."""
        x0, y0, z0, step_x, step_y, step_z, radius0, radius1 = segment
        radius, rise = max(radius0, radius1), canvas.z_mm - z0
        beyond = max(0.0, -rise / step_z if step_z else 0.0, rise / step_z - 1 if step_z else 0.0)
        apart_mm = abs(rise) if not step_z else beyond * abs(step_z)
        if apart_mm > radius + canvas.thickness_mm / 2:
            return None
        window = self._segment_window(segment, canvas, radius)
        if window is None:
            return None
        length = math.sqrt(step_x**2 + step_y**2 + step_z**2) or 1e-3
        x = canvas.x_mm[window] - x0
        y = canvas.y_mm[window] - y0
        along = x * (step_x / length**2)
        along += y * (step_y / length**2)
        along += rise * step_z / length**2
        np.clip(along, 0.0, 1.0, out=along)
        x -= along * step_x
        y -= along * step_y
        z = rise - along * step_z
        flat = 1 - abs(step_z) / length
        height = min(apart_mm / radius, 1.0)
        x *= x
        y *= y
        z *= z
        x += y
        x += z
        np.sqrt(x, out=x)
        along *= radius1 - radius0
        along += radius0
        along -= x
        width_mm = math.hypot(canvas.blur_mm, canvas.thickness_mm * max(height, 0.5 * flat) * flat)
        share = 1.0 - flat * (1.0 - min(1.0, 1.6 * radius / canvas.thickness_mm))
        return window, along, width_mm, share

    @staticmethod
    def _segment_window(segment: tuple[float, ...], canvas: Canvas, radius: float) -> Window | None:
        """Only the part of the segment near the slice counts, so that steep tubes have small windows."""
        x0, y0, z0, step_x, step_y, step_z, _, _ = segment
        first, last = 0.0, 1.0
        if abs(step_z) > 1e-6:
            margin_mm = radius + canvas.thickness_mm / 2
            ends = sorted((canvas.z_mm + side * margin_mm - z0) / step_z for side in (-1, 1))
            first, last = min(max(ends[0], 0.0), 1.0), min(max(ends[1], 0.0), 1.0)
        middle, half = (first + last) / 2, (last - first) / 2
        edge_mm = radius + canvas.blur_mm
        return canvas.window(
            x0 + middle * step_x, y0 + middle * step_y, half * abs(step_x) + edge_mm, half * abs(step_y) + edge_mm
        )
