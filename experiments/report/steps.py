"""The series of small trainings: the report's way, and one fault after the other mended.

A step keeps all that the steps before it mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from words import Result, Results

from kits_ml.evaluation.aggregates import summarise_values


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Which of the two faults a preparation has.

    Attributes:
        mean_of_numbers: labels are resized as if they were grey values, then rounded.
        unclipped: intensities keep what lies beyond the window until after gamma.
    """

    mean_of_numbers: bool = False
    unclipped: bool = False


#: The ways to prepare that the steps use.
PREPARATIONS: Mapping[str, Preparation] = {
    "both_faults": Preparation(mean_of_numbers=True, unclipped=True),
    "unclipped": Preparation(unclipped=True),
    "right": Preparation(),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training of the series.

    Attributes:
        name: what is mended in it.
        title: the same for a figure.
        preparation: a key of `PREPARATIONS`.
        by_patient: whether whole patients validate; else slices do, drawn from all patients.
        changes: settings other than the report's.
        training: the step whose training this one takes, where only the choice of the weights differs.
        best: whether the weights are those of the epoch with the best honest score; else the last.
    """

    name: str
    title: str
    preparation: str = "right"
    by_patient: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)
    training: str | None = None
    best: bool = False


_DICE = {"loss": "dice_crossentropy"}
_FOREGROUND = {**_DICE, "sampling": "foreground"}

#: The series, in order.
STEPS: tuple[Step, ...] = (
    Step(name="report", title="the report's way", preparation="both_faults", by_patient=False),
    Step(name="labels", title="+ labels by nearest neighbour", preparation="unclipped", by_patient=False),
    Step(name="clip", title="+ clipped before gamma", by_patient=False),
    Step(name="patients", title="+ split by patient"),
    Step(name="loss", title="+ Dice in the loss", changes=_DICE),
    Step(name="sampling", title="+ a third of each batch shows foreground", changes=_FOREGROUND),
    Step(
        name="selection",
        title="+ weights chosen by the honest score",
        changes=_FOREGROUND,
        training="sampling",
        best=True,
    ),
)

#: The steps that are trained.
TRAINED_STEPS = tuple(step for step in STEPS if step.training is None)


def stage_name(source: str, step: Step, *, seed: int) -> str:
    """What the stage of one training is called."""
    return f"mending_{source}_{step.name}" + (f"_seed{seed}" if seed else "")


def repeats(results: Results, source: str) -> list[dict[str, Result]]:
    """What each trained step found, by its name, for every seed whose series is whole."""
    found, seed = [], 0
    while any(stage_name(source, step, seed=seed) in results for step in TRAINED_STEPS):
        stages = {step.name: results.get(stage_name(source, step, seed=seed)) for step in TRAINED_STEPS}
        found += [stages] if all(stages.values()) else []
        seed += 1
    return found


def series(found: Sequence[Mapping[str, Result]]) -> list[dict[str, Any]]:
    """The rows of the figure: a patient's Dice is the mean over the seeds, then come mean and interval over patients.

    Args:
        found: one or several repeats, see `repeats`.

    Returns:
        A row a step with `name`, `title` and `sizes`; `as_reported`, means over the seeds; `own`, the mean Dice of
        the training's own validation; `test`, the summary of each region's Dice over patients; `by_seed`, each
        region's mean Dice by seed; `change`, the same against the row before (patients paired), with `by_seed`; the
        first row's is empty.
    """
    rows: list[dict[str, Any]] = []
    before: dict[str, np.ndarray] = {}
    for step in STEPS:
        trained = [one[step.training or step.name] for one in found]
        said = [one["best" if step.best else "last"] for one in trained]
        dice = {name: _by_patient(said, name) for name in said[0]["test"]}
        rows.append(
            {
                "name": step.name,
                "title": step.title,
                "as_reported": _means([one["as_reported"] for one in said]),
                "own": _means([_own_validation(one, best=step.best) for one in trained]),
                "test": {name: summarise_values(values.mean(axis=0)) for name, values in dice.items()},
                "by_seed": {name: [one["test"][name]["mean"] for one in said] for name in dice},
                "change": {name: _change(values, before[name]) for name, values in dice.items() if before},
                "sizes": trained[0]["sizes"],
            }
        )
        before = dice
    return rows


def holds_up(change: Result) -> bool:
    """Whether a change's interval over patients leaves 0 out, and every seed says the same of its sign."""
    apart = change["ci_low"] is not None and (change["ci_low"] > 0 or change["ci_high"] < 0)
    return apart and len({one > 0 for one in change["by_seed"]}) == 1


def _by_patient(said: Sequence[Result], name: str) -> np.ndarray:
    """A region's Dice, `(seeds, patients)`; NaN for who does not show the region."""
    return np.array([[dice[name] for _, dice in sorted(one["test_by_case"].items())] for one in said], float)


def _change(dice: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    difference = dice - before
    summary = summarise_values(difference.mean(axis=0))
    by_seed = [float(np.mean(one[~np.isnan(one)])) for one in difference]
    return {**{key: None if value != value else value for key, value in summary.items()}, "by_seed": by_seed}


def _own_validation(trained: Result, *, best: bool) -> dict[str, float]:
    """Mean Dice of the patients that validated the training; what a patient neither shows nor is given counts 1."""
    epoch = trained["best_epoch"] if best else -1
    return {name: trained["course"][f"val_{name}"][epoch] for name in ("dice_kidney", "dice_tumour")}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
