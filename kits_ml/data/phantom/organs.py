"""Liver, spleen, pancreas, stomach, bowel, heart and the great vessels."""

from __future__ import annotations

import math

import numpy as np

from kits_ml.data.phantom.body import FAT_HU, Patient
from kits_ml.data.phantom.layers import Hollow, Layer, Solid, Tissue
from kits_ml.data.phantom.shapes import Column, Ellipsoid, Tube

Points = list[tuple[float, float, float]]


def _scaled(points: Points, scale: float) -> Points:
    return [(x * scale, y * scale, z) for x, y, z in points]


def upper_organs(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Liver with gallbladder, spleen, pancreas and stomach."""
    return [*_stomach(patient, rng), *_pancreas(patient, rng), *_liver(patient, rng), *_spleen(patient, rng)]


def _liver(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    scale, enhancement = patient.scale, patient.enhancement
    parenchyma = Tissue(hu=enhancement.liver_hu, mottle_hu=3.5, noise=patient.noise(4.0, rng))
    lumps = patient.noise(26.0, rng)
    size, low = rng.uniform(0.92, 1.1), rng.normal(0, 12)
    lobes = [
        ((-92, -8, -58 + low / 2), (80, 92, 86 + low / 2)),
        ((-112, 2, 8 + low), (42, 62, 58)),
        ((-30, -52, -72 + low / 3), (78, 44, 46)),
        ((32, -72, -84 + low / 3), (58, 30, 34)),
    ]
    layers: list[Layer] = []
    for (x, y, z), (rx, ry, rz) in lobes:
        shape = Ellipsoid(
            (x * scale, y * scale, z),
            (rx * size * scale, ry * size * scale, rz * size),
            lumps=lumps,
            lump_share=0.05,
        )
        layers.append(Solid(shape, parenchyma, inside=True))
    layers += _liver_vessels(patient, rng)
    if rng.random() < 0.85:
        centre = (-62 * scale, -64 * scale + rng.normal(0, 6), 14 + low)
        bladder = rng.uniform(11, 19)
        for grow, hu in ((1.8, 60.0), (0.0, rng.uniform(4, 18))):
            radii = (bladder + grow, bladder * 1.2 + grow, bladder * 1.6 + grow)
            layers.append(Solid(Ellipsoid(centre, radii), Tissue(hu=hu), inside=True))
    return layers


def _liver_vessels(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Portal branches from the hilum, hepatic veins towards the cava: forking random walks."""
    scale = patient.scale
    layers: list[Layer] = []
    gate = np.array([-38 * scale, -36 * scale, -42.0])
    outlet = np.array([-24 * scale, -28 * scale, -112.0])
    for start, hu, count in (
        (gate, patient.enhancement.portal_hu, 10),
        (outlet, (patient.enhancement.portal_hu + patient.enhancement.cava_hu) / 2, 6),
    ):
        for _ in range(count):
            goal = np.array([rng.uniform(-140, 10), rng.uniform(-80, 50), rng.uniform(-110, 10)])
            goal *= (scale, scale, 1)
            steps = np.linspace(0, 0.8, 6)[:, None]
            points = start + steps * (goal - start) + rng.normal(0, 4, (6, 3)) * (steps > 0)
            layers.append(Solid(Tube(points, np.linspace(5.5, 1.5, 6)), Tissue(hu=hu), inside=True))
            twig = points[3] + np.linspace(0, 1, 3)[:, None] * rng.normal(0, 26, 3)
            layers.append(Solid(Tube(twig, [2.2, 1.6, 1.0]), Tissue(hu=hu), inside=True))
    return layers


def _spleen(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    scale, enhancement = patient.scale, patient.enhancement
    size = rng.uniform(0.85, 1.15)
    centre = np.array([112 * scale, 22 * scale, -72 + rng.normal(0, 8)])
    tilt = math.radians(rng.uniform(15, 35))
    frame = np.array([[math.cos(tilt), math.sin(tilt), 0], [-math.sin(tilt), math.cos(tilt), 0], [0, 0, 1]])
    patchy = 16.0 if enhancement.phase == "corticomedullary" else 3.0
    tissue = Tissue(hu=enhancement.spleen_hu, mottle_hu=patchy, noise=patient.noise(5.0, rng))
    shape = Ellipsoid(
        centre,
        (27 * size * scale, 51 * size * scale, 56 * size),
        frame=frame,
        lumps=patient.noise(20.0, rng),
        lump_share=0.06,
    )
    return [Solid(shape, tissue, inside=True)]


def _pancreas(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    rise = rng.normal(0, 6)
    points = [
        (-36, -42, 22),
        (-34, -46, 4),
        (-18, -54, -6),
        (6, -58, -14),
        (34, -46, -24),
        (64, -22, -34),
        (84, -4, -42),
    ]
    radii = np.array([13, 13, 10, 9, 9, 9, 8]) * rng.uniform(0.8, 1.1)
    tissue = Tissue(
        hu=patient.enhancement.pancreas_hu - 25 * patient.visceral,
        mottle_hu=10 + 18 * patient.visceral,
        noise=patient.noise(2.4, rng),
    )
    tube = Tube(_scaled([(x, y, z + rise) for x, y, z in points], patient.scale), radii)
    return [Solid(tube, tissue, inside=True)]


def _stomach(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    scale, front = patient.scale, patient.front_mm
    full = rng.uniform(0.65, 1.15)
    points = [(58, 8, -98), (66, -24, -80), (56, -52, -52), (34, -74, -28), (4, -76, -14), (-26, -64, -8)]
    points = [(x * scale, max(y * scale, front + 24), z) for x, y, z in points]
    radii = np.array([24, 30, 28, 21, 15, 11]) * full * scale
    food = Tissue(hu=rng.uniform(5, 60), mottle_hu=rng.uniform(4, 26), noise=patient.noise(3.0, rng))
    wall = Tissue(hu=patient.enhancement.bowel_wall_hu)
    gas_mm = points[2][1] - rng.uniform(-0.3, 1.0) * radii[2]
    return [Hollow(Tube(points, radii, wall_mm=4.5), wall=wall, filling=food, gas_level_mm=gas_mm, inside=True)]


def chest(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Mediastinum, heart and the vessels of the lungs; painted over the air."""
    scale, enhancement = patient.scale, patient.enhancement
    blood = Tissue(hu=(enhancement.aorta_hu + enhancement.cava_hu) / 2, mottle_hu=8.0, noise=patient.noise(9.0, rng))
    muscle = Tissue(hu=enhancement.muscle_hu + 40)
    fat = Tissue(hu=FAT_HU + 12)
    spine_flesh = Tissue(hu=enhancement.muscle_hu)
    layers: list[Layer] = []
    for _ in range(70):
        side = rng.choice([-1, 1])
        start = np.array([side * rng.uniform(30, 60), rng.uniform(-40, 20), rng.uniform(-300, -130)])
        end = start + np.array([side * rng.uniform(20, 70), rng.normal(0, 35), rng.normal(10, 35)])
        middle = (start + end) / 2 + rng.normal(0, 6, 3)
        tube = Tube(np.stack([start, middle, end]) * (scale, scale, 1), [2.4, 1.6, 0.8])
        layers.append(Solid(tube, Tissue(hu=40.0), inside=True))
    above = [(-520, 0, -20, 30, 52), (-250, 0, -20, 32, 56), (-165, 4, -18, 30, 44), (-128, 2, -10, 22, 22)]
    above += [(-110, 2, -6, 8, 8)]
    layers.append(Solid(Column([(z, x * scale, y * scale, a * scale, b * scale) for z, x, y, a, b in above]), fat))
    beside = [(z, 0.0, 14 * scale, 22 * scale, 18 * scale) for z in (-520, -90)]
    layers.append(Solid(Column(beside), spine_flesh, inside=True))
    centre = np.array([26 * scale, -52 * scale, -158.0])
    for grow, tissue in ((6.0, fat), (0.0, muscle), (-9.0, blood)):
        radii = (58 * scale + grow, 46 * scale + grow, 48 + grow)
        layers.append(Solid(Ellipsoid(centre, radii), tissue, inside=True))
    return layers


def great_vessels(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Aorta, cava, their branches to gut, liver and legs."""
    scale, enhancement = patient.scale, patient.enhancement
    wide = rng.uniform(0.85, 1.25)
    aorta, cava, portal = (
        Tissue(hu=hu, mottle_hu=4.0, noise=patient.noise(4.0, rng))
        for hu in (enhancement.aorta_hu, enhancement.cava_hu, enhancement.portal_hu)
    )
    fork_mm = rng.normal(78, 8)

    def tube(points: Points, radii: float | list[float], tissue: Tissue) -> Layer:
        return Solid(Tube(_scaled(points, scale), np.asarray(radii) * wide), tissue)

    trunk = [(20, -4, -330), (20, -10, -200), (14, -22, -110), (11, -32, -40), (8, -33, 20), (3, -33, fork_mm)]
    layers = [
        tube([(-22, -40, -140), (-25, -34, -80), (-24, -30, 0), (-20, -31, fork_mm + 14)], [12, 13, 11, 10], cava),
        tube(
            [(-30, -40, -46), (-22, -44, -30), (-8, -50, -12), (0, -52, 10), (-2, -56, 60)], [6, 6, 6, 5, 3], portal
        ),
        tube([(0, -52, -8), (30, -44, -16), (62, -18, -30), (88, 4, -44)], [5, 4.5, 4, 3.5], portal),
        tube(trunk, [13, 12.5, 11, 10, 9, 8], aorta),
        tube([(11, -32, -28), (8, -48, -20), (9, -56, 10), (4, -58, 60)], [4, 3.6, 3.2, 2.2], aorta),
        tube([(12, -30, -44), (6, -52, -48), (-12, -54, -40), (-26, -48, -34)], [3.6, 3.2, 2.6, 2.2], aorta),
        tube([(8, -52, -48), (36, -38, -40), (70, -10, -44)], [2.6, 2.2, 2.0], aorta),
    ]
    for side in (-1, 1):
        leg = [(0, -33, fork_mm), (side * 24, -28, fork_mm + 45), (side * 52, -18, fork_mm + 90)]
        leg += [(side * 74, -54, 235), (side * 82, -70, 290)]
        layers.append(tube(leg, [6.5, 6, 5.5, 5, 4.5], aorta))
        vein = [(-18, -28, fork_mm + 12), (side * 26 - 4, -16, fork_mm + 55), (side * 54, -6, fork_mm + 95)]
        vein += [(side * 66, -48, 238), (side * 70, -62, 290)]
        layers.append(tube(vein, [7.5, 7, 6.5, 6, 6], cava))
    if rng.random() < 0.5:  # calcified plaques on the aorta's wall
        for _ in range(rng.integers(2, 7)):
            height, angle = rng.uniform(-60, fork_mm), rng.uniform(0, 2 * math.pi)
            spot = (9 * scale + 8.5 * wide * math.cos(angle), -32.5 * scale + 8.5 * wide * math.sin(angle), height)
            layers.append(Solid(Ellipsoid(spot, (2.2, 1.4, 4)), Tissue(hu=650.0)))
    return layers


def mesentery(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Small vessels and nodes in the fat between the loops."""
    scale, front = patient.scale, patient.front_mm
    layers: list[Layer] = []
    for _ in range(46):
        start = np.array([rng.uniform(-20, 20) * scale, rng.uniform(0.45, 0.6) * front, rng.uniform(-10, 70)])
        goal = np.array([rng.uniform(-95, 95) * scale, rng.uniform(0.1, 0.95) * front, rng.uniform(-50, 190)])
        steps = np.linspace(0, 1, 5)[:, None]
        points = start + steps * (goal - start) + rng.normal(0, 6, (5, 3)) * (steps > 0)
        hu = rng.choice([patient.enhancement.portal_hu, patient.enhancement.aorta_hu])
        layers.append(Solid(Tube(points, np.linspace(2.4, 1.0, 5)), Tissue(hu=float(hu)), inside=True))
    return layers


def bowel(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Colon as a frame with stool and gas, small bowel as loops with fluid or oral contrast."""
    scale, front = patient.scale, patient.front_mm
    wall = Tissue(hu=patient.enhancement.bowel_wall_hu)
    contrast_hu = float(rng.choice([0.0, 0.0, 0.0, rng.uniform(120, 420)]))
    layers: list[Layer] = []
    for _ in range(rng.integers(15, 20)):
        start = np.array([rng.uniform(-75, 75) * scale, rng.uniform(0.25, 0.8) * front, rng.uniform(0, 180)])
        points = _random_loop(start, patient, rng)
        radii = rng.uniform(8.5, 14.5) * rng.uniform(0.85, 1.15, len(points))
        filling = Tissue(
            hu=contrast_hu if contrast_hu and rng.random() < 0.6 else rng.uniform(12, 90),
            mottle_hu=rng.uniform(5, 22),
            noise=patient.noise(2.2, rng),
        )
        gas_mm = points[:, 1].mean() - rng.uniform(4, 14) if rng.random() < 0.3 else None
        tube = Tube(points, radii, wall_mm=rng.uniform(1.8, 3.0))
        layers.append(Hollow(tube, wall=wall, filling=filling, gas_level_mm=gas_mm, inside=True))
    flexure = rng.uniform(10, 35)
    ahead = front + 26
    right = [(-88, 6, 150), (-98, 10, 120), (-102, 6, 80), (-98, 0, 50), (-86, -22, flexure)]
    across = [(-60, -50, flexure + 14), (-30, -60, flexure + 34), (10, -62, flexure + 38), (50, -56, flexure)]
    across += [(86, -30, -30), (98, 8, -46)]
    left = [(98, 8, -46), (108, 22, -10), (110, 26, 40), (108, 22, 90), (98, 8, 140), (66, -10, 180), (20, 10, 200)]
    for points, radius in ((right, 24), (across, 19), (left, 14)):
        line = np.array([(x * scale, y * scale, z) for x, y, z in points])
        if points is across:
            line[:, 1] = np.maximum(line[:, 1] * 1.15, ahead)
        line = _resample(line, 14.0) + 0.0
        line += rng.normal(0, 4.0, line.shape)
        radii = radius * rng.uniform(0.75, 1.1) * rng.uniform(0.8, 1.15, len(line))
        stool = Tissue(hu=rng.uniform(-60, 60), mottle_hu=rng.uniform(40, 190), noise=patient.noise(1.9, rng))
        gas_mm = float(line[:, 1].mean()) - rng.uniform(-4, 12) if rng.random() < 0.6 else None
        tube = Tube(line, radii, wall_mm=2.2)
        layers.append(Hollow(tube, wall=wall, filling=stool, gas_level_mm=gas_mm, inside=True))
    return layers


def urinary_bladder(patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """The bladder, for scans that reach the pelvis."""
    size = rng.uniform(0.7, 1.2)
    centre = (0.0, -30 * patient.scale, 228.0)
    return [
        Solid(Ellipsoid(centre, (38 * size + grow, 30 * size + grow, 28 * size + grow)), Tissue(hu=hu))
        for grow, hu in ((3.5, 55.0), (0.0, rng.uniform(0, 15)))
    ]


def _random_loop(start: np.ndarray, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """A winding line that stays between the front wall and the great vessels."""
    low = np.array([-88 * patient.scale, patient.front_mm + 16, -28.0])
    high = np.array([88 * patient.scale, 0.30 * patient.front_mm, 205.0])
    points, heading = [start], rng.normal(0, 1, 3)
    for _ in range(15):
        heading = 0.55 * heading / np.linalg.norm(heading) + rng.normal(0, 0.5, 3)
        step = points[-1] + 17 * heading / np.linalg.norm(heading)
        heading = np.where((step < low) | (step > high), -heading, heading)
        points.append(np.clip(step, low, high))
    return np.array(points)


def _resample(points: np.ndarray, step_mm: float) -> np.ndarray:
    """Points every `step_mm` along a line."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    places = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step_mm)))
    return np.stack([np.interp(places, lengths, points[:, axis]) for axis in range(3)], axis=1)
