"""One patient: habitus, enhancement, the trunk's walls and what they hold apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from kits_ml.data.phantom.distributions import MATRIX, CaseParameters
from kits_ml.data.phantom.layers import Layer, Solid, Tissue
from kits_ml.data.phantom.shapes import Canvas, Column, Ellipsoid, ramp
from kits_ml.data.phantom.texture import SmoothNoise, noise_block

FAT_HU = -103.0

# Outline of the trunk by height (millimetres below the kidneys), as a share of its size at the liver.
_OUTLINE_Z_MM = (-520, -420, -300, -180, -80, 0, 60, 120, 190, 260, 340, 520)
_OUTLINE_WIDTH = (0.90, 0.95, 0.97, 1.0, 0.985, 0.955, 0.945, 0.975, 1.03, 1.05, 1.0, 0.92)
_OUTLINE_DEPTH = (0.74, 0.82, 0.94, 1.0, 1.0, 0.975, 0.955, 0.95, 0.93, 0.90, 0.82, 0.72)
_STEP_Z_MM = 10.0


@dataclass(frozen=True, kw_only=True)
class Enhancement:
    """HU of the tissues in one contrast phase.

    Attributes:
        phase: `"corticomedullary"`, `"nephrographic"` or `"unenhanced"`.
        cortex_minus_medulla_hu: how much brighter the cortex is.
    """

    phase: str
    liver_hu: float
    spleen_hu: float
    aorta_hu: float
    cava_hu: float
    portal_hu: float
    pancreas_hu: float
    bowel_wall_hu: float
    muscle_hu: float
    cortex_minus_medulla_hu: float


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What all organs are placed by.

    Attributes:
        parameters: the numbers drawn for the case.
        enhancement: the contrast phase.
        half_width_mm, half_depth_mm: of the trunk at the liver.
        fat_mm: subcutaneous fat at the flanks.
        visceral: fat around organs, 0 (lean) to 1.
        scale: of the frame inside the fat, 1 for a muscle width of 310 mm.
        front_mm: y of the inner front wall at the kidneys.
        arms: whether the arms lie beside the trunk.
        skin, muscle, cavity: outlines of the trunk.
        block: ledge of spine and psoas muscles that the cavity leaves out.
        block_noise: lattice of all smooth fields of this patient.
    """

    parameters: CaseParameters
    enhancement: Enhancement
    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    visceral: float
    scale: float
    front_mm: float
    arms: bool
    skin: Column
    muscle: Column
    cavity: Column
    block: Column
    block_noise: np.ndarray

    def noise(self, pitch_mm: float, rng: np.random.Generator) -> SmoothNoise:
        """A smooth field of its own from the patient's lattice."""
        return SmoothNoise(self.block_noise, pitch_mm, tuple(rng.uniform(0, len(self.block_noise), 3)))


def draw_patient(parameters: CaseParameters, rng: np.random.Generator) -> Patient:
    """Draws habitus and contrast phase.

    Args:
        parameters: the numbers of the case.
        rng: the source of all randomness.
    """
    view_mm = parameters.spacing_xy_mm * MATRIX
    half_width_mm = float(np.clip(view_mm * rng.uniform(0.80, 0.95) / 2, 135, 235))
    fat_mm = float(np.clip(7 + (half_width_mm - 158) * 0.55 + rng.normal(0, 5), 4, 60))
    half_depth_mm = half_width_mm * float(np.clip(rng.normal(0.69, 0.035), 0.60, 0.78))
    scale = (half_width_mm - fat_mm) / 155.0
    outlines = _outlines(half_width_mm, half_depth_mm, fat_mm, scale)
    return Patient(
        parameters=parameters,
        enhancement=_draw_enhancement(parameters.kidney_hu, rng),
        half_width_mm=half_width_mm,
        half_depth_mm=half_depth_mm,
        fat_mm=fat_mm,
        visceral=float(np.clip((fat_mm - 5) / 35 + rng.normal(0.1, 0.2), 0, 1)),
        scale=scale,
        arms=bool(rng.random() < 0.06),
        block_noise=noise_block(rng),
        **outlines,
    )


