"""How the essay says numbers, and the parts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kits_ml.page import Picture, Table, Text

Result = Mapping[str, Any]
Results = Mapping[str, Result]


@dataclass(frozen=True, kw_only=True)
class NamedPicture(Picture):
    """A picture with a file name, without its ending; private ones show real CT and stay in the output folder."""

    name: str
    private: bool = False


Part = Text | Table | NamedPicture

#: What the pages call the cases of a source.
TITLES = {"thin": "real slices", "phantom": "phantom"}


def number(value: float | None, digits: int = 3) -> str:
    """A number as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as text."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def interval(found: Result, digits: int = 3) -> str:
    """`"0.712 (0.650 to 0.770)"`."""
    low, high = (number(found[key], digits) for key in ("ci_low", "ci_high"))
    return f"{number(found['mean'], digits)} ({low} to {high})"


def num_shown(found: Result) -> int:
    """Patients that a mean is over."""
    return found["num_cases"] - found["num_undefined"]


def difference(found: Result) -> str:
    """`"+0.100 (0.050 to 0.150), an interval without 0"`."""
    if found["mean"] is None:
        return "nothing"
    return f"{change_of(found)}, {told_apart(found)}"


def change_of(found: Result) -> str:
    """`"+0.100 (0.050 to 0.150)"`."""
    if found["mean"] is None:
        return "–"
    return f"{found['mean']:+.3f} ({number(found['ci_low'])} to {number(found['ci_high'])})"


def told_apart(found: Result) -> str:
    """What the interval of a difference says, in words."""
    if found["ci_low"] is None:
        return "of too few patients to tell"
    apart = found["ci_low"] > 0 or found["ci_high"] < 0
    return "an interval without 0" if apart else "which cannot be told from 0"


def told(what: str, values: Mapping[str, float]) -> str:
    """Values in a row, for who cannot see the picture."""
    return f"{what}: " + ", ".join(f"{name} {number(value)}" for name, value in values.items())


def missing(title: str, stage: str) -> Text:
    """What stands in a chapter's place while its stage has not run."""
    return Text(title=title, paragraphs=[f"Not measured yet: run.py --only {stage}"])


def budget(sizes: Mapping[str, Any]) -> str:
    """How large small trainings are."""
    train = sizes["train"]
    return (
        f"small trainings of {sizes['image_size']} pixels, {sizes['base_filters']} filters, {sizes['steps']} steps "
        f"of {sizes['batch_size']}, {train['num_slices']} slices"
    )
