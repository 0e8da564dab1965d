"""Two kidneys with cortex, pyramids and sinus, their cysts, and the tumours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kits_ml import labels
from kits_ml.data.phantom.body import FAT_HU, Patient
from kits_ml.data.phantom.layers import Layer, Solid, Tissue
from kits_ml.data.phantom.shapes import Ellipsoid, Tube

# Half-axes of a normal kidney along width (towards the hilum), thickness and length, in millimetres.
_SHAPE_MM = np.array([29.0, 25.0, 55.0])
# What the sinus takes out of the ellipsoid, and so out of the labelled volume.
_SINUS_SHARE = 0.15
# Share of the labelled kidney that is as bright as cortex, columns between the pyramids included.
_CORTEX_SHARE = 0.69
# Edges, fat in the sinus and cysts darken the mean over the label: what brings the mean of 20 cases back.
_EDGE_LOSS_HU = 7.0
_TUMOUR_EDGE_LOSS_HU = 2.0
_WATER_HU = 8.0
# How much darker a tumour's capsule is.
_CAPSULE_HU = 28.0


@dataclass(frozen=True, kw_only=True)
class Kidney:
    """Where one kidney is.

    Attributes:
        side: -1 for the patient's right, 1 for the left.
        centre_mm: `(x, y, z)`.
        radii_mm: half-axes along the rows of `frame`.
        frame: unit vectors towards the hilum, across, and along the kidney, `(3, 3)`.
    """

    side: int
    centre_mm: np.ndarray
    radii_mm: np.ndarray
    frame: np.ndarray

    def point(self, along: tuple[float, float, float] | np.ndarray) -> np.ndarray:
        """A point given in shares of the half-axes."""
        return self.centre_mm + (np.asarray(along) * self.radii_mm) @ self.frame


@dataclass(frozen=True, kw_only=True)
class Tumour:
    """One tumour, before it is painted.

    Attributes:
        kidney: index of its kidney.
        centre_mm: `(x, y, z)`.
        radius_mm: of the ball of the same volume.
        necrotic_share: share of its volume that is necrosis, 0 for a homogeneous one.
        exophytic: whether most of it is outside the kidney.
    """

    kidney: int
    centre_mm: tuple[float, float, float]
    radius_mm: float
    necrotic_share: float
    exophytic: bool


def draw_kidneys(patient: Patient, rng: np.random.Generator) -> list[Kidney]:
    """Draws size, place and tilt of the right and the left kidney."""
    share = float(np.clip(rng.normal(0.5, 0.035), 0.4, 0.6))
    kidneys = []
    for side, part in ((-1, share), (1, 1 - share)):
        volume_mm3 = 1000 * patient.parameters.kidney_ml * part / (1 - _SINUS_SHARE)
        shape = _SHAPE_MM * rng.normal(1, 0.05, 3)
        radii = shape * (volume_mm3 / (4 / 3 * math.pi * shape.prod())) ** (1 / 3)
        lean_in, lean_back, turn = np.radians([rng.normal(13, 4), rng.normal(10, 4), rng.normal(38, 9)])
        # The lower pole points away from the midline and forward.
        length = np.array([side * math.sin(lean_in), -math.sin(lean_back), math.cos(lean_in)])
        length /= np.linalg.norm(length)
        hilum = np.array([-side * math.cos(turn), -math.sin(turn), 0.0])
        hilum -= hilum @ length * length
        hilum /= np.linalg.norm(hilum)
        across = np.cross(length, hilum)
        away = 40 * patient.scale**0.7 + radii[0] * 0.95 + 7 * patient.visceral
        centre = np.array([side * away, 4 * patient.scale + rng.normal(0, 4), -side * 8 + rng.normal(0, 7)])
        kidneys.append(Kidney(side=side, centre_mm=centre, radii_mm=radii, frame=np.stack([hilum, across, length])))
    return kidneys


def draw_tumours(patient: Patient, kidneys: list[Kidney], rng: np.random.Generator) -> list[Tumour]:
    """Draws one tumour, rarely two, of the case's tumour volume."""
    parts = [1.0]
    if rng.random() < 0.05:
        second = rng.uniform(0.1, 0.4)
        parts = [1 - second, second]
    return [_draw_tumour(patient, kidneys, 1000 * patient.parameters.tumour_ml * part, rng) for part in parts]