def _outlines(half_width_mm: float, half_depth_mm: float, fat_mm: float, scale: float) -> dict:
    heights = np.arange(_OUTLINE_Z_MM[0], _OUTLINE_Z_MM[-1] + 1, _STEP_Z_MM)

    def by_height(z_mm: tuple[float, ...], values: tuple[float, ...]) -> np.ndarray:
        return PchipInterpolator(z_mm, values)(np.clip(heights, z_mm[0], z_mm[-1]))

    width = half_width_mm * by_height(_OUTLINE_Z_MM, _OUTLINE_WIDTH)
    depth = half_depth_mm * by_height(_OUTLINE_Z_MM, _OUTLINE_DEPTH)
    back = 0.80 * half_depth_mm + 0.0 * heights
    fat_front = fat_mm * by_height((-250, -60, 60, 160), (0.35, 0.5, 0.9, 1.0)) + 2
    fat_back = 0.55 * fat_mm + 4
    front = back - 2 * depth
    wall = by_height((-120, -40, 30, 120, 220), (13, 14, 18, 20, 34)) * scale
    inner_back = by_height((-300, -120, -30, 60, 130, 230), (66, 62, 52, 46, 40, 34)) * scale
    inner_front = front + fat_front + by_height((-120, 0, 100, 250), (15, 9, 9, 14)) * scale
    middle = np.zeros_like(heights)
    skin = np.stack([heights, middle, back - depth, width, depth], axis=1)
    muscle_back = back - fat_back
    muscle_front = front + fat_front
    muscle_half = (muscle_back - muscle_front) / 2
    muscle = np.stack([heights, middle, muscle_back - muscle_half, width - fat_mm, muscle_half], axis=1)
    inner_back = np.minimum(inner_back, muscle_back - 18 * scale)
    inner_half = (inner_back - inner_front) / 2
    floor = by_height((-520, 235, 290, 520), (1.0, 1.0, 0.0, 0.0))  # the pelvic floor closes the cavity
    half_width = (width - fat_mm - wall) * floor
    cavity = np.stack([heights, middle, inner_back - inner_half, half_width, inner_half * floor], axis=1)
    block_x = by_height((-200, -40, 40, 120, 200), (25, 29, 44, 60, 68)) * scale
    block_y = by_height((-200, -40, 30, 120, 200), (24, 26, 33, 37, 37)) * scale
    block = np.stack([heights, middle, middle + 24 * scale, block_x, block_y], axis=1)
    return {
        "front_mm": float(np.interp(0, heights, inner_front)),
        "skin": Column(skin, squareness=0.36),
        "muscle": Column(muscle, squareness=0.42),
        "cavity": Column(cavity, squareness=0.36),
        "block": Column(block, squareness=0.3),
    }


def _draw_enhancement(kidney_hu: float, rng: np.random.Generator) -> Enhancement:
    """A phase that fits the kidney's mean HU: dim kidneys are unenhanced or early, bright ones full of contrast."""
    vigour = float(np.clip((kidney_hu - 30) / 90, 0.15, 1.5))
    early = kidney_hu > 75 and rng.random() < 0.55
    phase = "corticomedullary" if early else "nephrographic" if kidney_hu > 60 else "unenhanced"
    spread = rng.normal(0, 1, 8)
    vessel = {"corticomedullary": 235, "nephrographic": 135, "unenhanced": 50}[phase]
    return Enhancement(
        phase=phase,
        liver_hu=(78 if early else 72 + 34 * min(vigour, 1.2)) + 9 * spread[0],
        spleen_hu=(104 if early else 66 + 44 * min(vigour, 1.2)) + 8 * spread[1],
        aorta_hu=vessel * (0.75 + 0.25 * vigour) * math.exp(0.14 * spread[2]),
        cava_hu=(90 if early else 44 + 85 * vigour) + 10 * spread[3],
        portal_hu=(120 if early else 46 + 95 * vigour) + 12 * spread[4],
        pancreas_hu=(88 if early else 48 + 38 * vigour) + 8 * spread[5],
        bowel_wall_hu=50 + 38 * vigour + 6 * spread[6],
        muscle_hu=58 + 4 * spread[7],
        cortex_minus_medulla_hu={
            "corticomedullary": rng.uniform(45, 95) * min(1.3, 0.6 + 0.4 * vigour),
            "nephrographic": rng.uniform(5, 28),
            "unenhanced": rng.uniform(0, 6),
        }[phase],
    )


