"""What an algorithm costs, beside what it scores."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kits_ml.errors import InputError, first_line


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an algorithm costs; None where nobody said.

    Attributes:
        num_parameters: of the network.
        gflops: 10^9 floating-point operations of one slice.
        training_minutes: of one training.
        prediction_seconds: of one case.
    """

    num_parameters: float | None = None
    gflops: float | None = None
    training_minutes: float | None = None
    prediction_seconds: float | None = None


NAMES = tuple(field.name for field in dataclasses.fields(Cost))


def read_costs(path: str | Path) -> dict[str, Cost]:
    """Reads a table of `algorithm` and any of the costs; an empty cell is unknown.

    Raises:
        InputError: no such file, no table, no such columns, an algorithm twice, a value that is no cost.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of costs")
    try:
        return _read(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table ({first_line(error)}); expected CSV") from error


def _read(path: Path) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or ()
        if "algorithm" not in columns or not set(columns) & set(NAMES):
            found = ", ".join(columns) or "nothing"
            raise InputError(f"{path}: found columns {found}; expected algorithm and some of {', '.join(NAMES)}")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if row["algorithm"] in costs:
                raise InputError(f"{where}: second row of {row['algorithm']}, expected one")
            costs[row["algorithm"]] = Cost(**{name: _cost(row.get(name), f"{where}: {name}") for name in NAMES})
    return costs


def mean_cost(costs: Iterable[Cost]) -> Cost:
    """The mean over an algorithm's runs of what is known of each."""
    known = {name: [getattr(cost, name) for cost in costs if getattr(cost, name) is not None] for name in NAMES}
    return Cost(**{name: math.fsum(values) / len(values) for name, values in known.items() if values})


def _cost(text: str | None, where: str) -> float | None:
    if not (text or "").strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: found {text!r}, expected a number") from error
    if not 0 <= value < math.inf:
        raise InputError(f"{where}: found {text}, expected 0 or more")
    return value
