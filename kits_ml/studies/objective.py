"""The objective: one trial of one architecture, from chosen settings to its score."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import optuna
from optuna.trial import BaseTrial

from kits_ml import runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import CasesFailedError, InputError, first_line
from kits_ml.studies.space import suggest
from kits_ml.studies.spec import StudySpec
from kits_ml.studies.storage import patiently
from kits_ml.training.budget import num_epochs
from kits_ml.training.callbacks import SELECTION_METRIC
from kits_ml.workflows.trial import Trialled, train_trial

#: User attribute of a trial: when its worker began with it, in seconds since 1970.
BEGUN = "begun_s"

#: Trains and scores: settings in, and a function to call after each epoch.
Train = Callable[..., Trialled]


class TrialFailedError(Exception):
    """A trial that came to nothing, for a reason that lies in its settings; the study goes on."""


def run_trial(
    trial: BaseTrial, *, spec: StudySpec, architecture: str, train: Train = train_trial
) -> float | tuple[float, ...]:
    """Lets a trial choose settings, trains each inner fold and gives the objectives' values.

    The score is the mean over folds. A search for one objective reports for its pruner: each epoch, as the mean of
    the finished folds and the running one; for the WilcoxonPruner instead each patient of a finished fold.
    What is worth keeping stands in the trial's user attributes afterwards, also where it was pruned or failed:
    `curve` (a row an epoch), `cases` (a row a validation patient), `reason`, costs.

    Args:
        trial: Optuna's; a `FixedTrial` needs no study.
        spec: the study.
        architecture: one of its.
        train: does the training.

    Raises:
        optuna.TrialPruned: the pruner says that the trial is not worth going on.
        TrialFailedError: memory, a loss that is no number, settings that do not go together.
        CasesFailedError: cases that cannot be used: no fault of the trial's settings.
    """
    chosen = suggest(trial, spec.spaces[architecture])
    recorder = _Recorder(trial, spec)
    recorder.note(worker=f"{platform.node()}:{os.getpid()}", **{BEGUN: time.time()})
    try:
        for fold in range(recorder.num_folds):
            settings = spec.settings(architecture, chosen, fold=fold)
            recorder.begin(fold, settings)
            recorder.finish(train(settings, on_epoch=recorder.on_epoch))
        return recorder.values()
    except optuna.TrialPruned as error:
        recorder.note(reason=str(error))
        raise
    except Exception as error:
        out_of_memory = runtime.is_out_of_memory(error)
        if not out_of_memory and (not isinstance(error, InputError) or isinstance(error, CasesFailedError)):
            raise
        reason = f"out of memory: {first_line(error)}" if out_of_memory else first_line(error)
        recorder.note(reason=reason)
        raise TrialFailedError(reason) from error
    finally:
        recorder.keep()


class _Recorder:
    """What a trial has done so far; reports it to the pruner and keeps it with the trial."""

    def __init__(self, trial: BaseTrial, spec: StudySpec):
        self.trial = trial
        self.pruner = spec.pruner["name"]
        self.objectives = spec.objectives
        self.num_folds = max(1, spec.search.num_folds)
        self.finished: list[Trialled] = []
        self.curve: list[dict[str, float]] = []
        self.fold, self.first_step = 0, 0

    def begin(self, fold: int, settings: TrainSettings) -> None:
        self.fold, self.first_step = fold, fold * num_epochs(settings)

    def on_epoch(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.curve.append({"fold": self.fold, "epoch": epoch, **{name: float(logs[name]) for name in logs}})
        score = float(logs[SELECTION_METRIC])
        if not math.isfinite(score):
            raise InputError(f"{SELECTION_METRIC} became {score} in epoch {epoch}")
        if len(self.objectives) == 1 and self.pruner != "WilcoxonPruner":
            so_far = float(np.mean([*(one.score for one in self.finished), score]))
            self._report(so_far, self.first_step + epoch)
            self._prune(f"epoch {epoch}, fold {self.fold}: {SELECTION_METRIC} {so_far:.4f}")

    def finish(self, trialled: Trialled) -> None:
        """Takes a finished fold; its patients, in order of names, are steps that no other fold has."""
        first = sum(len(one.cases) for one in self.finished)
        self.finished.append(trialled)
        if self.pruner == "WilcoxonPruner":
            for number, name in enumerate(sorted(trialled.cases), start=first):
                self._report(trialled.cases[name]["foreground_iou"], number)
            if len(self.finished) < self.num_folds:  # else there is nothing left to save
                self._prune(f"patients of {len(self.finished)} folds")

    def values(self) -> float | tuple[float, ...]:
        """The objectives: the mean over folds, of minutes the sum."""
        costs = self._costs()
        values = {SELECTION_METRIC: float(np.mean([one.score for one in self.finished])), **costs}
        found = tuple(values[name] for name in self.objectives)
        return found[0] if len(found) == 1 else found

    def note(self, **values: Any) -> None:
        for name, value in values.items():
            patiently(lambda name=name, value=value: self.trial.set_user_attr(name, value))

    def keep(self) -> None:
        """Leaves all there is with the trial."""
        cases = [
            {"case": name, "fold": fold, **scores}
            for fold, one in enumerate(self.finished)
            for name, scores in one.cases.items()
        ]
        best = {"best_epoch": self.finished[0].best_epoch} if self.finished else {}
        self.note(curve=self.curve, cases=cases, **self._costs(), **best)

    def _report(self, value: float, step: int) -> None:
        patiently(lambda: self.trial.report(value, step))

    def _prune(self, what: str) -> None:
        if patiently(self.trial.should_prune):
            raise optuna.TrialPruned(f"pruned by {self.pruner} after {what}")

    def _costs(self) -> dict[str, float]:
        if not self.finished:
            return {}
        last = asdict(self.finished[-1])
        return {
            "num_parameters": last["num_parameters"],
            "gflops": last["gflops"],
            "training_minutes": sum(one.training_minutes for one in self.finished),
        }
