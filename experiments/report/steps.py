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
        A row a step with `name`, `title` and `sizes`; `as_reported`, means over the seeds; `test`, the summary
        of each region's Dice over patients; `by_seed`, each region's mean Dice by seed.
    """
    rows = []
    for step in STEPS:
        trained = [one[step.training or step.name] for one in found]
        said = [one["best" if step.best else "last"] for one in trained]
        reported = {
            name: float(np.mean([one["as_reported"][name] for one in said])) for name in said[0]["as_reported"]
        }
        rows.append(
            {
                "name": step.name,
                "title": step.title,
                "as_reported": reported,
                "test": {name: summarise_values(_patient_means(said, name)) for name in said[0]["test"]},
                "by_seed": {name: [one["test"][name]["mean"] for one in said] for name in said[0]["test"]},
                "sizes": trained[0]["sizes"],
            }
        )
    return rows


def _patient_means(said: Sequence[Result], name: str) -> list[float]:
    """A region's Dice of each patient, mean over the seeds; NaN for who does not show the region."""
    values = [[dice[name] for _, dice in sorted(one["test_by_case"].items())] for one in said]
    return list(np.array(values, float).mean(axis=0))
