"""Every metric in use is fed known predictions and must read what theory says, before anything is trained or scored.

A subject is anything that reads scenarios; what it reads is judged against a convention, declared or found.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kits_ml.errors import InputError, MetricMisreadsError
from kits_ml.evaluation.known_predictions import SCENARIOS, Scenario
from kits_ml.evaluation.theory import Expectation, agrees

SELFTEST_CSV = "selftest.csv"

#: A reading, or what the metric said instead.
Reading = float | Exception


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Metrics that one function reads together.

    Attributes:
        read: the readings of a scenario by metric name; may raise.
        conventions: by metric name. Of several, the metric is held to the one that it follows best, all along.
        must_refuse: labels that are out of range must raise an `InputError`; else it is enough that they count as
            wrong.
        scenarios: what it is fed.
    """

    read: Callable[[Scenario], Mapping[str, float]]
    conventions: Mapping[str, Sequence[Expectation]]
    must_refuse: bool = True
    scenarios: Sequence[Scenario] = SCENARIOS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One reading.

    Attributes:
        metric: its name.
        convention: what it was held to, in words.
        scenario: what it was fed.
        expected: what theory says, as text: a number, `undefined`, `an error`, or `an error or at most ...`.
        found: what it read, as text: a number, `undefined`, or the error.
        ok: whether this agrees.
    """

    metric: str
    convention: str
    scenario: str
    expected: str
    found: str
    ok: bool


def run_selftest(subjects: Iterable[Subject]) -> list[Row]:
    """Puts metrics to the test.

    Args:
        subjects: such as `metrics_in_use()`.

    Returns:
        One row for each metric and scenario, metric by metric.

    Raises:
        MetricMisreadsError: with the rows of all metrics; its message is the table of those that misread.
    """
    rows = readings(subjects)
    stop_on_misreading(rows)
    return rows


def readings(subjects: Iterable[Subject]) -> list[Row]:
    """As `run_selftest`, but leaves the judgement to the caller."""
    rows: list[Row] = []
    for subject in subjects:
        found = [(scenario, _read(subject, scenario)) for scenario in subject.scenarios]
        for metric, candidates in subject.conventions.items():
            values = [(scenario, one if isinstance(one, Exception) else one[metric]) for scenario, one in found]
            judged = [_judge(metric, one, values, must_refuse=subject.must_refuse) for one in candidates]
            rows += max(judged, key=lambda some: sum(row.ok for row in some))  # of equally good ones the first
    return rows


def stop_on_misreading(rows: Sequence[Row]) -> None:
    """Raises where a metric misreads.

    Raises:
        MetricMisreadsError: see `run_selftest`.
    """
    wrong = misread(rows)
    if wrong:
        names = sorted({row.metric for row in wrong})
        shown = [row for row in rows if row.metric in names]
        message = f"{', '.join(names)}: {len(wrong)} of {len(shown)} known predictions misread"
        raise MetricMisreadsError(f"{message}\n{table(shown)}", rows=rows)


def misread(rows: Iterable[Row]) -> list[Row]:
    """The rows that do not agree with theory."""
    return [row for row in rows if not row.ok]


def table(rows: Iterable[Row]) -> str:
    """The rows as text, under a title for each metric."""
    rows = list(rows)
    width = max((len(row.scenario) for row in rows), default=0) + 2
    middle = max((len(row.expected) for row in rows), default=0) + 2
    lines: list[str] = []
    title = None
    for row in rows:
        if title != (row.metric, row.convention):
            title = (row.metric, row.convention)
            lines.append(f"{row.metric} ({row.convention})")
        mark = "ok" if row.ok else "MISREAD"
        lines.append(f"  {mark:<9}{row.scenario:<{width}}expected {row.expected:<{middle}}found {row.found}")
    return "\n".join(lines)


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as the text of `selftest.csv`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**dataclasses.asdict(row), "ok": str(row.ok).lower()} for row in rows)
    return text.getvalue()


def _read(subject: Subject, scenario: Scenario) -> Mapping[str, float] | Exception:
    try:
        return subject.read(scenario)
    except Exception as error:  # a metric that anyone wrote; whatever it says stands in the table
        return error


def _judge(
    metric: str, convention: Expectation, values: Sequence[tuple[Scenario, Reading]], *, must_refuse: bool
) -> list[Row]:
    rows = []
    for scenario, found in values:
        expected = convention.expected(scenario)
        if scenario.out_of_range:
            wanted, ok = _judge_out_of_range(expected, found, must_refuse)
        elif expected is None:
            continue
        else:
            wanted, ok = _text(expected), not isinstance(found, Exception) and agrees(expected, found)
        rows.append(
            Row(
                metric=metric,
                convention=convention.describe(),
                scenario=scenario.name,
                expected=wanted,
                found=_text(found),
                ok=ok,
            )
        )
    return rows


def _judge_out_of_range(highest: float | None, found: Reading, must_refuse: bool) -> tuple[str, bool]:
    if must_refuse or highest is None:
        return "an error", isinstance(found, InputError if must_refuse else Exception)
    refused = isinstance(found, Exception) or found != found
    return f"an error or at most {highest:.4f}", refused or found <= highest or agrees(highest, found)


def _text(found: Reading) -> str:
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {' '.join(str(found).split())[:150]}"
    return "undefined" if found != found else f"{found:.4f}"