def _draw_tumour(patient: Patient, kidneys: list[Kidney], volume_mm3: float, rng: np.random.Generator) -> Tumour:
    radius = (3 * volume_mm3 / (4 * math.pi)) ** (1 / 3)
    which = int(rng.integers(2))
    kidney = kidneys[which]
    exophytic = bool(radius > 24 or rng.random() < 0.6)
    # Away from the hilum, forward rather than backward, at any height.
    angle = math.radians(rng.uniform(60, 300) if exophytic else rng.uniform(40, 320))
    height = rng.uniform(-0.75, 0.75)
    flat = math.sqrt(1 - height**2)
    direction = np.array([flat * math.cos(angle), flat * math.sin(angle), height])
    if exophytic:
        surface = kidney.point(direction)
        outward = (direction / kidney.radii_mm) @ kidney.frame
        outward /= np.linalg.norm(outward)
        centre = surface + outward * radius * (rng.uniform(-0.15, 0.55) if radius < 30 else rng.uniform(0.3, 0.75))
    else:
        centre = kidney.point(direction * rng.uniform(0.3, 0.75))
    centre = _keep_inside(patient, centre, radius)
    chance = float(np.clip(0.15 + 0.012 * (radius - 10), 0.1, 0.8))
    necrotic = rng.uniform(0.15, 0.55) if rng.random() < chance else 0.0
    return Tumour(
        kidney=which,
        centre_mm=tuple(float(value) for value in centre),
        radius_mm=radius,
        necrotic_share=necrotic,
        exophytic=exophytic,
    )


def _keep_inside(patient: Patient, centre: np.ndarray, radius: float) -> np.ndarray:
    """Moves a tumour from wall and spine towards the room in front of the kidneys, as far as it takes."""
    x, y, half_x, half_y = patient.cavity.section(float(centre[2]))
    _, ledge_y, ledge_x, ledge_half = patient.block.section(float(centre[2]))
    room = np.maximum([half_x - radius - 1, half_y - radius - 1], 4.0)
    moved = np.array(centre[:2])
    for _ in range(3):  # out of the ledge of the spine, then off the wall; each may undo a little of the other
        away = moved - (0.0, ledge_y)
        clearance = math.hypot(away[0] / (ledge_x + radius), away[1] / (ledge_half + radius))
        if 0 < clearance < 1:
            moved = (0.0, ledge_y) + away / clearance
        shares = (moved - (x, y)) / room
        if room.min() < 25:  # nearly as deep as the trunk: stay on the own side
            shares[1] = np.clip(shares[1], -0.5, 0.5)
            shares[0] = np.clip(shares[0], -0.87, 0.87)
        moved = (x, y) + shares / max(1.0, math.hypot(*shares)) * room
    return np.array([*moved, centre[2]])


def kidney_layers(
    patient: Patient, kidneys: list[Kidney], tumours: list[Tumour], rng: np.random.Generator
) -> list[Layer]:
    """All that is painted for the kidneys, from the fat around them to the tumours."""
    layers: list[Layer] = []
    for number, kidney in enumerate(kidneys):
        layers += _surroundings(patient, kidney, [t for t in tumours if t.kidney == number], rng)
    for kidney in kidneys:
        layers += _kidney(patient, kidney, rng)
        layers += _cysts(patient, kidney, rng)
    for tumour in tumours:
        layers += _tumour(patient, tumour, rng)
    return layers


