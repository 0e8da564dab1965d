"""MLflow runs: opened, told of settings, metrics and artifacts."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from kits_ml.errors import InputError, OtherTrainingError, StoppedError, first_line
from kits_ml.settings import Settings

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 5

#: Tags: why a run ended before its end, how often it went on, and where `mlflow run` went on with another run.
END_REASON, NUM_RESUMES, RESUMED_RUN = "end_reason", "num_resumes", "resumed_run"


def check_tracking_server() -> None:
    """Asks the tracking server for a sign of life, so that a wrong address does not cost minutes of retries.

    Raises:
        InputError: the server does not answer.
    """
    for uri in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        if not uri.startswith(("http://", "https://")):
            continue
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            continue  # it answered; a proxy may hide /health
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"tracking server {uri}: does not answer ({reason}); see MLFLOW_TRACKING_URI") from error


@contextlib.contextmanager
def run(*, experiment: str, run_name: str | None, resumed_run: str | None = None) -> Iterator[mlflow.ActiveRun]:
    """Opens an MLflow run with system metrics, or goes on with the one that `mlflow run` opened.

    A run that an error ends is FAILED, one that the user ends KILLED; the tag `end_reason` says why.

    Args:
        experiment: name of the experiment; that of `mlflow run` comes first.
        run_name: name of the run; that of `mlflow run` comes first.
        resumed_run: the run to go on with. One that `mlflow run` opened stays empty and gets the tag `resumed_run`.

    Raises:
        InputError: the server does not answer.
        OtherTrainingError: the run to go on with is not there.
    """
    check_tracking_server()
    mlflow.enable_system_metrics_logging()
    if resumed_run:
        start = _reopen(resumed_run)
    else:
        if not mlflow.environment_variables.MLFLOW_RUN_ID.get():
            mlflow.set_experiment(experiment)
        start = mlflow.start_run(run_name=run_name)
    with start as active:
        try:
            commit = git_commit()
            if commit:
                mlflow.set_tag("git_commit", commit)
            yield active
        except BaseException as error:
            _end(error)
            raise


def _reopen(run_id: str) -> mlflow.ActiveRun:
    client = mlflow.MlflowClient()
    try:
        before = client.get_run(run_id)
        if opened := os.environ.pop(mlflow.environment_variables.MLFLOW_RUN_ID.name, None):
            client.set_tag(opened, RESUMED_RUN, run_id)
        mlflow.set_experiment(experiment_id=before.info.experiment_id)
        active = mlflow.start_run(run_id=run_id)
    except MlflowException as error:
        raise OtherTrainingError(
            f"run {run_id}: cannot be gone on with ({first_line(error)}); leave resume out to start anew"
        ) from error
    if END_REASON in before.data.tags:
        mlflow.delete_tag(END_REASON)
    mlflow.set_tag(NUM_RESUMES, int(before.data.tags.get(NUM_RESUMES, 0)) + 1)
    return active


def _end(error: BaseException) -> None:
    """Ends the active run; where the server does not take it, the error itself is what matters."""
    by_user = isinstance(error, (StoppedError, KeyboardInterrupt))
    try:
        mlflow.set_tag(END_REASON, first_line(error))
        mlflow.end_run("KILLED" if by_user else "FAILED")
    except MlflowException as failure:
        log.warning("the run's end could not be logged: %s", first_line(failure))


def log_settings(settings: Settings) -> None:
    """Logs every setting as a parameter, and exactly as `config.json`.

    Parameters that `mlflow run` logged before are left as they are: MLflow writes them once, as the text that the
    user typed (`1e-3` is not `0.001`). `config.json` is the record.
    """
    values = settings.to_dict()
    there = mlflow.get_run(mlflow.active_run().info.run_id).data.params
    mlflow.log_params({name: value for name, value in values.items() if name not in there})
    mlflow.log_dict(values, "config.json")


def git_commit() -> str | None:
    """The commit of the code that runs, with `+changes` where the checkout differs; None outside a checkout.

    A package that was installed into a folder of another project's checkout is outside.
    """
    source = Path(__file__)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source.parent), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


class EpochLog:
    """Logs each epoch's metrics to the active run, once.

    What the server does not take waits for a later epoch, so that an outage does not end a training; what an epoch
    logged before a kill is not logged again.

    Args:
        history: of the epochs before, where the training goes on: a list of values an epoch, by metric name.
    """

    def __init__(self, history: Mapping[str, Sequence[float]] | None = None):
        self.waiting = [
            (epoch, name, value) for name, values in (history or {}).items() for epoch, value in enumerate(values)
        ]
        self.is_resumed = history is not None
        self.there: dict[str, set[int]] = {}

    def __call__(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Takes an epoch; what a Keras callback calls."""
        self.waiting += [(epoch, name, float(value)) for name, value in logs.items()]
        try:
            self.flush()
        except MlflowException as error:
            log.warning("epoch %d: metrics not logged (%s); trying again later", epoch + 1, first_line(error))

    def flush(self) -> None:
        """Logs what waits.

        Raises:
            MlflowException: the server does not take it.
        """
        while self.waiting:
            first = self.waiting[0][0]
            metrics = {name: value for epoch, name, value in self.waiting if epoch == first}
            missing = {name: value for name, value in metrics.items() if not self._has(name, first)}
            mlflow.log_metrics(missing, step=first)
            self.waiting = [one for one in self.waiting if one[0] != first]

    def _has(self, name: str, epoch: int) -> bool:
        if not self.is_resumed:
            return False
        if name not in self.there:
            run_id = mlflow.active_run().info.run_id
            self.there[name] = {one.step for one in mlflow.MlflowClient().get_metric_history(run_id, name)}
        return epoch in self.there[name]
