"""The series of small trainings: the report's way, and one fault after the other mended.

A step keeps all that the steps before it mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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


def series(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the figure, from what each trained step found, by its name."""
    rows = []
    for step in STEPS:
        found = results[step.training or step.name]
        said = found["best" if step.best else "last"]
        rows.append({"name": step.name, "title": step.title, **said, "sizes": found["sizes"]})
    return rows