def _surroundings(patient: Patient, kidney: Kidney, tumours: list[Tumour], rng: np.random.Generator) -> list[Layer]:
    fat = Tissue(hu=FAT_HU + 3, mottle_hu=9.0, noise=patient.noise(2.0, rng))
    margin = 3 + 10 * patient.visceral
    layers: list[Layer] = [
        Solid(
            Ellipsoid(
                kidney.centre_mm + np.array([1.5 * kidney.side, 2.5, 0]),
                kidney.radii_mm + np.array([margin, margin, margin + 3]),
                frame=kidney.frame,
                lumps=patient.noise(14.0, rng),
                lump_share=0.05,
            ),
            fat,
            inside=True,
        )
    ]
    for tumour in tumours:
        reach = tumour.radius_mm + min(3.0, 0.5 * margin)
        layers.append(Solid(Ellipsoid(tumour.centre_mm, (reach,) * 3), fat, inside=True))
    enhancement, size = patient.enhancement, patient.scale
    hilum = kidney.point((0.75, 0, 0))
    for (x, y, z), radius, hu in (
        ((8 * size, -32 * size, -6), 2.8, enhancement.aorta_hu),
        ((-22 * size, -38 * size, 2), 4.5, 0.5 * (enhancement.cava_hu + enhancement.portal_hu)),
    ):
        bend = np.array([(x + hilum[0]) / 2, min(y, hilum[1]) - 4, (z + hilum[2]) / 2])
        inner = kidney.point((0.30, 0.1, 0))
        layers.append(
            Solid(Tube([(x, y, z), bend, hilum, inner], [radius, radius, radius, 0.6 * radius]), Tissue(hu=hu))
        )
    ureter = [
        kidney.point((0.85, 0, 0.3)),
        (kidney.side * 42 * size, -12 * size, 70),
        (kidney.side * 40 * size, -22, 140),
    ]
    layers.append(Solid(Tube(ureter, [4.0, 2.2, 2.2]), Tissue(hu=25.0)))
    return layers


def _kidney(patient: Patient, kidney: Kidney, rng: np.random.Generator) -> list[Layer]:
    difference = patient.enhancement.cortex_minus_medulla_hu
    mean_hu = patient.parameters.kidney_hu + _EDGE_LOSS_HU
    cortex = Tissue(hu=mean_hu + (1 - _CORTEX_SHARE) * difference, mottle_hu=4.0, noise=patient.noise(2.6, rng))
    medulla = Tissue(hu=mean_hu - _CORTEX_SHARE * difference, mottle_hu=4.0, noise=patient.noise(2.0, rng))
    fat = Tissue(hu=FAT_HU + 25 + rng.uniform(0, 25), mottle_hu=22.0, noise=patient.noise(1.6, rng))
    whole = Ellipsoid(
        kidney.centre_mm, kidney.radii_mm, frame=kidney.frame, lumps=patient.noise(9.0, rng), lump_share=0.045
    )
    layers: list[Layer] = [Solid(whole, cortex, inside=True, label=labels.KIDNEY)]
    layers += [Solid(shape, medulla, inside=True) for shape in _pyramids(kidney, rng)]
    sinus = Ellipsoid(
        kidney.point((0.62, 0, 0)),
        kidney.radii_mm * (0.62, 0.34, 0.54),
        frame=kidney.frame,
        lumps=patient.noise(3.2, rng),
        lump_share=0.16,
    )
    drain = {"inside": True, "label": labels.BACKGROUND, "only_on": labels.KIDNEY}
    layers.append(Solid(sinus, fat, **drain))
    pelvis = Tissue(hu=rng.uniform(2, 22))
    vein = Tissue(hu=0.5 * (patient.enhancement.cava_hu + patient.enhancement.portal_hu))
    for height in np.linspace(-0.62, 0.62, 6):
        end = kidney.point((rng.uniform(-0.05, 0.2), rng.uniform(-0.4, 0.4), height + rng.normal(0, 0.06)))
        middle = kidney.point((0.45, 0.0, 0.55 * height))
        layers.append(Solid(Tube([middle, end], [4.2, 2.6]), fat, **drain))
        branch = pelvis if rng.random() < 0.6 else vein
        layers.append(Solid(Tube([kidney.point((0.6, 0, 0.3 * height)), middle, end], [2.6, 2.0, 1.2]), branch))
    layers.append(Solid(Ellipsoid(kidney.point((0.85, 0, 0.08)), (6.5, 4.5, 11.0), frame=kidney.frame), pelvis))
    return layers


