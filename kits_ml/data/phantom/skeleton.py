"""Spine, ribs and pelvis: bright shells around marrow."""

from __future__ import annotations

import math

import numpy as np

from kits_ml import labels
from kits_ml.data.phantom.body import Patient
from kits_ml.data.phantom.layers import Hollow, Layer, Solid, Tissue
from kits_ml.data.phantom.shapes import Canvas, Column, Ellipsoid, Tube

_DISC_MM = 8.0


class VertebralBodies:
    """The column of vertebral bodies and discs in front of the canal."""

    def __init__(self, patient: Patient, rng: np.random.Generator, *, cortex_hu: float, marrow_hu: float):
        self._cortex_hu = cortex_hu
        self._marrow = Tissue(hu=marrow_hu, mottle_hu=38.0, noise=patient.noise(1.6, rng))
        self.period_mm = 34.0 * patient.scale**0.5
        self.phase_mm = float(rng.uniform(0, self.period_mm))
        scale = patient.scale**0.5
        knots = [(-520, 14, 11), (-150, 17, 14), (0, 21, 16), (120, 25, 18), (150, 24, 16)]
        self._knots = [(z, 0.0, 0.0, rx * scale, ry * scale) for z, rx, ry in knots]
        self._outer = Column(self._knots, squareness=0.4)
        self._inner = Column([(z, x, y, rx - 2.0, ry - 2.0) for z, x, y, rx, ry in self._knots], squareness=0.4)
        self.z_range_mm = self._outer.z_range_mm

    def paint(self, canvas: Canvas) -> None:
        """Paints a shell of bone, then marrow or disc, mixed through the thickness of the slice."""
        found = self._outer.coverage(canvas)
        if found is None:
            return
        place = (canvas.z_mm - self.phase_mm + self.period_mm / 2) % self.period_mm - self.period_mm / 2
        softness = max(canvas.thickness_mm, 1.5)
        disc = min(max((_DISC_MM / 2 - abs(place)) / softness + 0.5, 0.0), 1.0)
        plate = min(max((_DISC_MM / 2 + 2.0 - abs(place)) / softness + 0.5, 0.0), 1.0) - disc
        window, coverage = found
        canvas.blend(window, coverage, np.float32(disc * 95 + (1 - disc) * self._cortex_hu))
        canvas.label_map[window][coverage >= 0.5] = labels.BACKGROUND
        window, coverage = self._inner.coverage(canvas)
        marrow = self._marrow.values(canvas, window)
        canvas.blend(window, coverage, marrow * (1 - disc - plate) + (disc * 95 + plate * 0.8 * self._cortex_hu))


class Canal:
    """The spinal canal, a dark hole in a ring of bone."""

    def __init__(self, patient: Patient):
        scale = patient.scale**0.5
        self._ring = Column([(z, 0, 24 * scale, 14 * scale, 11.5 * scale) for z in (-520, 190)])
        self._hole = Column([(z, 0, 24 * scale, 10 * scale, 8 * scale) for z in (-520, 190)])
        self.z_range_mm = self._ring.z_range_mm

    def paint(self, canvas: Canvas) -> None:
        """Paints a thin grey ring of ligament and the canal."""
        for shape, hu in ((self._ring, 75.0), (self._hole, 28.0)):
            found = shape.coverage(canvas)
            if found is not None:
                canvas.blend(*found, np.float32(hu))


