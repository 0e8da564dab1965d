"""A study in MLflow: a run of its own, below it one for each architecture, below these one for each trial.

A trial's run is made from what Optuna's storage keeps once the trial has ended, so a tracking server that was away
costs no trial: what is missing is logged later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from kits_ml.errors import InputError, first_line
from kits_ml.tracking.runs import check_tracking_server, git_commit

log = logging.getLogger(__name__)

#: How many parameters and metrics MLflow takes at once.
_MAX_PARAMS, _MAX_METRICS = 100, 1000
#: A trial's run that has been in the making for longer than this was left by a killed worker.
_STALE_RUN_S = 300
_BEGUN_TAG = "logging_begun_s"
#: Runs that this process could not finish, for want of the tracking server.
_half_made: set[str] = set()

#: What a trial's run ends as, by the trial's state.
STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
TRIAL_TAG, STATE_TAG, REASON_TAG = "trial", "trial_state", "reason"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """An ended trial.

    Attributes:
        name: of its run.
        number: of the trial in its Optuna study.
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        reason: why it was pruned or failed; empty for a complete one.
        started_s, ended_s: seconds since 1970.
        settings: every setting of its training.
        metrics: single numbers: the score and costs.
        curve: a row an epoch: `fold`, `epoch` and the metrics.
        cases_csv: the scores of its validation patients; empty where it has none.
    """

    name: str
    number: int
    state: str
    reason: str
    started_s: float
    ended_s: float
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Sequence[Mapping[str, float]] = field(repr=False)
    cases_csv: str = field(repr=False)


def open_study(name: str, *, experiment: str, document: Mapping[str, Any]) -> str:
    """Opens the run of a study, or takes the one that `mlflow run` opened.

    Args:
        name: of the study.
        experiment: MLflow's.
        document: what the study's file says; kept as `study.yaml`.

    Returns:
        The run's ID.
    """
    check_tracking_server()
    client = mlflow.MlflowClient()
    run_id = mlflow.environment_variables.MLFLOW_RUN_ID.get()
    if not run_id:
        run_id = client.create_run(_experiment_id(experiment), run_name=name).info.run_id
    tags = {"study": name, "git_commit": git_commit() or ""}
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items() if value])
    client.log_dict(run_id, dict(document), "study.yaml")
    return run_id


def open_child(parent_id: str, *, name: str, tags: Mapping[str, str], started_s: float | None = None) -> str:
    """Opens a run below another, in its experiment; returns the ID."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent_id).info.experiment_id
    started_ms = None if started_s is None else int(1000 * started_s)
    tags = {**tags, MLFLOW_PARENT_RUN_ID: parent_id}
    return client.create_run(experiment_id, start_time=started_ms, tags=tags, run_name=name).info.run_id


def experiment_of(run_id: str) -> str:
    """The name of a run's experiment: nested runs are shown together only within one."""
    client = mlflow.MlflowClient()
    return client.get_experiment(client.get_run(run_id).info.experiment_id).name


def require_run(run_id: str | None, *, what: str) -> str:
    """Gives a run's ID back where the tracking server knows it.

    Raises:
        InputError: it does not, or it does not answer.
    """
    if run_id is None or not run_exists(run_id):
        raise InputError(
            f"{what}: its run {run_id} is not in {mlflow.get_tracking_uri()}, expected the tracking server of "
            "`kits-ml study run`; see MLFLOW_TRACKING_URI"
        )
    return run_id


def run_exists(run_id: str) -> bool:
    """Whether the tracking server knows a run.

    Raises:
        InputError: it does not answer.
    """
    check_tracking_server()
    try:
        return mlflow.MlflowClient().get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


def mark_running(run_ids: Iterable[str]) -> None:
    """Says of runs that their study goes on."""
    for run_id in run_ids:
        mlflow.MlflowClient().update_run(run_id, status="RUNNING")