def _pyramids(kidney: Kidney, rng: np.random.Generator) -> list[Ellipsoid]:
    """Cones of medulla around the sinus, points inward; ellipsoids are near enough at this size."""
    shapes = []
    for height in (-0.66, -0.4, -0.13, 0.14, 0.41, 0.67):
        ring = math.sqrt(max(1 - (height / 1.02) ** 2, 0.1))
        for angle in (75, 125, 180, 235, 285):
            turn = math.radians(angle + rng.normal(0, 8))
            rise = height + rng.normal(0, 0.03)
            outward = np.array([ring * math.cos(turn), ring * math.sin(turn), 0.35 * rise])
            place = np.array([0.58 * outward[0] + 0.08, 0.58 * outward[1], 0.90 * rise])
            axis = outward @ kidney.frame
            axis /= np.linalg.norm(axis)
            side = np.cross(axis, kidney.frame[2])
            side /= np.linalg.norm(side)
            size = kidney.radii_mm.prod() ** (1 / 3) / 34.0
            radii = np.array([9.0, 6.0, 6.6]) * size * rng.uniform(0.85, 1.1)
            shapes.append(Ellipsoid(kidney.point(place), radii, frame=np.stack([axis, side, np.cross(axis, side)])))
    return shapes


def _cysts(patient: Patient, kidney: Kidney, rng: np.random.Generator) -> list[Layer]:
    """Simple cysts: round, of water, labelled kidney as KiTS19 does."""
    layers: list[Layer] = []
    for _ in range(rng.poisson(0.45)):
        radius = float(np.clip(np.exp(rng.normal(1.9, 0.6)), 2.5, 32))
        angle, height = math.radians(rng.uniform(70, 290)), rng.uniform(-0.8, 0.8)
        flat = math.sqrt(1 - height**2)
        reach = rng.uniform(0.7, 1.08)
        centre = kidney.point((reach * flat * math.cos(angle), reach * flat * math.sin(angle), reach * height))
        centre = _keep_inside(patient, centre, radius)
        tissue = Tissue(hu=_WATER_HU + rng.normal(0, 6))
        layers.append(Solid(Ellipsoid(centre, (radius,) * 3), tissue, inside=True, label=labels.KIDNEY))
    return layers


def _tumour(patient: Patient, tumour: Tumour, rng: np.random.Generator) -> list[Layer]:
    mean_hu, share = patient.parameters.tumour_hu + _TUMOUR_EDGE_LOSS_HU, tumour.necrotic_share
    dead_hu = min(mean_hu - 8, rng.uniform(12, 32))
    living_hu = min((mean_hu - share * dead_hu) / (1 - share), mean_hu + 90)
    rough = rng.uniform(4, 12) + (rng.uniform(6, 18) if share else 0)
    stretch = np.exp(rng.normal(0, 0.09, 3))
    if tumour.radius_mm > 45:  # the trunk leaves large ones more room upward and downward
        stretch[2] *= 1.35
    stretch /= stretch.prod() ** (1 / 3)
    turn = rng.uniform(0, math.pi)
    frame = np.array([[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    lumps = patient.noise(max(tumour.radius_mm * 0.45, 2.5), rng)
    lump_share = float(rng.uniform(0.02, 0.09))

    def ball(inset_mm: float) -> Ellipsoid:
        radii = (tumour.radius_mm - inset_mm) * stretch
        return Ellipsoid(tumour.centre_mm, radii, frame=frame, lumps=lumps, lump_share=lump_share)

    whole, layers = ball(0.0), []
    capsule_mm = 1.2 if rng.random() < 0.5 and tumour.radius_mm > 6 else 0.0
    if capsule_mm:  # a thin dark seam of squeezed tissue, often the only border of an isodense tumour
        seam = 1 - (1 - capsule_mm / tumour.radius_mm) ** 3
        living_hu += _CAPSULE_HU * seam
        layers.append(Solid(whole, Tissue(hu=living_hu - _CAPSULE_HU), inside=True, label=labels.TUMOUR))
    flesh = Tissue(hu=living_hu, mottle_hu=rough, noise=patient.noise(float(rng.uniform(2.5, 6.0)), rng))
    layers.append(Solid(ball(capsule_mm), flesh, inside=True, label=labels.TUMOUR))
    if share:
        centre = np.array(tumour.centre_mm) + rng.normal(0, 0.1, 3) * tumour.radius_mm
        core = Ellipsoid(
            centre,
            tumour.radius_mm * share ** (1 / 3) * stretch,
            frame=frame,
            lumps=patient.noise(max(tumour.radius_mm * 0.24, 1.5), rng),
            lump_share=0.20,
            edge_mm=float(rng.uniform(1, 7)),
        )
        dead = Tissue(hu=dead_hu, mottle_hu=7.0, noise=patient.noise(3.0, rng))
        layers.append(Solid(core, dead, inside=True, clip=whole))
    return layers
