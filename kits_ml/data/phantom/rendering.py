"""From the numbers of a case to its voxels, one slice at a time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kits_ml.data.phantom import body, kidneys, organs, skeleton
from kits_ml.data.phantom.distributions import MATRIX, Distribution, draw_parameters
from kits_ml.data.phantom.layers import Layer
from kits_ml.data.phantom.shapes import Canvas, ramp
from kits_ml.data.phantom.texture import ScannerNoise, SmoothNoise

AIR_HU = -1000.0
_LOWEST_HU = -1024
_WARP_MM = 3.2
_GRAIN_MM = 0.65


@dataclass(frozen=True, kw_only=True)
class PhantomCase:
    """A synthetic CT case.

    Attributes:
        image: HU, `(slices, rows, columns)` int16.
        label_map: 0 background, 1 kidney (cysts too), 2 tumour, `(slices, rows, columns)` uint8.
        spacing_mm: between slices, rows and columns.
        description: what was drawn: numbers and text that JSON holds.
    """

    image: np.ndarray
    label_map: np.ndarray
    spacing_mm: tuple[float, float, float]
    description: dict[str, Any]


def generate_case(
    *,
    seed: int,
    index: int,
    distribution: Distribution = "kits19",
    num_slices: int | None = None,
    shape: tuple[int, int] = (MATRIX, MATRIX),
) -> PhantomCase:
    """Makes one case; the same arguments give the same voxels, whatever else is made.

    Memory is that of the two arrays and a few slices.

    Args:
        seed, index: name the case.
        distribution: `"kits19"`, or `"small"` for at most 40 thick slices.
        num_slices: forces the slice count.
        shape: rows and columns; the field of view stays, so that small matrices have large pixels.

    Raises:
        ValueError: an unknown distribution, or less than one slice or eight pixels.
    """
    if min(shape) < 8:
        raise ValueError(f"shape: found {shape!r}, expected at least 8 rows and 8 columns")
    parameters = draw_parameters(seed=seed, index=index, distribution=distribution, num_slices=num_slices)
    rng = np.random.default_rng([seed, index, 1])
    patient = body.draw_patient(parameters, rng)
    both = kidneys.draw_kidneys(patient, rng)
    tumours = kidneys.draw_tumours(patient, both, rng)
    heights_mm = _place_scan(parameters.num_slices, parameters.spacing_z_mm, both, tumours, rng)
    layers = _scene(patient, both, tumours, heights_mm, rng)
    view_mm = parameters.spacing_xy_mm * MATRIX
    spacing_mm = (parameters.spacing_z_mm, view_mm / shape[0], view_mm / shape[1])
    scanner = _Scanner(patient, layers, spacing_mm, shape, np.random.default_rng([seed, index, 2]))
    image = np.empty((parameters.num_slices, *shape), np.int16)
    label_map = np.zeros((parameters.num_slices, *shape), np.uint8)
    for number, z_mm in enumerate(heights_mm):
        scanner.scan(float(z_mm), image[number], label_map[number])
    description = {
        "seed": seed,
        "index": index,
        "distribution": distribution,
        **dataclasses.asdict(parameters),
        "phase": patient.enhancement.phase,
        "tumours": [dataclasses.asdict(tumour) for tumour in tumours],
    }
    return PhantomCase(image=image, label_map=label_map, spacing_mm=spacing_mm, description=description)


def _place_scan(
    num_slices: int,
    spacing_z_mm: float,
    both: list[kidneys.Kidney],
    tumours: list[kidneys.Tumour],
    rng: np.random.Generator,
) -> np.ndarray:
    """Heights of the slices: around kidneys and tumours where the length allows, more of it below them."""
    tops, bottoms = zip(
        *[(k.centre_mm[2] - k.radii_mm[2], k.centre_mm[2] + k.radii_mm[2]) for k in both],
        *[(t.centre_mm[2] - 1.15 * t.radius_mm, t.centre_mm[2] + 1.15 * t.radius_mm) for t in tumours],
        strict=True,
    )
    top, bottom = min(tops), max(bottoms)
    spare = num_slices * spacing_z_mm - (bottom - top)
    above = rng.uniform(0.2, 0.5) if spare > 0 else 0.5
    return top - spare * above + (np.arange(num_slices) + 0.5) * spacing_z_mm


def _scene(
    patient: body.Patient,
    both: list[kidneys.Kidney],
    tumours: list[kidneys.Tumour],
    heights_mm: np.ndarray,
    rng: np.random.Generator,
) -> list[Layer]:
    """Everything in the order it is painted."""
    reach_mm = (float(heights_mm[0]), float(heights_mm[-1]))
    return [
        *body.arms(patient, rng),
        body.Trunk(patient, rng),
        *body.muscles(patient, rng),
        *organs.mesentery(patient, rng),
        *organs.bowel(patient, rng),
        *organs.upper_organs(patient, rng),
        *organs.urinary_bladder(patient, rng),
        body.Lungs(patient, rng),
        *organs.chest(patient, rng),
        *organs.great_vessels(patient, rng),
        *kidneys.kidney_layers(patient, both, tumours, rng),
        *skeleton.skeleton(patient, rng),
        body.brightest_spot(patient, reach_mm, rng),
    ]


class _Scanner:
    """Paints slices of one patient: table, anatomy slightly bent, noise, padding."""

    def __init__(
        self,
        patient: body.Patient,
        layers: list[Layer],
        spacing_mm: tuple[float, float, float],
        shape: tuple[int, int],
        rng: np.random.Generator,
    ):
        self._patient, self._layers = patient, layers
        self._arms_mm = 85.0 if patient.arms else 0.0
        self._parameters = patient.parameters
        self._thickness_mm = spacing_mm[0]
        self._blur_mm = max(1.3, 1.1 * max(spacing_mm[1:]))
        rows, columns = shape
        _, middle_y, _, _ = patient.skin.section(0.0)
        shift_x, shift_y = rng.normal(0, 4), middle_y + rng.uniform(0, 14)
        self._rows_mm = (np.arange(rows) + 0.5 - rows / 2) * spacing_mm[1] + shift_y
        self._columns_mm = (np.arange(columns) + 0.5 - columns / 2) * spacing_mm[2] + shift_x
        self._warp = [SmoothNoise(patient.block_noise, 42.0, tuple(rng.uniform(0, 32, 3))) for _ in range(2)]
        self._empty = self._table(rng)
        self._outside = self._padding(shift_x, shift_y)
        correlation = math.exp(-spacing_mm[0] / 1.1)
        sigma = max(0.35, rng.uniform(0.8, 1.25) * _GRAIN_MM / spacing_mm[1])
        self._noise = ScannerNoise(rng, shape=shape, sigma_pixels=sigma, correlation=correlation)
        self._strength = self._noise_strength(shift_x, middle_y)

    def scan(self, z_mm: float, image: np.ndarray, label_map: np.ndarray) -> None:
        """Fills one slice of the image (int16) and of the label map (uint8)."""
        slice_hu = self._empty.copy()
        canvas = self._canvas(z_mm, slice_hu, label_map)
        reach_mm = self._thickness_mm / 2
        for layer in self._layers:
            if layer.z_range_mm[0] - reach_mm <= z_mm <= layer.z_range_mm[1] + reach_mm:
                layer.paint(canvas)
        noise = self._noise.next_slice() * self._strength
        slice_hu += noise
        np.rint(slice_hu, out=slice_hu)
        np.clip(slice_hu, _LOWEST_HU, self._parameters.hu_max, out=slice_hu)
        if self._outside is not None:
            slice_hu[self._outside] = self._parameters.hu_min
        image[...] = slice_hu

    def _canvas(self, z_mm: float, slice_hu: np.ndarray, label_map: np.ndarray) -> Canvas:
        x, y, half_x, half_y = self._patient.skin.section(z_mm)
        margin = 2.5 * _WARP_MM + 6
        arms = margin + self._arms_mm
        rows = _within(self._rows_mm, y - half_y - margin, y + half_y + margin)
        columns = _within(self._columns_mm, x - half_x - arms, x + half_x + arms)
        rows_mm, columns_mm = self._rows_mm[rows], self._columns_mm[columns]
        bent = []
        for field in self._warp:
            shift = field.plane(z_mm, rows_mm, columns_mm)
            np.clip(shift, -2.5, 2.5, out=shift)
            shift *= _WARP_MM
            bent.append(shift)
        bent[0] += columns_mm.astype(np.float32)
        bent[1] += rows_mm.astype(np.float32)[:, None]
        return Canvas(
            image=slice_hu[rows, columns],
            label_map=label_map[rows, columns],
            x_mm=bent[0],
            y_mm=bent[1],
            columns_mm=columns_mm,
            rows_mm=rows_mm,
            z_mm=z_mm,
            thickness_mm=self._thickness_mm,
            blur_mm=self._blur_mm,
            reach_mm=2.5 * _WARP_MM + 1,
        )

    def _table(self, rng: np.random.Generator) -> np.ndarray:
        """Air and the two shells of the table below the patient."""
        _, y_mm, _, half_y_mm = self._patient.skin.section(-40.0)
        top_mm = y_mm + half_y_mm + rng.uniform(4, 10)
        bend = rng.choice([0.0, 1 / 900, 1 / 1400])
        surface = self._rows_mm[:, None] - top_mm + bend * self._columns_mm[None] ** 2
        image = np.full(surface.shape, AIR_HU, np.float32)
        for below_mm, hu in ((0.0, rng.uniform(-250, 150)), (rng.uniform(22, 40), rng.uniform(-300, 100))):
            coverage = ramp((1.2 - np.abs(surface - below_mm)).astype(np.float32), 1.6)
            coverage *= np.abs(self._columns_mm[None]) < 215
            image += coverage * np.float32(hu - AIR_HU)
        return image

    def _padding(self, shift_x: float, shift_y: float) -> np.ndarray | None:
        """What lies outside the scanner's circle, where the scan marks it."""
        if self._parameters.hu_min >= _LOWEST_HU:
            return None
        radius = (self._columns_mm[-1] - self._columns_mm[0]) / 2
        distance = (self._rows_mm[:, None] - shift_y) ** 2 + (self._columns_mm[None] - shift_x) ** 2
        return distance > radius**2

    def _noise_strength(self, x_mm: float, y_mm: float) -> np.ndarray:
        """Most noise in the middle of the body, where least radiation arrives."""
        _, _, half_x, half_y = self._patient.skin.section(0.0)
        rows = np.exp(-0.5 * ((self._rows_mm - y_mm) / half_y) ** 2)
        columns = np.exp(-0.5 * ((self._columns_mm - x_mm) / half_x) ** 2)
        return (self._parameters.noise_hu * (0.35 + 0.65 * np.outer(rows, columns))).astype(np.float32)


def _within(positions_mm: np.ndarray, low_mm: float, high_mm: float) -> slice:
    """Indices of positions in a range, at least one."""
    start, stop = np.searchsorted(positions_mm, [low_mm, high_mm])
    start = min(int(start), len(positions_mm) - 1)
    return slice(start, max(int(stop), start + 1))
