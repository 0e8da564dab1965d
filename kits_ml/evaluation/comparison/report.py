"""What a comparison leaves behind: tables for machines, and the same with rounded numbers for a page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kits_ml.evaluation.comparison.alignment import AlignedScores
from kits_ml.evaluation.comparison.analysis import Comparison
from kits_ml.evaluation.comparison.costs import NAMES, Cost
from kits_ml.evaluation.comparison.verdict import Verdict, format_p, format_score, shown, two_digits
from kits_ml.page import Table

Row = dict[str, Any]


def to_dict(comparison: Comparison, verdict: Verdict, aligned: AlignedScores) -> dict[str, Any]:
    """All of it as plain values for JSON: NaN and infinity become None."""
    return {
        "verdict": _plain(verdict),
        "patients": {
            "cases": list(aligned.cases),
            "num_replicates": dict(aligned.num_replicates),
            "left_out": dict(aligned.left_out),
            "undefined": _plain(aligned.undefined),
        },
        **_plain(comparison),
    }


def algorithm_rows(comparison: Comparison, aligned: AlignedScores, costs: Mapping[str, Cost]) -> list[Row]:
    """A row an algorithm: scores, mean rank, ranks by both methods, cost; unknown is empty."""
    rows = []
    for index, one in enumerate(comparison.summaries):
        row = dataclasses.asdict(one) | {"num_runs": aligned.num_replicates[one.algorithm]}
        row |= {f"rank_{found.method}": int(found.ranks[index]) for found in comparison.stability}
        row |= dataclasses.asdict(costs.get(one.algorithm, Cost()))
        rows.append(_empty_for_nan(row))
    return rows


def contrast_rows(comparison: Comparison) -> list[Row]:
    """A row for each algorithm against the control."""
    return [
        _empty_for_nan(
            {"control": comparison.control, "shown": shown(one, comparison.plan)} | dataclasses.asdict(one)
        )
        for one in comparison.contrasts
    ]


def pair_rows(comparison: Comparison) -> list[Row]:
    """A row for each pair of algorithms."""
    names = comparison.algorithms
    return [
        {
            "first": names[row],
            "second": names[column],
            "mean_difference": float(comparison.pair_differences[row, column]),
            "p_holm": float(comparison.pair_p_holm[row, column]),
        }
        for row in range(len(names))
        for column in range(row + 1, len(names))
    ]


def rank_rows(comparison: Comparison) -> list[Row]:
    """A row for each method, algorithm and rank: the share of bootstrap samples."""
    return [
        {"method": found.method, "algorithm": name, "rank": rank + 1, "share": float(found.distribution[index, rank])}
        for found in comparison.stability
        for index, name in enumerate(comparison.algorithms)
        for rank in range(len(comparison.algorithms))
    ]


def case_rows(aligned: AlignedScores) -> list[Row]:
    """A row a patient: the scores that were compared, means over seeds."""
    return [
        {"case": case} | dict(zip(aligned.algorithms, map(float, scores), strict=True))
        for case, scores in zip(aligned.cases, aligned.scores, strict=True)
    ]


def page_tables(comparison: Comparison, aligned: AlignedScores, costs: Mapping[str, Cost]) -> list[Table]:
    """The tables of the page: algorithms with their cost, contrasts, and the tests over all."""
    tables = [_algorithms_table(comparison, aligned, costs), _contrasts_table(comparison)]
    return [*tables, _overall_table(comparison)]


def _algorithms_table(comparison: Comparison, aligned: AlignedScores, costs: Mapping[str, Cost]) -> Table:
    known = [name for name in NAMES if any(getattr(cost, name) is not None for cost in costs.values())]
    header = ["algorithm", "mean", "interval of the mean", "median", "SD", "mean rank", "runs"]
    rows = []
    for one in comparison.summaries:
        mean, low, high, median, sd = (
            format_score(value, comparison) for value in (one.mean, one.low, one.high, one.median, one.sd)
        )
        cost = costs.get(one.algorithm, Cost())
        runs = str(aligned.num_replicates[one.algorithm])
        rows.append(
            [
                *(one.algorithm, mean, f"{low} to {high}", median, sd, f"{one.mean_rank:.2f}", runs),
                *(_format_cost(name, getattr(cost, name)) for name in known),
            ]
        )
    note = "The control comes first. " + ("" if known else "No run or table tells of the cost.")
    return Table(
        title="Scores and cost",
        header=[*header, *(_COST_TITLES[name] for name in known)],
        rows=rows,
        note=note.strip(),
    )


_COST_TITLES = {
    "num_parameters": "parameters",
    "gflops": "GFLOPs a slice",
    "training_minutes": "training, min",
    "prediction_seconds": "prediction, s a case",
}


def _format_cost(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if name == "num_parameters" else f"{value:,.3g}"


def _contrasts_table(comparison: Comparison) -> Table:
    plan = comparison.plan
    header = [
        *("algorithm", "mean difference", f"{100 * plan.confidence:.3g} % interval", "p, Wilcoxon", "p, sign flips"),
        *("p, Holm", "P(better)", "p, equivalence", "shown", "patients for the margin"),
    ]
    rows = []
    for one in comparison.contrasts:
        needed = "over a million" if one.patients_needed is None else f"about {two_digits(one.patients_needed):,}"
        interval = (format_score(value, comparison, sign=True) for value in (one.low, one.high))
        superiority = f"{one.superiority:.2f} ({one.superiority_low:.2f} to {one.superiority_high:.2f})"
        p_values = (one.p_wilcoxon, one.p_permutation, one.p_holm)
        rows.append(
            [
                *(one.algorithm, format_score(one.mean_difference, comparison, sign=True), " to ".join(interval)),
                *(format_p(value).removeprefix("p ").removeprefix("= ") for value in p_values),
                superiority,
                format_p(one.p_equivalence).removeprefix("p ").removeprefix("= "),
                shown(one, plan),
                "–" if one.sd_difference == 0 else needed,
            ]
        )
    test = "Wilcoxon's signed ranks" if plan.test == "wilcoxon" else "the mean under flipped signs"
    note = (
        f"Each against {comparison.control}. Two-sided p-values; {test} with Holm's correction decide. P(better): "
        "of a patient, ties half. Equivalence: two one-sided t-tests, after Holm. Patients for the margin: to show a "
        f"difference of {format_score(plan.equivalence_margin, comparison)} with power {plan.power:g} at "
        f"{comparison.contrast_alpha:.3g}."
    )
    return Table(title=f"Against {comparison.control}", header=header, rows=rows, note=note)


def _overall_table(comparison: Comparison) -> Table:
    rows = []
    if comparison.friedman is not None and comparison.critical_difference is not None:
        found = comparison.friedman
        rows.append(["Friedman's χ²", f"{found.statistic:.2f} ({found.num_degrees} df)", format_p(found.p_value)])
        rows.append(["Iman and Davenport's F", f"{found.iman_davenport:.2f}", format_p(found.iman_davenport_p)])
        rows.append(["Nemenyi's critical difference", f"{comparison.critical_difference:.2f} ranks", ""])
    for one in comparison.stability:
        tau = f"{one.tau_mean:.2f} ({one.tau_low:.2f} to {one.tau_high:.2f})"
        rows.append(
            [f"Kendall's τ, {one.method.replace('_', ' ')}", "all tie" if math.isnan(one.tau_mean) else tau, ""]
        )
    note = "Kendall's τ: between the ranking of these patients and those of bootstrap samples; 1 is the same ranking."
    return Table(title="Over all algorithms", header=["", "value", ""], rows=rows, note=note)


def _empty_for_nan(row: Mapping[str, Any]) -> Row:
    return {name: "" if _is_undefined(value) else value for name, value in row.items()}


def _is_undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(member) for member in value]
    return None if _is_undefined(value) else value