class Trunk:
    """Skin, fat, wall and the fat-filled cavity; it also tells the canvas where the cavity is."""

    z_range_mm = (-math.inf, math.inf)

    def __init__(self, patient: Patient, rng: np.random.Generator):
        self._patient = patient
        self._fat = Tissue(hu=FAT_HU, mottle_hu=6.0, noise=patient.noise(9.0, rng))
        self._muscle = Tissue(hu=patient.enhancement.muscle_hu, mottle_hu=9.0, noise=patient.noise(2.4, rng))
        self._inner_fat = Tissue(hu=FAT_HU + 6, mottle_hu=9.0, noise=patient.noise(2.6, rng))

    def paint(self, canvas: Canvas) -> None:
        """Paints the trunk from outside in."""
        found = self._patient.skin.coverage(canvas)
        if found is None:
            return
        window, coverage = found
        canvas.blend(window, coverage, np.float32(20.0))
        self._blend(canvas, self._patient.skin.inset(2.2), self._fat)
        self._blend(canvas, self._patient.muscle, self._muscle)
        canvas.cavity = cavity = np.zeros_like(canvas.image)
        found = self._patient.cavity.coverage(canvas)
        if found is None:
            return
        window, cavity[window] = found
        ledge = self._patient.block.coverage(canvas)
        if ledge is not None:
            cavity[ledge[0]] *= 1 - ledge[1]
        canvas.blend(window, cavity[window], self._inner_fat.values(canvas, window))

    @staticmethod
    def _blend(canvas: Canvas, shape: Column, tissue: Tissue) -> None:
        window, coverage = shape.coverage(canvas)
        canvas.blend(window, coverage, tissue.values(canvas, window))


class Lungs:
    """Air above the two domes of the diaphragm."""

    _LOWEST_MM = -28.0
    _HU = -860.0

    def __init__(self, patient: Patient, rng: np.random.Generator):
        self._scale = patient.scale
        top_mm = rng.normal(-122, 8)
        self._tops_mm = (top_mm, top_mm + rng.normal(14, 4))
        self._air = Tissue(hu=self._HU, mottle_hu=22.0, noise=patient.noise(3.0, rng))
        self.z_range_mm = (-math.inf, self._LOWEST_MM)

    def paint(self, canvas: Canvas) -> None:
        """Paints air where the slice is above the diaphragm."""
        right = self._dome(canvas, -72 * self._scale, self._tops_mm[0])
        left = self._dome(canvas, 76 * self._scale, self._tops_mm[1])
        depth = np.minimum(right, left, out=right)
        np.minimum(depth, self._LOWEST_MM, out=depth)
        depth -= canvas.z_mm
        coverage = ramp(depth, 3.0 + 0.8 * canvas.thickness_mm)
        coverage *= canvas.cavity
        window = np.s_[0 : coverage.shape[0], 0 : coverage.shape[1]]
        canvas.blend(window, coverage, self._air.values(canvas, window))

    def _dome(self, canvas: Canvas, x_mm: float, top_mm: float) -> np.ndarray:
        """Height of one dome above each pixel."""
        x = canvas.x_mm - x_mm
        x[x * x_mm < 0] *= 0.45  # between the domes it sags little
        x *= x
        x *= 78 / (78 * self._scale) ** 2
        y = canvas.y_mm + 22
        y *= y
        y *= 58 / (88 * self._scale) ** 2
        x += y
        x += top_mm
        return x


