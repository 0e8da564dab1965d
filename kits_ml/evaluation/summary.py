"""What an evaluation comes to: means over patients, by strata, with calibration, confusion and the worst cases first.

`summary.json` holds it all; `cases.csv` has one row a case, the worst first, with what its summary is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import files
from kits_ml.data import contrast
from kits_ml.evaluation import aggregates, calibration
from kits_ml.evaluation.calibration import DOMAINS, MARGIN_MM, NUM_BINS, Calibration
from kits_ml.evaluation.tables import CaseScores
from kits_ml.labels import LABEL_NAMES
from kits_ml.scores import LESION_SIZE_CLASSES, composite_dice

CASES_CSV = "cases.csv"

#: Raised whenever a key of `summary.json` goes away or changes its meaning; new ones may come without.
FORMAT_VERSION = 1

#: How cases are divided; the strata of a case that cannot be told are `unknown`.
STRATA: Mapping[str, Callable[[CaseScores], str]] = {
    "tumour_size": aggregates.tumour_size_class,
    "slice_spacing": aggregates.slice_spacing_class,
    "contrast": aggregates.contrast_class,
}

#: From small to large, from none to much.
_ORDER = (
    *("no_tumour", *LESION_SIZE_CLASSES),
    *aggregates.SLICE_SPACING_CLASSES,
    *contrast.CONTRAST_CLASSES,
    "unknown",
)

#: Resamples for the curve of calibration, whose every point has an interval.
NUM_CURVE_RESAMPLES = 1000

_LABELS = tuple(LABEL_NAMES.values())
_CONFUSION_COLUMNS = tuple(f"{true}_as_{pred}_voxels" for true in _LABELS for pred in _LABELS)


def _columns_of(measure: str) -> tuple[str, ...]:
    return tuple(f"{measure}_{label}_{domain}" for domain in DOMAINS for label in _LABELS)


#: Of `cases.csv`, in order.
CASES_COLUMNS = (
    *("case", "composite_dice", "missing_prediction", "kidney_hu", "prediction_seconds", *STRATA),
    *_CONFUSION_COLUMNS,
    *_columns_of("ece"),
    *_columns_of("brier"),
)


def summarise_evaluation(
    cases: Sequence[CaseScores], *, failures: Mapping[str, str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Sums up an evaluation.

    Args:
        cases: one for each patient.
        failures: message by name of the cases that could not be scored.
        seed: of the bootstraps over cases.

    Returns:
        What `aggregates.summarise` gives, and `format`, `worst_first` (names with composite Dice), `strata` (a
        summary by division and stratum; empty for a division of which nothing is known, as contrast without images),
        `confusion` (see `summarise_confusion`) and `calibration` (see `summarise_calibration`; None without
        probabilities).
    """
    return {
        "format": FORMAT_VERSION,
        **aggregates.summarise(cases, failures=failures, seed=seed),
        "worst_first": [
            {"case": case.case, "composite_dice": composite_dice(case.regions)} for case in worst_first(cases)
        ],
        "strata": {name: _summarise_strata(cases, stratum_of, seed) for name, stratum_of in STRATA.items()},
        "confusion": summarise_confusion(cases),
        "calibration": summarise_calibration(cases, seed=seed),
    }


def worst_first(cases: Sequence[CaseScores]) -> list[CaseScores]:
    """The cases from the lowest composite Dice up; equal ones by name."""
    return sorted(cases, key=lambda case: (composite_dice(case.regions), case.case))


def summarise_confusion(cases: Sequence[CaseScores]) -> dict[str, Any] | None:
    """What each label was taken for, voxels of all cases pooled: large kidneys and thin slices count more.

    Returns:
        `labels`; `voxels`, a row a true label and a column a predicted one; `row_shares`, each row divided by its
        sum (NaN for a label that no case has); `num_cases` that were counted. None where none was.
    """
    counted = [np.array(case.confusion) for case in cases if case.confusion]
    if not counted:
        return None
    voxels = np.sum(counted, axis=0)
    rows = voxels.sum(axis=1, keepdims=True)
    shares = np.divide(voxels, rows, out=np.full(voxels.shape, math.nan), where=rows > 0)
    return {
        "labels": list(_LABELS),
        "voxels": voxels.tolist(),
        "row_shares": shares.tolist(),
        "num_cases": len(counted),
    }


