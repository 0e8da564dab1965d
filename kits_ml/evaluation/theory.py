"""What a metric must read, from counts alone: exact fractions, and none of the code that is tested.

A metric of overlap follows a convention: what it averages over, whether it pools the pixels of all patients or
averages over patients, and what a class counts that neither reference nor prediction shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, Protocol

from kits_ml.evaluation.known_predictions import Call, KnownCase, Scenario, Table

Kind = Literal["iou", "dice", "precision", "recall", "accuracy"]

#: What an overlap can be averaged over: sets of labels, each set scored as one mask.
AVERAGES: Mapping[str, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        "labels": ((0,), (1,), (2,)),
        "foreground_labels": ((1,), (2,)),
        "regions": ((1, 2), (2,)),
        "kidney_region": ((1, 2),),
        "background_label": ((0,),),
        "kidney_label": ((1,),),
        "tumour_label": ((2,),),
    }
)

#: Bins of the expected calibration error (Guo et al., ICML 2017).
NUM_BINS = 15


class Expectation(Protocol):
    """What a metric is held to."""

    def expected(self, scenario: Scenario) -> float | None:
        """The reading that is right, NaN where it must be undefined; None where it is not asked for."""

    def describe(self) -> str:
        """For the title of a table."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a metric counts.

    Attributes:
        kind: what it measures.
        average: a key of `AVERAGES`: `labels` includes the background. Means nothing for accuracy.
        per_case: a mean over patients; else all their pixels are pooled.
        absent: what an empty mask counts that was predicted empty: `one`, as in KiTS, or `skip`: it is left out of
            the mean, as Keras does.
    """

    kind: Kind
    average: str = "labels"
    per_case: bool = False
    absent: Literal["one", "skip"] = "one"

    def expected(self, scenario: Scenario) -> float | None:
        """The reading that is right; None where the convention leaves it undefined.

        For labels that are out of range this is the highest reading in which they count as wrong.
        """
        tables = [case.table for case in scenario.cases]
        found = [self._of_table(table) for table in (tables if self.per_case else [_pool(tables)])]
        defined = [value for value in found if value is not None]
        return float(sum(defined) / len(defined)) if defined else None

    def describe(self) -> str:
        """For the title of a table, such as `"iou, mean of labels 0, 1, 2, pooled over patients"`."""
        masks = ["+".join(map(str, members)) for members in AVERAGES[self.average]]
        which = f"mean of labels {', '.join(masks)}" if len(masks) > 1 else f"label {masks[0]}"
        what = "" if self.kind == "accuracy" else f", {which}"
        skip = ", absent ones left out" if self.absent == "skip" and what else ""
        return f"{self.kind}{what}{skip}, {'mean over' if self.per_case else 'pooled over'} patients"

    def _of_table(self, table: Table) -> Fraction | None:
        if self.kind == "accuracy":
            return Fraction(sum(table[label][label] for label in range(3)), sum(map(sum, table)))
        found = [self._of_mask(table, members) for members in AVERAGES[self.average]]
        defined = [value for value in found if value is not None]
        return sum(defined) / Fraction(len(defined)) if defined else None

    def _of_mask(self, table: Table, members: tuple[int, ...]) -> Fraction | None:
        num_true = sum(table[label][column] for label in members for column in range(3))
        num_pred = sum(row[label] for row in table for label in members)
        num_both = sum(table[label][column] for label in members for column in members)
        if not num_true and not num_pred:
            return Fraction(1) if self.absent == "one" else None
        denominator = {
            "iou": num_true + num_pred - num_both,
            "dice": Fraction(num_true + num_pred, 2),
            "precision": num_pred,
            "recall": num_true,
        }[self.kind]
        return Fraction(num_both) / denominator if denominator else Fraction(0)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Volume in ml, a mean over patients.

    Attributes:
        region: one set of labels of `AVERAGES`.
        of: `true` is what the reference has, `pred` what was predicted, `error` the second less the first.
    """

    region: str
    of: Literal["true", "pred", "error"]

    def expected(self, scenario: Scenario) -> float:
        """Voxels times what each holds; 1 ml is 1000 cubic mm."""
        slices_mm, rows_mm, columns_mm = (Fraction(str(mm)) for mm in scenario.spacing_mm)
        found = [self._of_table(case.table) for case in scenario.cases]
        return float(Fraction(sum(found), len(found)) * slices_mm * rows_mm * columns_mm / 1000)

    def describe(self) -> str:
        """For the title of a table."""
        return f"ml of label {'+'.join(map(str, AVERAGES[self.region][0]))}, mean over patients"

    def _of_table(self, table: Table) -> int:
        (members,) = AVERAGES[self.region]
        num_true = sum(table[label][column] for label in members for column in range(3))
        num_pred = sum(row[label] for row in table for label in members)
        return {"true": num_true, "pred": num_pred, "error": num_pred - num_true}[self.of]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """How far probabilities are off.

    Attributes:
        score: `ece`, the expected calibration error of one label, or `brier`, its mean squared error.
        label: which one; None is the sum over all.
        near: in the box around what is labelled; else in the whole scan.
        pooled: over the pixels of all patients; else a mean over those patients that have pixels.
    """

    score: Literal["ece", "brier"]
    label: int | None
    near: bool
    pooled: bool = False

    def expected(self, scenario: Scenario) -> float:
        """The reading that is right; NaN where there are no pixels."""
        by_case = [self._calls(case) for case in scenario.cases]
        groups = [[call for calls in by_case for call in calls]] if self.pooled else by_case
        found = [self._of_calls(calls) for calls in groups if calls]
        return float(sum(found) / len(found)) if found else math.nan

    def describe(self) -> str:
        """For the title of a table."""
        which = "sum over labels" if self.label is None else f"label {self.label}"
        where = "near what is labelled" if self.near else "whole scan"
        return f"{self.score}, {which}, {where}, {'pooled over' if self.pooled else 'mean over'} patients"

    def _calls(self, case: KnownCase) -> tuple[Call, ...]:
        return case.calls_near if self.near else case.calls

    def _of_calls(self, calls: Sequence[Call]) -> Fraction:
        one_label = {"ece": _ece, "brier": _brier}[self.score]
        labels = range(3) if self.label is None else [self.label]
        return sum((one_label(calls, label) for label in labels), Fraction(0))


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A metric whose readings are worked out one by one.

    Attributes:
        readings: by the scenario's name; the metric is not asked about others. NaN means that it must be undefined.
    """

    readings: Mapping[str, float]

    def expected(self, scenario: Scenario) -> float | None:
        """The reading that is right; None where there is none by hand."""
        return self.readings.get(scenario.name)

    def describe(self) -> str:
        """For the title of a table."""
        return "by hand"


def conventions(kind: Kind, *, average: str | None = None, per_case: bool = False) -> Iterator[Convention]:
    """The honest conventions that a metric of this kind may follow, the most usual first.

    Args:
        kind: what it measures.
        average: a key of `AVERAGES`, if it is declared.
        per_case: whether it is declared as a mean over patients.
    """
    first = Convention(kind=kind, per_case=per_case)
    if kind == "accuracy":
        yield first
        return
    usual = [name for name in AVERAGES if name != "background_label"]  # nobody means that one without saying so
    for name in usual if average is None else [average]:
        for absent in ("skip", "one"):
            yield dataclasses.replace(first, average=name, absent=absent)


def _pool(tables: list[Table]) -> Table:
    """Sums tables of the same number of rows."""
    return tuple(tuple(sum(row[column] for row in rows) for column in range(3)) for rows in zip(*tables, strict=True))


def _ece(calls: Sequence[Call], label: int) -> Fraction:
    """In each bin the summed probability less the hits; the sizes of these, by pixel."""
    gaps = dict.fromkeys(range(NUM_BINS), Fraction(0))
    for call in calls:
        probability = Fraction(str(call.probabilities[label]))
        place = min(math.floor(probability * NUM_BINS), NUM_BINS - 1)
        gaps[place] += probability * sum(call.num_true) - call.num_true[label]
    return sum(map(abs, gaps.values())) / _num_pixels(calls)


def _brier(calls: Sequence[Call], label: int) -> Fraction:
    squares = Fraction(0)
    for call in calls:
        probability, hits = Fraction(str(call.probabilities[label])), call.num_true[label]
        squares += hits * (1 - probability) ** 2 + (sum(call.num_true) - hits) * probability**2
    return squares / _num_pixels(calls)


def _num_pixels(calls: Sequence[Call]) -> int:
    return sum(sum(call.num_true) for call in calls)


def agrees(expected: float, found: float, tolerance: float = 1e-4) -> bool:
    """Whether two readings are the same, up to float32; undefined (NaN) agrees with undefined."""
    return (math.isnan(expected) and math.isnan(found)) or math.isclose(expected, found, rel_tol=0, abs_tol=tolerance)
