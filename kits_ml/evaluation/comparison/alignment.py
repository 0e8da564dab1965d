"""Scores of many runs become one table: a patient a row, an algorithm a column, seeds averaged first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kits_ml.errors import InputError
from kits_ml.evaluation.comparison.reading import Record
from kits_ml.settings import suggestion

#: Means of the same seeds in another order differ in their last digits, and would no longer tie.
_DECIMALS = 12

_NAMED = 5  # of the patients that do not fit, so that the message stays a line


@dataclass(frozen=True, kw_only=True)
class AlignedScores:
    """The same patients for each algorithm.

    Attributes:
        scores: `(num_cases, num_algorithms)`, without NaN.
        cases: names of the rows, sorted.
        algorithms: names of the columns, as they came.
        num_replicates: how many seeds or folds each algorithm's score is the mean of.
        left_out: patients that not all algorithms have, with the reason (`on_mismatch="intersect"`).
        undefined: for each algorithm with such, the patients for whom it has no value. They are left out for all.
    """

    scores: np.ndarray
    cases: tuple[str, ...]
    algorithms: tuple[str, ...]
    num_replicates: Mapping[str, int]
    left_out: Mapping[str, str]
    undefined: Mapping[str, tuple[str, ...]]


def align(records: Sequence[Record], *, control: str, on_mismatch: str = "refuse") -> AlignedScores:
    """Averages over seeds and folds, and brings all algorithms to the same patients.

    A patient without a value in one of an algorithm's seeds has none for the algorithm, and is left out for all.

    Args:
        records: all scores of all algorithms.
        control: one of the algorithms; becomes the first column.
        on_mismatch: `refuse` patients that not all have (or that have fewer runs than others of the same algorithm),
            or `intersect`: leave them out.

    Raises:
        InputError: fewer than two algorithms or patients, no control, a score twice, other patients.
    """
    by_algorithm: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        replicates = by_algorithm.setdefault(record.algorithm, {}).setdefault(record.case, {})
        if record.replicate in replicates:
            told = f", {record.replicate}" if record.replicate else ""
            raise InputError(f"scores: second score of {record.case} ({record.algorithm}{told}); expected one")
        replicates[record.replicate] = record.score
    if len(by_algorithm) < 2:
        raise InputError(
            f"scores: found {', '.join(by_algorithm) or 'no algorithm'}, expected two or more to compare"
        )
    if control not in by_algorithm:
        raise InputError(f"control: {control!r} is not among the algorithms{suggestion(control, list(by_algorithm))}")
    algorithms = (control, *(name for name in by_algorithm if name != control))
    num_replicates = {name: max(map(len, by_algorithm[name].values())) for name in algorithms}
    left_out = _mismatches(by_algorithm, num_replicates)
    if left_out and on_mismatch == "refuse":
        raise InputError(f"scores: {_name(left_out)}; expected the same for all, or --on_mismatch intersect")
    everybody = sorted(set().union(*by_algorithm.values()) - set(left_out))
    undefined = {
        name: tuple(case for case in everybody if any(map(math.isnan, by_algorithm[name][case].values())))
        for name in algorithms
    }
    without_value = set().union(*undefined.values())
    cases = tuple(case for case in everybody if case not in without_value)
    if len(cases) < 2:
        gone = f" after {len(left_out)} that not all have and {len(without_value)} without a value were left out"
        gone = gone if left_out or without_value else ""
        patients = "1 patient" if len(cases) == 1 else f"{len(cases)} patients"
        raise InputError(f"scores: found {patients} in common{gone}, expected two or more")
    scores = [
        [math.fsum(by_algorithm[name][case].values()) / num_replicates[name] for name in algorithms] for case in cases
    ]
    return AlignedScores(
        scores=np.round(np.array(scores), _DECIMALS),
        cases=cases,
        algorithms=algorithms,
        num_replicates=num_replicates,
        left_out=left_out,
        undefined={name: found for name, found in undefined.items() if found},
    )


def _mismatches(
    by_algorithm: Mapping[str, Mapping[str, Mapping[str, float]]], num_replicates: Mapping[str, int]
) -> dict[str, str]:
    """Patients that an algorithm has not, or not as often as its others, with the reason."""
    reasons: dict[str, str] = {}
    for case in sorted(set().union(*by_algorithm.values())):
        missing = [name for name, cases in by_algorithm.items() if case not in cases]
        fewer = {
            name: len(cases[case])
            for name, cases in by_algorithm.items()
            if case in cases and len(cases[case]) < num_replicates[name]
        }
        if missing:
            reasons[case] = f"is missing from {', '.join(missing)}"
        elif fewer:
            reasons[case] = "has " + ", ".join(
                f"{count} of {num_replicates[name]} runs of {name}" for name, count in fewer.items()
            )
    return reasons


def _name(reasons: Mapping[str, str]) -> str:
    named = [f"{case} {reason}" for case, reason in list(reasons.items())[:_NAMED]]
    more = [f"and {len(reasons) - _NAMED} more patients"] if len(reasons) > _NAMED else []
    return ", ".join([*named, *more])