def skeleton(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Spine, ribs, pelvis and femora."""
    age = rng.uniform(0, 1)  # old bone is thinner and holds less mineral
    cortex_hu, marrow_hu = 760 - 260 * age, 260 - 150 * age
    bodies = VertebralBodies(patient, rng, cortex_hu=cortex_hu, marrow_hu=marrow_hu)
    cortex = Tissue(hu=cortex_hu)
    marrow = Tissue(hu=marrow_hu + 60, mottle_hu=60.0, noise=patient.noise(1.4, rng))
    layers: list[Layer] = [bodies]
    levels = range(-16, 6)
    for level in levels:
        layers += _arch(patient, bodies.phase_mm + (level + 0.5) * bodies.period_mm, cortex, marrow)
    layers.append(Canal(patient))
    layers += _ribs(patient, bodies, rng, cortex=cortex, marrow=marrow)
    layers += _pelvis(patient, cortex, marrow)
    return layers


def _arch(patient: Patient, z_mm: float, cortex: Tissue, marrow: Tissue) -> list[Layer]:
    """Pedicles, laminae, transverse and spinous processes of the vertebra around a height."""
    if z_mm > 160:
        return []
    size = patient.scale**0.5
    pieces: list[tuple[list[tuple[float, float, float]], float]] = []
    for side in (-1, 1):
        pieces.append(([(side * 15, 10, z_mm - 6), (side * 17, 26, z_mm - 4)], 5.0))
        pieces.append(([(side * 18, 28, z_mm - 10), (side * 19, 31, z_mm + 14)], 6.5))
        pieces.append(([(side * 17, 29, z_mm), (0, 43, z_mm + 10)], 4.2))
        pieces.append(([(side * 18, 27, z_mm - 4), (side * 42, 34, z_mm - 4)], 4.0))
    pieces.append(([(0, 42, z_mm + 6), (0, 62, z_mm + 14)], 4.5))
    layers: list[Layer] = []
    for points, radius_mm in pieces:
        tube = Tube([(x * size, y * size, z) for x, y, z in points], radius_mm * size, wall_mm=1.7)
        layers.append(Hollow(tube, wall=cortex, filling=marrow, label=labels.BACKGROUND))
    return layers


def _ribs(
    patient: Patient, bodies: VertebralBodies, rng: np.random.Generator, *, cortex: Tissue, marrow: Tissue
) -> list[Layer]:
    """Twelve pairs that start beside the spine and sink as they run forward inside the wall."""
    layers: list[Layer] = []
    lowest = round((-34 - bodies.phase_mm) / bodies.period_mm) * bodies.period_mm + bodies.phase_mm
    gristle = Tissue(hu=105.0)
    for number in range(12, 0, -1):
        start_mm = lowest - (12 - number) * 0.86 * bodies.period_mm
        reach = {12: 1.25, 11: 1.75}.get(number, 2.45)
        for side in (-1, 1):
            drop_mm = rng.normal(88, 6)
            angles = np.linspace(0.34, reach, 14)
            points = [_on_wall(patient, side * a, start_mm + drop_mm * math.sin(a / 2.6 * 1.57)) for a in angles]
            radii = np.full(len(points), 5.2 * patient.scale**0.5)
            radii[-1] = 3.5
            layers.append(
                Hollow(Tube(points, radii, wall_mm=1.6), wall=cortex, filling=marrow, label=labels.BACKGROUND)
            )
            if number <= 10:
                end = points[-1]
                angles = np.linspace(reach, 2.95, 6)
                rise = np.linspace(0, -40 - 4 * (number - 5), 6)
                cartilage = [_on_wall(patient, side * a, end[2] + r) for a, r in zip(angles, rise, strict=True)]
                layers.append(Solid(Tube(cartilage, 4.6), gristle))
    sternum = [(0.0, _on_wall(patient, math.pi, z)[1] - 1.0, z) for z in (-330, -250, -175)]
    layers += [
        Hollow(
            Tube([(x + dx, y, z) for x, y, z in sternum], 6.5, wall_mm=1.5),
            wall=cortex,
            filling=marrow,
            label=labels.BACKGROUND,
        )
        for dx in (-9, 0, 9)
    ]
    return layers


def _on_wall(patient: Patient, angle: float, z_mm: float) -> tuple[float, float, float]:
    """A point in the middle of the wall of the trunk."""
    outer, inner = patient.muscle.point(angle, z_mm), patient.cavity.point(angle, z_mm)
    share = 0.30 if abs(angle) > 0.9 else 0.12
    return outer[0] * share + inner[0] * (1 - share), outer[1] * share + inner[1] * (1 - share), z_mm


def _pelvis(patient: Patient, cortex: Tissue, marrow: Tissue) -> list[Layer]:
    """Iliac wings as stacked bars, sacrum, hip joints and pubis."""
    scale = patient.scale
    layers: list[Layer] = []
    for z_mm in range(92, 236, 9):
        down = (z_mm - 92) / 140
        spread = min(1.0, 0.35 + 2.2 * down)
        for side in (-1, 1):
            middle = (side * (104 - 18 * down) * scale, (14 - 6 * down) * scale, z_mm)
            back = (side * (104 - 52 * spread) * scale, (14 + 36 * spread) * scale, z_mm)
            front = (side * (104 + 14 * spread - 34 * down) * scale, (14 - 62 * spread) * scale, z_mm)
            tube = Tube([back, middle, front], [7.5, 5.5, 6.5], wall_mm=2.0)
            layers.append(Hollow(tube, wall=cortex, filling=marrow, label=labels.BACKGROUND))
    layers.append(
        Solid(Ellipsoid((0, 30 * scale, 188), (52 * scale, 20 * scale, 58)), cortex, label=labels.BACKGROUND)
    )
    layers.append(Solid(Ellipsoid((0, 30 * scale, 188), (50 * scale, 18 * scale, 56)), marrow))
    for side in (-1, 1):
        hip = (side * 88 * scale, 0.0, 252.0)
        layers += [
            Solid(Ellipsoid(hip, (25, 25, 25)), cortex, label=labels.BACKGROUND),
            Solid(Ellipsoid(hip, (23, 23, 23)), marrow),
            Hollow(
                Tube([hip, (side * 118 * scale, 10, 285), (side * 112 * scale, 6, 460)], [14, 17, 13], wall_mm=4.0),
                wall=cortex,
                filling=marrow,
                label=labels.BACKGROUND,
            ),
            Hollow(
                Tube([hip, (side * 45 * scale, -50 * scale, 262), (0, -62 * scale, 276)], 8.0, wall_mm=2.0),
                wall=cortex,
                filling=marrow,
                label=labels.BACKGROUND,
            ),
        ]
    return layers
