"""Who does what next: workers share the architectures' budgets through the storage, and stop when they are spent."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kits_ml.config import SearchSettings
from kits_ml.studies.objective import BEGUN, Train, TrialFailedError, run_trial
from kits_ml.studies.spec import StudySpec
from kits_ml.studies.storage import give_up_silent, has_heartbeat, patiently

log = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
#: User attribute of a trial that was begun when the budget was already held by others; it trained nothing.
SURPLUS = "surplus"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an architecture is.

    Attributes:
        complete, pruned: trials that count against the budget.
        failed: trials that ended for a reason in their settings.
        lost: trials whose worker was killed or stopped.
        running, waiting: trials that somebody is at, or that wait for somebody.
        minutes: time of ended and running trials, but for the lost ones: when a trial was given up does not tell how
            long it trained.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    lost: int = 0
    running: int = 0
    waiting: int = 0
    minutes: float = 0.0

    @property
    def finished(self) -> int:
        return self.complete + self.pruned


def progress(study: optuna.Study) -> Progress:
    """Counts a study's trials."""
    counts = dict.fromkeys(("complete", "pruned", "failed", "lost", "running", "waiting"), 0)
    minutes = 0.0
    for trial in study.get_trials(deepcopy=False):
        if SURPLUS in trial.user_attrs and trial.state.is_finished():
            continue
        counts[_kind(trial)] += 1
        minutes += minutes_of(trial)
    return Progress(**counts, minutes=minutes)


def is_spent(done: Progress, budget: SearchSettings) -> bool:
    """Whether an architecture needs no more trials, or is given up."""
    if done.failed >= budget.max_failed:
        return True
    by_trials = budget.trials is not None and done.finished >= budget.trials
    by_minutes = budget.minutes is not None and done.minutes >= budget.minutes
    return by_trials or by_minutes


def next_architecture(
    done: Mapping[str, Progress], budget: SearchSettings, *, count_running: bool = True
) -> str | None:
    """The architecture that is furthest behind and still has room; None where others' trials must be awaited.

    Args:
        done: by architecture.
        budget: of each.
        count_running: whether running trials hold their place in the budget.
    """
    held = {name: one.finished + (one.running if count_running else 0) for name, one in done.items()}
    open_ones = [
        name
        for name, one in done.items()
        if not is_spent(one, budget) and (budget.trials is None or held[name] < budget.trials)
    ]
    return min(open_ones, key=held.__getitem__, default=None)


def work(
    studies: Mapping[str, optuna.Study],
    spec: StudySpec,
    *,
    train: Train,
    on_trial: Callable[[str, FrozenTrial], Any],
    poll_s: float,
) -> None:
    """Does trials until every architecture's budget is spent, by this worker or by others.

    It ends when no trial is running any more, so that whoever reports then reports all, and a worker that is killed
    in the last trial is noticed. Without heartbeats that cannot be waited for. A storage that does not answer is
    waited for, see `patiently`.

    Args:
        studies: Optuna's, by architecture.
        spec: the study.
        train: does one training.
        on_trial: told of each trial that this worker ended, with its architecture.
        poll_s: how often to look again while others hold all that is left.

    Raises:
        optuna.exceptions.StorageInternalError: the storage does not answer any more.
    """
    beats = all(has_heartbeat(study._storage) for study in studies.values())
    while True:
        done = patiently(lambda: {name: progress(study) for name, study in studies.items()})
        spent = all(is_spent(one, spec.search) for one in done.values())
        if spent and not (beats and any(one.running for one in done.values())):
            return
        name = None if spent else next_architecture(done, spec.search, count_running=beats)
        if name is None:
            for study in studies.values():
                patiently(functools.partial(give_up_silent, study))
            time.sleep(poll_s)
            continue
        _one_trial(name, studies[name], spec, train=train, on_trial=on_trial, beats=beats)


def is_surplus(number: int, trials: Sequence[FrozenTrial], budget: int, *, count_running: bool) -> bool:
    """Whether the trials before number `number` hold the whole budget, so that this one would go beyond it.

    Numbers are given by the storage, one after the other, so all workers come to the same answer without a lock.
    """
    states = (*FINISHED, TrialState.RUNNING) if count_running else FINISHED
    before = [one for one in trials if one.number < number and one.state in states and SURPLUS not in one.user_attrs]
    return len(before) >= budget


def _one_trial(
    name: str, study: optuna.Study, spec: StudySpec, *, train: Train, on_trial: Callable, beats: bool
) -> None:
    def objective(trial: optuna.Trial) -> float | tuple[float, ...]:
        budget, others = spec.search.trials, patiently(lambda: study.get_trials(deepcopy=False))
        if budget is not None and is_surplus(trial.number, others, budget, count_running=beats):
            trial.set_user_attr(SURPLUS, True)
            raise TrialFailedError("the budget was spent when it was begun")
        log.info("%s, trial %d", name, trial.number)
        return run_trial(trial, spec=spec, architecture=name, train=train)

    def tell(study: optuna.Study, trial: FrozenTrial) -> None:
        if SURPLUS not in trial.user_attrs:
            log.info("%s, trial %d: %s", name, trial.number, outcome(trial))
            on_trial(name, trial)

    try:
        # another trial where this one could not be begun; what fails after its training was as patient, so this ends
        patiently(lambda: study.optimize(objective, n_trials=1, catch=(TrialFailedError,), callbacks=[tell]))
    except Exception as error:
        said = _before_optuna_stumbled(error)
        if isinstance(said, optuna.exceptions.StorageInternalError):
            raise said from said.__cause__
        if not _had_ended(said):
            raise
        log.warning("%s: a trial was given up by others, as this worker gave no sign of life for a while", name)


def _before_optuna_stumbled(error: BaseException) -> BaseException:
    """The error before Optuna's own: where a trial's end cannot be told, it goes on with what it does not know."""
    while isinstance(error, UnboundLocalError | AssertionError) and error.__context__ is not None:
        error = error.__context__
    return error


def _had_ended(error: BaseException) -> bool:
    """Whether Optuna says that the trial had been ended before, by others."""
    told_late = isinstance(error, ValueError) and str(error).startswith("Cannot tell a ")
    return told_late or isinstance(error, optuna.exceptions.UpdateFinishedTrialError)


def outcome(trial: FrozenTrial) -> str:
    """How a trial ended, in words."""
    if trial.state == TrialState.COMPLETE:
        return ", ".join(f"{value:.4f}" for value in trial.values)
    return f"{trial.state.name.lower()}: {reason(trial)}"


def reason(trial: FrozenTrial) -> str:
    """Why a trial was pruned or failed; empty for any other."""
    if trial.state not in (TrialState.PRUNED, TrialState.FAIL):
        return ""
    return trial.user_attrs.get("reason", "its worker was stopped, or gave no sign of life")


def _kind(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if "reason" in trial.user_attrs else "lost"
    return trial.state.name.lower()


def minutes_of(trial: FrozenTrial) -> float:
    """How long a trial has taken; 0 for one that was lost, that waits, or that has only just been begun."""
    if _kind(trial) in ("lost", "waiting"):  # one that waits is a lost one's retry, and has its attributes
        return 0.0
    if trial.datetime_start is not None and trial.datetime_complete is not None:
        return max(0.0, (trial.datetime_complete - trial.datetime_start).total_seconds() / 60)
    # Optuna's times are those of the worker's time zone
    return max(0.0, time.time() - trial.user_attrs.get(BEGUN, time.time())) / 60
