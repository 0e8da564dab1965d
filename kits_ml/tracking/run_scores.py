"""Scores that runs logged: the tables of a run, or of the runs beneath a parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from kits_ml.errors import InputError, first_line
from kits_ml.evaluation.comparison.costs import NAMES, Cost
from kits_ml.evaluation.tables import SCORES_CSV
from kits_ml.tracking.runs import check_tracking_server
from kits_ml.tracking.studies import TRIAL_TAG

RUNS = "runs:/"


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The table of one run.

    Attributes:
        run_id: of the run.
        algorithm: its architecture; the run's name where it has none.
        architecture: what the run says it is; None where it says nothing.
        path: the table, on this machine.
        cost: what the run logged of its cost.
    """

    run_id: str
    algorithm: str
    architecture: str | None
    path: Path
    cost: Cost


def fetch_scores(uri: str, *, part: str, folder: str | Path) -> list[RunScores]:
    """Fetches the scores of a run; of a run without, those of all finished runs beneath it.

    The trials of a study are passed over: their scores chose their settings. So a study's run gives its confirming
    runs.

    Args:
        uri: `runs:/ID`.
        part: `test` or `validation`.
        folder: gets the tables.

    Raises:
        InputError: the server does not answer, no such run, no scores.
    """
    check_tracking_server()
    run_id = uri.removeprefix(RUNS).strip("/")
    client = mlflow.MlflowClient()
    try:
        runs = _with_scores(client, [client.get_run(run_id)], part)
        if not runs:
            raise InputError(f"{uri}: found no {part}/{SCORES_CSV} in the run or beneath it, expected a trained run")
        return [_fetch(client, run, part, Path(folder)) for run in runs]
    except MlflowException as error:
        raise InputError(f"{uri}: cannot be read ({first_line(error)})") from error


def _with_scores(client: mlflow.MlflowClient, runs: Sequence[Run], part: str) -> list[Run]:
    """The runs themselves where they hold scores, else their children's, generation by generation."""
    found: list[Run] = []
    for run in runs:
        wanted = f"{part}/{SCORES_CSV}"
        if any(one.path == wanted for one in client.list_artifacts(run.info.run_id, part)):
            found.append(run)
        else:
            children = [child for child in _children(client, run) if TRIAL_TAG not in child.data.tags]
            children = _with_scores(client, children, part)
            # what is still running or has failed may not have its last word there
            found += [child for child in children if child.info.status == "FINISHED"]
    return found


def _children(client: mlflow.MlflowClient, run: Run) -> list[Run]:
    """The runs right beneath a run, oldest first."""
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [run.info.experiment_id], query, order_by=["attributes.start_time ASC"], page_token=token
        )
        children += page
        token = page.token
        if not token:
            return children


def _fetch(client: mlflow.MlflowClient, run: Run, part: str, folder: Path) -> RunScores:
    target = folder / run.info.run_id
    target.mkdir(parents=True, exist_ok=True)
    path = client.download_artifacts(run.info.run_id, f"{part}/{SCORES_CSV}", str(target))
    architecture = run.data.params.get("architecture")
    return RunScores(
        run_id=run.info.run_id,
        algorithm=architecture or run.info.run_name,
        architecture=architecture,
        path=Path(path),
        cost=_cost(run),
    )


def cost_of(run_id: str) -> Cost:
    """What a run logged of its cost.

    Raises:
        MlflowException: no such run, or the server does not answer.
    """
    return _cost(mlflow.MlflowClient().get_run(run_id))


def _cost(run: Run) -> Cost:
    metrics = run.data.metrics
    return Cost(**{name: metrics[name] for name in NAMES if name in metrics})
