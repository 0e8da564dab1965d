"""What the scores of many cases come to: a mean over patients, and how sure of it one can be.

A case is the unit of everything here: scores are of whole volumes, and means and intervals are over cases, never over
slices.

KiTS gives 1 to an empty prediction of a tumour that is not there, so a mean over all cases rewards a model for every
healthy case it leaves empty. Each summary therefore says the same again for the cases whose reference contains the
region (`with_region`). Undefined values (distances of an empty mask) are left out of means and counted
(`num_undefined`): a distance is only comparable between models next to that count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import files, labels
from kits_ml.data import contrast
from kits_ml.errors import InputError
from kits_ml.evaluation.tables import CaseScores
from kits_ml.scores import LESION_SIZE_CLASSES, composite_dice

SUMMARY_JSON = "summary.json"

#: What is averaged for each region.
METRICS = (
    "dice",
    "iou",
    "surface_dice",
    "precision",
    "recall",
    "volume_true_ml",
    "volume_pred_ml",
    "volume_error_ml",
    "hd95_mm",
    "mean_surface_distance_mm",
)

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000

#: Slice spacing in mm: name and upper bound (included).
SLICE_SPACING_CLASSES: Mapping[str, float] = {"up_to_1_mm": 1.0, "1_to_3_mm": 3.0, "over_3_mm": math.inf}

#: Of an upper bound: the spacing of an oblique scan comes out of sums and roots of rounded numbers.
_ROUNDING = 1e-4


def summarise(
    cases: Sequence[CaseScores],
    *,
    failures: Mapping[str, str] | None = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """Sums up the scores of cases.

    Args:
        cases: one for each patient.
        failures: message by name of the cases that could not be scored, so that they are stated beside the means.
        seed: of the bootstrap; the same seed gives the same interval.
        num_resamples: of the bootstrap.

    Returns:
        What `summary.json` holds: `num_cases`, `missing_predictions` (names), `failed_cases`, `composite_dice` (the
        KiTS19 score), `regions` (by region and metric, see `summarise_values`, and again for `with_region`), and
        `lesions` (counts over all cases, and by size class).

    Raises:
        InputError: a case that is there twice.
    """
    names = [case.case for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"scores: found {', '.join(twice)} more than once; expected each case once")
    options = {"seed": seed, "num_resamples": num_resamples}
    return {
        "num_cases": len(cases),
        "missing_predictions": [case.case for case in cases if case.missing_prediction],
        "failed_cases": dict(sorted((failures or {}).items())),
        "bootstrap": {"unit": "case", "method": "percentile", "confidence": CONFIDENCE, **options},
        "composite_dice": summarise_values([composite_dice(case.regions) for case in cases], **options),
        "regions": {region: _summarise_region(cases, region, options) for region in labels.REGIONS},
        "lesions": _summarise_lesions(cases),
    }


def summarise_values(
    values: Sequence[float], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, float | int]:
    """Mean and median of one value a case, with a bootstrap percentile interval for the mean over cases.

    Args:
        values: one for each case; NaN where undefined.
        seed: of the bootstrap.
        num_resamples: how many times cases are drawn with replacement.

    Returns:
        `mean`, `median`, `ci_low`, `ci_high` (NaN without values; the interval NaN with fewer than two), `num_cases`
        (all) and `num_undefined` (those of them left out).
    """
    all_values = np.asarray(values, float)
    defined = all_values[~np.isnan(all_values)]
    counts = {"num_cases": len(all_values), "num_undefined": len(all_values) - len(defined)}
    if not len(defined):
        return dict.fromkeys(("mean", "median", "ci_low", "ci_high"), math.nan) | counts
    low, high = bootstrap_interval(defined, seed=seed, num_resamples=num_resamples)
    centre = {"mean": float(defined.mean()), "median": float(np.median(defined))}
    return centre | {"ci_low": low, "ci_high": high} | counts


def bootstrap_interval(
    values: np.ndarray, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of the mean: cases are drawn with replacement, as many as there are.

    Args:
        values: `(num_cases,)`, without NaN.
        seed: the same seed gives the same interval.
        num_resamples: how often to draw.
        confidence: part of the drawn means that lies inside.

    Returns:
        Lower and upper bound; NaN with fewer than two cases, of which nothing can be said.
    """
    if len(values) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, 1000):  # a thousand at a time: memory stays small for any number of cases
        drawn = rng.integers(len(values), size=(min(1000, num_resamples - start), len(values)))
        means[start : start + len(drawn)] = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarise_strata(
    cases: Sequence[CaseScores], stratum_of: Callable[[CaseScores], str], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Sums up the cases of each stratum by itself.

    Args:
        cases: one for each patient.
        stratum_of: the stratum of a case, e.g. `tumour_size_class` or `slice_spacing_class`.
        seed: of the bootstrap.

    Returns:
        `summarise` by stratum, in order of the strata's names.
    """
    strata: dict[str, list[CaseScores]] = {}
    for case in cases:
        strata.setdefault(stratum_of(case), []).append(case)
    return {stratum: summarise(strata[stratum], seed=seed) for stratum in sorted(strata)}


def tumour_size_class(case: CaseScores) -> str:
    """The class of the largest tumour in the reference (`scores.LESION_SIZE_CLASSES`), or `"no_tumour"`."""
    counts = case.regions["tumour"].lesions_true_by_size
    present = [name for name, count in zip(LESION_SIZE_CLASSES, counts, strict=False) if count]
    return present[-1] if present else "no_tumour"


def slice_spacing_class(case: CaseScores) -> str:
    """The class of the reference's slice spacing (`SLICE_SPACING_CLASSES`), or `"unknown"`."""
    for name, upper_mm in SLICE_SPACING_CLASSES.items():
        if case.slice_spacing_mm <= upper_mm * (1 + _ROUNDING):
            return name
    return "unknown"


def contrast_class(case: CaseScores) -> str:
    """The class of the kidney's mean HU (`contrast.CONTRAST_CLASSES`), or `"unknown"`."""
    return contrast.contrast_class(case.kidney_hu)


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes a summary as JSON, NaN as `null`; the file appears whole or not at all."""
    files.write_json(Path(path), _without_nan(summary))


def _summarise_region(cases: Sequence[CaseScores], region: str, options: Mapping[str, int]) -> dict[str, Any]:
    scores = [case.regions[region] for case in cases]
    present = [found for found in scores if found.volume_true_ml > 0]
    summary: dict[str, Any] = {"num_cases": len(scores), "num_with_region": len(present)}
    for metric in METRICS:
        summary[metric] = summarise_values([getattr(found, metric) for found in scores], **options)
        summary[metric]["with_region"] = summarise_values([getattr(found, metric) for found in present], **options)
    return summary


def _summarise_lesions(cases: Sequence[CaseScores]) -> dict[str, Any]:
    tumours = [case.regions["tumour"] for case in cases]
    counts = {
        name: np.array([getattr(tumour, f"lesions_{name}_by_size") for tumour in tumours], int).reshape(
            len(tumours), len(LESION_SIZE_CLASSES)
        )
        for name in ("true", "found", "false")
    }
    by_size = {
        size_class: _lesion_rates(*(counts[name][:, index].sum() for name in counts))
        for index, size_class in enumerate(LESION_SIZE_CLASSES)
    }
    false_per_case = float(counts["false"].sum() / len(cases)) if cases else math.nan
    return _lesion_rates(*(count.sum() for count in counts.values())) | {
        "false_per_case": false_per_case,
        "by_size": by_size,
    }


def _lesion_rates(num_true: int, num_found: int, num_false: int) -> dict[str, float | int]:
    found_rate = float(num_found / num_true) if num_true else math.nan
    return {
        "num_true": int(num_true),
        "num_found": int(num_found),
        "num_missed": int(num_true - num_found),
        "num_false": int(num_false),
        "found_rate": found_rate,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(member) for member in value]
    return None if isinstance(value, float) and math.isnan(value) else value