def close(run_ids: Iterable[str], *, status: str) -> None:
    """Ends runs: `FINISHED`, `KILLED` or `FAILED`."""
    for run_id in run_ids:
        mlflow.MlflowClient().set_terminated(run_id, status=status)


def put_below(run_id: str, parent_id: str, *, tags: Mapping[str, str]) -> None:
    """Shows a run that ended below another."""
    client = mlflow.MlflowClient()
    for name, value in {**tags, MLFLOW_PARENT_RUN_ID: parent_id}.items():
        client.set_tag(run_id, name, value)


def log_results(run_id: str, *, metrics: Mapping[str, float], folder: Path | None = None) -> None:
    """Puts single numbers into a run, and a folder's files beside it."""
    client = mlflow.MlflowClient()
    if folder is not None:
        client.log_artifacts(run_id, str(folder))
    for name, value in metrics.items():
        client.log_metric(run_id, name, value)


def log_trial(architecture_id: str, record: TrialRecord) -> str:
    """Makes the run of an ended trial, whole.

    Args:
        architecture_id: the run above it.
        record: the trial.

    Returns:
        The run's ID.
    """
    client = mlflow.MlflowClient()
    tags = {TRIAL_TAG: str(record.number), STATE_TAG: record.state, _BEGUN_TAG: str(time.time())}
    if record.reason:
        tags[REASON_TAG] = record.reason[:5000]
    run_id = open_child(architecture_id, name=record.name, tags=tags, started_s=record.started_s)
    _half_made.add(run_id)
    params = [Param(name, str(value)) for name, value in record.settings.items()]
    for some in _parts(params, _MAX_PARAMS):
        client.log_batch(run_id, params=some)
    for some in _parts(list(_metrics(record)), _MAX_METRICS):
        client.log_batch(run_id, metrics=some)
    client.log_dict(run_id, dict(record.settings), "config.json")
    if record.cases_csv:
        client.log_text(run_id, record.cases_csv, "validation/scores.csv")
    client.set_terminated(run_id, status=STATUSES[record.state], end_time=int(1000 * record.ended_s))
    _half_made.discard(run_id)
    return run_id


def logged_trials(architecture_id: str) -> set[int]:
    """The numbers of the trials that have their run; a run that was left half made is removed.

    Args:
        architecture_id: the run above them.
    """
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(architecture_id).info.experiment_id
    found: set[int] = set()
    token = None
    while True:
        runs = client.search_runs(
            [experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{architecture_id}'", page_token=token
        )
        for run in runs:
            if TRIAL_TAG not in run.data.tags:
                continue
            age_s = time.time() - float(run.data.tags[_BEGUN_TAG])
            if run.info.status == "RUNNING" and (age_s > _STALE_RUN_S or run.info.run_id in _half_made):
                client.delete_run(run.info.run_id)
            else:
                found.add(int(run.data.tags[TRIAL_TAG]))
        token = runs.token
        if not token:
            return found


def attempt(action: Callable[[], Any], *, what: str, later: str = "`kits-ml study report` logs it later") -> None:
    """Does something with MLflow; where that fails, says what is missing and what makes up for it.

    Args:
        action: what to do.
        what: it is about, for the message.
        later: how it gets there all the same.
    """
    try:
        check_tracking_server()
        action()
    except (InputError, MlflowException, OSError) as error:
        log.warning("%s is not in MLflow yet (%s); %s", what, first_line(error), later)


def _metrics(record: TrialRecord) -> Iterator[Metric]:
    ended_ms = int(1000 * record.ended_s)
    several = len({row["fold"] for row in record.curve}) > 1
    for row in record.curve:
        prefix = f"fold_{row['fold']:.0f}/" if several else ""
        for name, value in row.items():
            if name not in ("fold", "epoch"):
                yield Metric(f"{prefix}{name}", float(value), ended_ms, int(row["epoch"]))
    for name, value in record.metrics.items():
        yield Metric(name, float(value), ended_ms, 0)


def _experiment_id(name: str) -> str:
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