def muscles(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Muscles of the back and the loins with the fat between them."""
    scale, lean = patient.scale, 1 - 0.35 * patient.visceral
    meat = Tissue(hu=patient.enhancement.muscle_hu, mottle_hu=8.0, noise=patient.noise(2.2, rng))
    fat = Tissue(hu=FAT_HU + 45, mottle_hu=30.0, noise=patient.noise(2.0, rng))
    layers: list[Layer] = [Solid(patient.block.until(165.0), fat)]
    bulk = rng.uniform(0.85, 1.15)
    _, muscle_y, _, muscle_half = patient.muscle.section(20.0)
    back_mm = muscle_y + muscle_half - 4
    for side in (-1, 1):
        seam = [(z, side * 82 * scale, 53 * scale, 15 * scale, 4.5 * scale) for z in (-20, 130)]
        layers.append(Solid(Column(seam), fat))
        middle = 0.5 * (46 * scale + back_mm) + 3
        thick = max(0.5 * (back_mm - 46 * scale) - 1, 8.0)
        for grow, tissue in ((1.1 + patient.visceral, fat), (0.0, meat)):
            back = [(-400, 24, 0.8), (-100, 30, 0.9), (40, 36, 1.0), (130, 34, 0.95), (230, 18, 0.4)]
            knots = [(z, side * 36 * scale, middle, rx * scale + grow, thick * f + grow) for z, rx, f in back]
            layers.append(Solid(Column(knots, squareness=0.4), tissue))
        loin = [(-5, 62, 44, 2, 2), (25, 64, 44, 20, 8), (100, 74, 42, 24, 10), (130, 80, 40, 14, 6)]
        layers.append(Solid(_column(loin, side, scale, lean), meat))
        psoas = [(-5, 30, 12, 3, 3), (30, 36, 10, 13, 14), (80, 42, 5, 19, 20), (130, 50, -4, 22, 22)]
        psoas += [(200, 62, -24, 19, 18), (250, 72, -40, 14, 14)]
        layers.append(Solid(_column(psoas, side, scale, lean * bulk), meat))
        gluteus = [(110, 85, 62, 20, 5), (150, 85, 62, 55, 22), (240, 85, 60, 62, 30), (400, 85, 40, 60, 40)]
        layers.append(Solid(_column(gluteus, side, scale, lean), meat))
    return layers


def _column(knots: list[tuple[float, ...]], side: int, scale: float, bulk: float) -> Column:
    """A muscle of one side: `(z, x, y, radius_x, radius_y)` for a frame of scale 1, x away from the midline."""
    return Column(
        [(z, side * x * scale, y * scale, rx * scale * bulk, ry * scale * bulk) for z, x, y, rx, ry in knots]
    )


def arms(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Arms beside the trunk, in the few who cannot raise them."""
    if not patient.arms:
        return []
    layers: list[Layer] = []
    for side in (-1, 1):
        x_mm, y_mm = side * (patient.half_width_mm + 38), rng.uniform(-10, 40)
        reach = (-500.0, 500.0)
        for radius_mm, hu in ((40, FAT_HU), (31, patient.enhancement.muscle_hu), (11, 900.0), (6, 120.0)):
            layers.append(Solid(Column([(z, x_mm, y_mm, radius_mm, radius_mm * 1.1) for z in reach]), Tissue(hu=hu)))
    return layers


def brightest_spot(patient: Patient, z_mm: tuple[float, float], rng: np.random.Generator) -> Layer:
    """A speck that carries the scan's highest HU: a clip, a coil, a calcified node."""
    centre = (rng.uniform(-60, 60), patient.front_mm * rng.uniform(0.2, 0.7), rng.uniform(*z_mm))
    height_mm = max(2.2, 0.8 * patient.parameters.spacing_z_mm)
    return Solid(Ellipsoid(centre, (1.8, 1.8, height_mm)), Tissue(hu=1.15 * patient.parameters.hu_max))
