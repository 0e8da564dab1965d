"""What a study found, as files: the best configurations, the table of trials, the scores of patients."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from kits_ml import files
from kits_ml.errors import InputError
from kits_ml.studies.search import SURPLUS, reason
from kits_ml.studies.spec import StudySpec
from kits_ml.tracking.studies import TrialRecord

BEST_YAML, TRIALS_CSV, CASES_CSV, PARETO_CSV = "best.yaml", "trials.csv", "best_cases.csv", "pareto.csv"

#: User attributes of a trial that are single numbers.
_COSTS = ("num_parameters", "gflops", "training_minutes", "best_epoch")


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end, in order; those that were begun beyond the budget are left out."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and SURPLUS not in trial.user_attrs]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best score, of equal ones the first; None where no trial is complete."""
    complete = [trial for trial in ended_trials(study) if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: trial.values[0], default=None)


def best_trials(studies: Mapping[str, optuna.Study]) -> dict[str, FrozenTrial]:
    """The best trial of each architecture that has one, best score first."""
    found = {name: best_trial(study) for name, study in studies.items()}
    found = {name: trial for name, trial in found.items() if trial is not None}
    return dict(sorted(found.items(), key=lambda item: -item[1].values[0]))


def require_results(studies: Mapping[str, optuna.Study], *, name: str) -> None:
    """Raises where there is nothing to tell.

    Raises:
        InputError: no trial of any architecture is complete; with what the last one said.
    """
    if best_trials(studies):
        return
    last = [trial for study in studies.values() for trial in ended_trials(study)]
    said = f"; the last one said: {reason(last[-1])}" if last else ""
    raise InputError(f"study {name}: found no complete trial among {len(last)}, expected at least one{said}")


def write_results(folder: Path, studies: Mapping[str, optuna.Study], spec: StudySpec) -> dict[str, FrozenTrial]:
    """Writes `best.yaml`, `best/<architecture>.yaml`, `trials.csv` and `best_cases.csv`; returns the best trials."""
    best = best_trials(studies)
    for name, trial in best.items():
        files.write_bytes(folder / "best" / f"{name}.yaml", configuration_yaml(name, trial, spec).encode())
    winner = next(iter(best))
    files.write_bytes(folder / BEST_YAML, configuration_yaml(winner, best[winner], spec).encode())
    rows = [row(name, trial, spec) for name, study in studies.items() for trial in ended_trials(study)]
    _write_rows(folder / TRIALS_CSV, rows)
    _write_rows(folder / CASES_CSV, [one for name, trial in best.items() for one in case_rows(name, trial)])
    if len(spec.objectives) > 1:
        front = [row(name, trial, spec) for name, study in studies.items() for trial in study.best_trials]
        _write_rows(folder / PARETO_CSV, front)
    return best


def configuration_yaml(architecture: str, trial: FrozenTrial, spec: StudySpec) -> str:
    """A file that `kits-ml train --config` takes."""
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(spec.objectives, trial.values, strict=True))
    header = f"# study {spec.search.name}: {architecture}, trial {trial.number}, {values}\n"
    return header + yaml.safe_dump(spec.configuration(architecture, trial.params), sort_keys=False)


def row(architecture: str, trial: FrozenTrial, spec: StudySpec) -> dict[str, Any]:
    """A trial as a row of the table."""
    values = dict(zip(spec.objectives, trial.values or (), strict=False))
    costs = {name: trial.user_attrs[name] for name in _COSTS if name in trial.user_attrs}
    return {
        "architecture": architecture,
        "trial": trial.number,
        "state": trial.state.name,
        "reason": reason(trial),
        **values,
        **{name: value for name, value in costs.items() if name not in values},
        "epochs": len(trial.user_attrs.get("curve", ())),
        **trial.params,
    }


def case_rows(architecture: str, trial: FrozenTrial) -> list[dict[str, Any]]:
    """The validation patients of a trial: `algorithm`, `case`, `fold` and the scores."""
    return [{"algorithm": architecture, **one} for one in trial.user_attrs.get("cases", ())]


def record(architecture: str, trial: FrozenTrial, spec: StudySpec) -> TrialRecord:
    """A trial as MLflow is told of it."""
    score = {f"best_{spec.objectives[0]}": trial.values[0]} if trial.values else {}
    costs = {name: trial.user_attrs[name] for name in _COSTS if name in trial.user_attrs}
    cases = case_rows(architecture, trial)
    started = trial.datetime_start or trial.datetime_complete
    return TrialRecord(
        name=f"{architecture} {trial.number}",
        number=trial.number,
        state=trial.state.name,
        reason=reason(trial),
        started_s=started.timestamp(),
        ended_s=trial.datetime_complete.timestamp(),
        settings=_settings(architecture, trial, spec),
        metrics={**costs, **score},
        curve=trial.user_attrs.get("curve", ()),
        cases_csv=_csv(cases) if cases else "",
    )


def _settings(architecture: str, trial: FrozenTrial, spec: StudySpec) -> Mapping[str, Any]:
    """All settings of the training; of values that do not go together, as far as they were given."""
    try:
        return spec.settings(architecture, trial.params).to_dict()
    except InputError:
        return spec.configuration(architecture, trial.params)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    files.write_bytes(path, _csv(rows).encode())


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for one in rows for name in one))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
