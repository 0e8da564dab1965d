"""What a model was trained on, as ranges, and where another scan lies outside of them.

    {"num_cases": 40,
     "spacing_mm": {"low": [0.5, 0.6, 0.6], "high": [5.0, 0.98, 0.98]},          slices, rows, columns
     "field_of_view_mm": {"low": [150.0, 310.0, 310.0], "high": [...]},           number of voxels times spacing
     "hu": {"low": {"p05": -1000.0, "p50": -870.0, "p95": 60.0}, "high": {...}},  percentiles of the whole scan
     "kidney_hu": {"low": 65.0, "high": 210.0}}                                   mean of kidney tissue without tumour

Low and high are the smallest and the largest of the training cases. `kidney_hu` is missing where no case has labels.
Of the HU only percentiles that metal does not move are kept, and values below air, a scanner's padding, count as air.

Of several models together, `common_range` says what all of them were trained on. In place of `num_cases` stand

    {"num_models": 3, "num_silent": {"spacing_mm": 0, "field_of_view_mm": 0, "hu": 0, "kidney_hu": 1}}

where `num_silent` counts the models that do not tell that range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kits_ml.data.fingerprint import PERCENTILES, Fingerprint

#: The percentiles that are compared.
COMPARED = ("p05", "p50", "p95")
AXES = ("slices", "rows", "columns")
#: What is told of training data as a range.
RANGES = ("spacing_mm", "field_of_view_mm", "hu", "kidney_hu")
#: Nothing measured lies below; what does is padding.
AIR_HU = -1024.0

#: A scan's percentiles are taken from about this many voxels, evenly spread.
_NUM_SAMPLED = 2_000_000


def describe_training(fingerprints: Sequence[Fingerprint]) -> dict[str, Any]:
    """The ranges of some cases, for a model's description; see the top of this file.

    Args:
        fingerprints: of the cases that the model was trained on; without any, nothing is described.
    """
    if not fingerprints:
        return {}
    spacings_mm = [(one.slice_spacing_mm, one.row_spacing_mm, one.column_spacing_mm) for one in fingerprints]
    sizes = [(one.slices, one.rows, one.columns) for one in fingerprints]
    hu = np.array([[max(getattr(one.hu, name), AIR_HU) for name in COMPARED] for one in fingerprints])
    described = {
        "num_cases": len(fingerprints),
        "spacing_mm": _range(np.array(spacings_mm)),
        "field_of_view_mm": _range(np.array(spacings_mm) * sizes),
        "hu": {end: dict(zip(COMPARED, values, strict=True)) for end, values in _range(hu).items()},
    }
    kidneys_hu = [one.kidney_hu.mean for one in fingerprints if one.kidney_hu]
    if kidneys_hu:
        described["kidney_hu"] = _range(np.array(kidneys_hu))
    return described


def common_range(trainings: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The ranges that several models were trained on all of them; a scan within lies within the range of each.

    Args:
        trainings: what each says of its training data, see the top of this file; empty or None of one that says
            nothing. Only the others are intersected.

    Returns:
        The ranges and how many models they are of, see there; empty where no model says anything. Where two ranges
        have nothing in common, `low` is above `high`: no scan lies within.
    """
    if not any(trainings):
        return {}
    told = {name: [one[name] for one in trainings if one and one.get(name)] for name in RANGES}
    common = {
        name: {
            end: _elementwise(choose, [one[end] for one in ranges]) for end, choose in (("low", max), ("high", min))
        }
        for name, ranges in told.items()
        if ranges
    }
    num_silent = {name: len(trainings) - len(ranges) for name, ranges in told.items()}
    return {"num_models": len(trainings), "num_silent": num_silent, **common}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """A value outside its range: what was looked at, what was found, and the range with its margin left out."""

    what: str
    found: float
    low: float
    high: float


def outside_lengths(
    found_mm: Sequence[float], trained: dict[str, Sequence[float]], *, margin: float
) -> list[Outside]:
    """The axes whose length lies outside the range by more than a share of it.

    Args:
        found_mm: along slices, rows and columns.
        trained: `low` and `high`, three lengths each.
        margin: 0.1 allows from 0.9 times the lowest to 1.1 times the highest.
    """
    rows = zip(AXES, found_mm, trained["low"], trained["high"], strict=True)
    return [
        Outside(what=axis, found=float(found), low=float(low), high=float(high))
        for axis, found, low, high in rows
        if not low * (1 - margin) <= found <= high * (1 + margin)
    ]


def outside_hu(found: dict[str, float], trained: dict[str, dict[str, float]], *, margin_hu: float) -> list[Outside]:
    """The percentiles that lie outside their range by more than the margin."""
    return [
        Outside(what=name, found=found[name], low=trained["low"][name], high=trained["high"][name])
        for name in COMPARED
        if not trained["low"][name] - margin_hu <= found[name] <= trained["high"][name] + margin_hu
    ]


def sampled_percentiles(image: np.ndarray) -> dict[str, float]:
    """Percentiles of a scan's HU by name (`COMPARED`), from evenly spread voxels.

    Args:
        image: `(slices, rows, columns)` in HU.
    """
    step = max(1, round((image.size / _NUM_SAMPLED) ** (1 / 3)))
    sample = np.maximum(image[::step, ::step, ::step], AIR_HU)
    return dict(zip(COMPARED, np.percentile(sample, [PERCENTILES[name] for name in COMPARED]).tolist(), strict=True))


def _elementwise(choose: Callable[[Sequence[float]], float], values: Sequence[Any]) -> Any:
    """Chooses among numbers, or at each place of lists or of mappings that are alike."""
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _elementwise(choose, [one[name] for one in values]) for name in first}
    if isinstance(first, Sequence):
        return [_elementwise(choose, parts) for parts in zip(*values, strict=True)]
    return choose(values)


def _range(values: np.ndarray) -> dict[str, Any]:
    """Lowest and highest along the first axis, as plain numbers."""
    return {"low": values.min(axis=0).round(4).tolist(), "high": values.max(axis=0).round(4).tolist()}
