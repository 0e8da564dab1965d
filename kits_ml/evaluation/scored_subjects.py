"""What the self-test tests of whole label maps: every number of a case that stands in the tables of evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kits_ml.evaluation.aggregates import summarise, summarise_values
from kits_ml.evaluation.calibration import DOMAINS, Calibration, CalibrationCounter
from kits_ml.evaluation.known_predictions import (
    A_PIXEL_TOO_MUCH,
    A_ROW_TOO_FAR,
    LESIONS_OF_EVERY_SIZE,
    LESIONS_OF_THREE_PATIENTS,
    NEAR_AND_FAR,
    SCENARIOS,
    SPACING_MM,
    KnownCase,
    Scenario,
)
from kits_ml.evaluation.selftest import Subject
from kits_ml.evaluation.summary import summarise_calibration
from kits_ml.evaluation.tables import CaseScores
from kits_ml.evaluation.theory import ByHand, Calibrated, Convention, Volume
from kits_ml.labels import BACKGROUND, LABEL_NAMES, REGIONS
from kits_ml.scores import LESION_SIZE_CLASSES, composite_dice, score_case

#: The set of labels of each region, in the words of theory.
AVERAGE_OF_REGION = {"kidney": "kidney_region", "tumour": "tumour_label"}

#: Lesions in the reference, those of them that are found, and false ones. In A the tumour is one lesion, and swapped
#: the kidney around it is one; shifted, half of it is met.
LESIONS: Mapping[str, tuple[int, int, int]] = {
    "perfect, saturated": (1, 1, 0),
    "perfect, p = 0.987": (1, 1, 0),
    "perfect, p = 0.6/0.3/0.1": (1, 1, 0),
    "perfect, p = 0.4/0.35/0.25": (1, 1, 0),
    "all background, saturated": (1, 0, 0),
    "all background, p = 0.6/0.3/0.1": (1, 0, 0),
    "all kidney": (1, 0, 0),
    "kidney and tumour swapped": (1, 0, 1),
    "shifted by a pixel": (1, 1, 0),
    "tumour taken for kidney": (1, 0, 0),
    "tumour taken for kidney, p = 0.6/0.3/0.1": (1, 0, 0),
    "kidney taken for background": (1, 1, 0),
    "patient without tumour": (0, 0, 0),
    "patient without tumour, some predicted": (0, 0, 1),
    "scan without kidneys": (0, 0, 0),
    "two patients": (1, 0, 0),
    A_PIXEL_TOO_MUCH.name: (1, 1, 1),
    LESIONS_OF_EVERY_SIZE.name: (5, 3, 2),
    LESIONS_OF_THREE_PATIENTS.name: (10, 5, 5),
}

#: The same for each size. Of the 90 voxels exactly a tenth is met, which is enough, and of the 17 less. The piece of
#: 11 has one voxel on the 17, less than a tenth of its own; the other false one is a single voxel.
LESIONS_BY_SIZE: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "perfect, saturated": {
        "under_20_mm": (1, 1, 0),  # 4 voxels of 10 cubic mm
        "20_to_40_mm": (0, 0, 0),
        "40_to_70_mm": (0, 0, 0),
        "over_70_mm": (0, 0, 0),
    },
    LESIONS_OF_EVERY_SIZE.name: {
        "under_20_mm": (1, 0, 1),
        "20_to_40_mm": (2, 2, 1),
        "40_to_70_mm": (1, 0, 0),
        "over_70_mm": (1, 1, 0),
    },
    LESIONS_OF_THREE_PATIENTS.name: {
        "under_20_mm": (2, 1, 1),
        "20_to_40_mm": (4, 2, 2),
        "40_to_70_mm": (2, 1, 1),
        "over_70_mm": (2, 1, 1),
    },
}


def case_subject() -> Subject:
    """The overlaps of `scores.score_case` and the KiTS score, averaged over cases as evaluation does."""
    declared: dict[str, Convention] = {
        f"case_{kind}_{region}": Convention(kind=kind, average=AVERAGE_OF_REGION[region], per_case=True)
        for kind in ("dice", "iou", "precision", "recall")
        for region in REGIONS
    }
    declared["case_composite_dice"] = Convention(kind="dice", average="regions", per_case=True)

    def read(scenario: Scenario) -> dict[str, float]:
        scored = _score(scenario, surfaces=False)
        found = _means(scored, ("dice", "iou", "precision", "recall"))
        return found | {"case_composite_dice": _mean([composite_dice(case) for case in scored])}

    return Subject(read=read, conventions={name: [convention] for name, convention in declared.items()})


def volume_subject() -> Subject:
    """The volumes of `scores.score_case` in ml, averaged over cases as evaluation does."""
    parts = ("true", "pred", "error")
    return Subject(
        read=lambda scenario: _means(_score(scenario, surfaces=False), [f"volume_{part}_ml" for part in parts]),
        conventions={
            f"case_volume_{part}_ml_{region}": [Volume(region=AVERAGE_OF_REGION[region], of=part)]
            for part in parts
            for region in REGIONS
        },
        scenarios=(*SCENARIOS, A_ROW_TOO_FAR, LESIONS_OF_EVERY_SIZE),
    )


def surface_subject() -> Subject:
    """The surface scores of `scores.score_case`, where they can be told by hand; averaged over cases."""
    by_hand = surfaces_by_hand()
    asked = {name for one in by_hand.values() for name in one.readings}
    scores = ("surface_dice", "hd95_mm", "mean_surface_distance_mm")
    return Subject(
        read=lambda scenario: _means(
            _score(scenario, surfaces=scenario.out_of_range or scenario.name in asked), scores
        ),
        conventions={name: [one] for name, one in by_hand.items()},
        scenarios=(*SCENARIOS, A_ROW_TOO_FAR, A_PIXEL_TOO_MUCH),
    )


def surfaces_by_hand() -> dict[str, ByHand]:
    """What surface scores must read, by metric.

    The tumour of A is a box of 2x2 pixels in one slice. Shifted by a column of 2 mm, one of its three columns of
    corners is 2 mm from the other surface, in both directions, and the other two lie on it. So surface Dice misses
    that column's part of the area, the mean distance is 2 mm times it, and the 95th percentile 2 mm, as the part is
    more than a twentieth. With its tumour, A's kidney is no box, but no distance is more than 2 mm there either.

    Shifted by a row of 1.1 mm the same goes for the rows, but for a tumour that much is tolerated. A pixel too much
    has 8 corners, 4 of them 4 mm and 4 of them 6 mm from the box; the other way all distances are 0.

    Of an empty mask there is no distance.
    """
    column, row = _part_of_outer_column(SPACING_MM), _part_of_outer_row(A_ROW_TOO_FAR.spacing_mm)
    corner = _corner_mm2(SPACING_MM)
    both = 2 * _box_mm2(SPACING_MM) + 8 * corner
    perfect, empty, none = "perfect, saturated", "all background, saturated", "scan without kidneys"
    far, much = A_ROW_TOO_FAR.name, A_PIXEL_TOO_MUCH.name
    dice = {perfect: 1.0, empty: 0.0, none: 1.0, much: 1 - 8 * corner / both}
    undefined = {empty: math.nan, none: math.nan}
    hd95 = {perfect: 0.0, "shifted by a pixel": 2.0, far: 1.1, much: 6.0} | undefined
    mean = {perfect: 0.0, far: 1.1 * row, much: (4 * 4.0 + 4 * 6.0) * corner / both} | undefined
    missed = {"tumour taken for kidney": math.nan, "patient without tumour": math.nan}
    readings = {
        "surface_dice_kidney": dice | {"tumour taken for kidney": 1.0, far: 1 - row},
        "surface_dice_tumour": dice
        | {"tumour taken for kidney": 0.0, "patient without tumour": 1.0, "shifted by a pixel": 1 - column, far: 1.0},
        "hd95_mm_kidney": hd95,
        "hd95_mm_tumour": hd95 | missed,
        "mean_surface_distance_mm_kidney": mean,
        "mean_surface_distance_mm_tumour": mean | missed | {"shifted by a pixel": 2 * column},
    }
    return {f"case_{name}": ByHand(readings=values) for name, values in readings.items()}


def lesion_subject() -> Subject:
    """The lesions that `aggregates.summarise` counts over the cases, in all and by size."""
    by_hand: dict[str, dict[str, float]] = {}
    for scenario, counts in LESIONS.items():
        num_cases = {"two patients": 2, LESIONS_OF_THREE_PATIENTS.name: 3}.get(scenario, 1)
        for name, value in (_lesion_rates(*counts) | {"false_per_case": counts[2] / num_cases}).items():
            by_hand.setdefault(f"lesions_{name}", {})[scenario] = value
    for scenario, by_size in LESIONS_BY_SIZE.items():
        for size_class, counts in by_size.items():
            for name, value in _lesion_rates(*counts).items():
                by_hand.setdefault(f"lesions_{name}_{size_class}", {})[scenario] = value

    def read(scenario: Scenario) -> dict[str, float]:
        scored = [CaseScores(case=str(place), regions=one) for place, one in enumerate(_score(scenario))]
        found = dict(summarise(scored, num_resamples=1)["lesions"])
        by_size = found.pop("by_size")
        sizes = {f"{name}_{size}": value for size in LESION_SIZE_CLASSES for name, value in by_size[size].items()}
        return {f"lesions_{name}": value for name, value in (found | sizes).items()}

    return Subject(
        read=read,
        conventions={name: [ByHand(readings=readings)] for name, readings in by_hand.items()},
        scenarios=(*SCENARIOS, A_PIXEL_TOO_MUCH, LESIONS_OF_EVERY_SIZE, LESIONS_OF_THREE_PATIENTS),
    )


def calibration_subject() -> Subject:
    """ECE and Brier score as `summary.summarise_calibration` gives them, streamed as a prediction streams them."""
    declared: dict[str, Calibrated] = {}
    for domain in DOMAINS:
        near = domain == "kidneys"
        for label, name in LABEL_NAMES.items():
            place = f"{name}_{domain}"
            declared[f"case_ece_{place}"] = Calibrated(score="ece", label=label, near=near)
            declared[f"case_brier_{place}"] = Calibrated(score="brier", label=label, near=near)
            declared[f"ece_pooled_{place}"] = Calibrated(score="ece", label=label, near=near, pooled=True)
        declared[f"case_brier_{domain}"] = Calibrated(score="brier", label=None, near=near)

    def read(scenario: Scenario) -> dict[str, float]:
        counted = [
            CaseScores(case=str(place), regions={}, calibration=_count(case, scenario.spacing_mm))
            for place, case in enumerate(scenario.cases)
        ]
        return _calibration_readings(summarise_calibration(counted))

    return Subject(
        read=read,
        conventions={name: [one] for name, one in declared.items()},
        scenarios=(*SCENARIOS, NEAR_AND_FAR),
    )


def _calibration_readings(found: Mapping[str, Any]) -> dict[str, float]:
    readings = {f"case_brier_{domain}": found[domain]["brier"]["mean"] for domain in DOMAINS}
    for domain in DOMAINS:
        for name in LABEL_NAMES.values():
            one = found[domain][name]
            readings |= {f"case_{score}_{name}_{domain}": one[score]["mean"] for score in ("ece", "brier")}
            readings[f"ece_pooled_{name}_{domain}"] = one["ece_pooled"]
    return readings


def _count(case: KnownCase, spacing_mm: Sequence[float]) -> Calibration:
    """Gives the slices one by one, cut to the window outside of which all of the scan is certain background."""
    counter = CalibrationCounter(case.labels, spacing_mm=spacing_mm)
    seen = (case.probabilities[..., BACKGROUND] < 1).any(axis=0)
    inside = tuple(_range(seen.any(axis=axis)) for axis in (1, 0))  # rows, columns
    for index, one in enumerate(case.probabilities):
        counter(index, inside, one[inside].transpose(2, 0, 1))  # classes first
    return counter.result()


def _range(hits: np.ndarray) -> slice:
    places = np.flatnonzero(hits)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)


def _lesion_rates(num_true: int, num_found: int, num_false: int) -> dict[str, float]:
    return {
        "num_true": num_true,
        "num_found": num_found,
        "num_missed": num_true - num_found,
        "num_false": num_false,
        "found_rate": num_found / num_true if num_true else math.nan,
    }


def _corner_mm2(spacing_mm: Sequence[float]) -> float:
    """The surface of a box is cut through the middle between voxels: at a corner a triangle, half of each spacing."""
    slices, rows, columns = (mm / 2 for mm in spacing_mm)
    return math.hypot(slices * rows, rows * columns, columns * slices) / 2


def _edge_mm2(along_mm: float, across_mm: float, up_mm: float) -> float:
    """At an edge a rectangle: one spacing along it, and the slope between half of the two others."""
    return along_mm * math.hypot(across_mm / 2, up_mm / 2)


def _box_mm2(spacing_mm: Sequence[float]) -> float:
    """The surface of 2x2 pixels of one slice. Above and below: 4 corners, 2 + 2 edges, and a whole pixel between."""
    slices, rows, columns = spacing_mm
    edges = _edge_mm2(rows, columns, slices) + _edge_mm2(columns, rows, slices)
    return 2 * (4 * _corner_mm2(spacing_mm) + 2 * edges + rows * columns)


def _part_of_outer_column(spacing_mm: Sequence[float]) -> float:
    """Of the box: 2 corners and the edge between them, above and below."""
    slices, rows, columns = spacing_mm
    return 2 * (2 * _corner_mm2(spacing_mm) + _edge_mm2(rows, columns, slices)) / _box_mm2(spacing_mm)


def _part_of_outer_row(spacing_mm: Sequence[float]) -> float:
    slices, rows, columns = spacing_mm
    return _part_of_outer_column((slices, columns, rows))


def _score(scenario: Scenario, *, surfaces: bool = False) -> list[Mapping[str, Any]]:
    """Scores of the label maps that the probabilities come to."""
    return [
        score_case(
            case.labels,
            case.probabilities.argmax(axis=-1).astype(np.uint8),
            spacing_mm=scenario.spacing_mm,
            surfaces=surfaces,
        )
        for case in scenario.cases
    ]


def _means(scored: Sequence[Mapping[str, Any]], scores: Sequence[str]) -> dict[str, float]:
    return {
        f"case_{score}_{region}": _mean([getattr(case[region], score) for case in scored])
        for score in scores
        for region in REGIONS
    }


def _mean(values: Sequence[float]) -> float:
    return float(summarise_values(values, num_resamples=1)["mean"])