def summarise_calibration(cases: Sequence[CaseScores], *, seed: int = 0) -> dict[str, Any] | None:
    """How far the probabilities can be believed, for each domain and label; see `calibration`.

    Returns:
        By domain and label: `ece` and `brier`, one value a case with the interval of their mean (see
        `aggregates.summarise_values`), `ece_pooled` over all voxels (a case's own ECE is larger than that, for
        errors that differ between cases even out), and `reliability`, see `reliability_curve`. `brier` of the domain
        is the sum over the labels, in [0, 2]. None where no case has probabilities.
    """
    there = [case.calibration for case in cases if case.calibration is not None]
    if not there:
        return None
    found: dict[str, Any] = {"grid": "scan", "num_bins": NUM_BINS, "margin_mm": MARGIN_MM, "num_cases": len(there)}
    ece, brier = np.array([one.ece() for one in there]), np.array([one.brier() for one in there])
    ece_pooled = calibration.pooled(there).ece()
    for place, domain in enumerate(DOMAINS):
        found[domain] = {
            name: {
                "ece": aggregates.summarise_values(ece[:, place, label], seed=seed),
                "ece_pooled": float(ece_pooled[place, label]),
                "brier": aggregates.summarise_values(brier[:, place, label], seed=seed),
                "reliability": reliability_curve(there, domain=domain, label=label, seed=seed),
            }
            for label, name in LABEL_NAMES.items()
        }
        found[domain]["brier"] = aggregates.summarise_values(brier[:, place].sum(axis=-1), seed=seed)
    return found


def reliability_curve(
    calibrations: Sequence[Calibration], *, domain: str, label: int, seed: int = 0
) -> list[dict[str, float | int]]:
    """How often a label was right, by the probability it was given.

    Args:
        calibrations: one a case.
        domain: one of `calibration.DOMAINS`.
        label: which one.
        seed: of the bootstrap.

    Returns:
        For each bin that holds voxels `low` and `high` (its edges), `num_voxels`, `num_cases` (that have some),
        `mean_probability`, `frequency`, and `ci_low` and `ci_high`, the interval of the frequency when whole cases
        are drawn with replacement (NaN with fewer than two cases).
    """
    place = DOMAINS.index(domain)
    num_voxels = np.array([one.num_voxels[place, label] for one in calibrations], float)  # (cases, bins)
    num_hits = np.array([one.num_hits[place, label] for one in calibrations], float)
    summed = sum(one.probabilities[place, label] for one in calibrations)
    low, high = _frequency_interval(num_voxels, num_hits, seed)
    return [
        {
            "low": number / NUM_BINS,
            "high": (number + 1) / NUM_BINS,
            "num_voxels": int(num_voxels[:, number].sum()),
            "num_cases": int((num_voxels[:, number] > 0).sum()),
            "mean_probability": float(summed[number] / num_voxels[:, number].sum()),
            "frequency": float(num_hits[:, number].sum() / num_voxels[:, number].sum()),
            "ci_low": float(low[number]),
            "ci_high": float(high[number]),
        }
        for number in range(NUM_BINS)
        if num_voxels[:, number].any()
    ]


def write_cases(path: str | Path, cases: Sequence[CaseScores]) -> None:
    """Writes `cases.csv`, the worst case first; what is not known of a case is an empty cell."""
    files.write_csv(Path(path), [_row(case) for case in worst_first(cases)], list(CASES_COLUMNS))


def _summarise_strata(
    cases: Sequence[CaseScores], stratum_of: Callable[[CaseScores], str], seed: int
) -> dict[str, dict[str, Any]]:
    found = aggregates.summarise_strata(cases, stratum_of, seed=seed)
    return {} if set(found) <= {"unknown"} else {name: found[name] for name in sorted(found, key=_ORDER.index)}


def _frequency_interval(num_voxels: np.ndarray, num_hits: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Both `(cases, bins)`. A drawn set of cases without a voxel in a bin says nothing of it."""
    num_cases, num_bins = num_voxels.shape
    if num_cases < 2:
        return np.full(num_bins, math.nan), np.full(num_bins, math.nan)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=NUM_CURVE_RESAMPLES)
    counted = times @ num_voxels
    frequencies = np.divide(times @ num_hits, counted, out=np.full(counted.shape, math.nan), where=counted > 0)
    tail = (1 - aggregates.CONFIDENCE) / 2
    low, high = np.full(num_bins, math.nan), np.full(num_bins, math.nan)
    seen = num_voxels.any(axis=0)
    low[seen], high[seen] = np.nanquantile(frequencies[:, seen], [tail, 1 - tail], axis=0)
    return low, high


def _row(case: CaseScores) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case.case,
        "composite_dice": composite_dice(case.regions),
        "missing_prediction": str(case.missing_prediction).lower(),
        "kidney_hu": case.kidney_hu,
        "prediction_seconds": round(case.prediction_seconds, 3),
    }
    row |= {name: stratum_of(case) for name, stratum_of in STRATA.items()}
    if case.confusion:
        row |= dict(zip(_CONFUSION_COLUMNS, np.ravel(case.confusion).tolist(), strict=True))
    if case.calibration is not None:
        row |= dict(zip(_columns_of("ece"), case.calibration.ece().ravel().tolist(), strict=True))
        row |= dict(zip(_columns_of("brier"), case.calibration.brier().ravel().tolist(), strict=True))
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
