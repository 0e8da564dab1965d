"""MLflow runs: opened, told of settings, metrics and artifacts."""

from __future__ import annotations

import contextlib
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow

from kits_ml.errors import InputError
from kits_ml.settings import Settings

ANSWER_TIMEOUT_S = 5


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
def run(*, experiment: str, run_name: str | None) -> Iterator[mlflow.ActiveRun]:
    """Opens an MLflow run with system metrics, or goes on with the one that `mlflow run` opened.

    Args:
        experiment: name of the experiment; that of `mlflow run` comes first.
        run_name: name of the run; that of `mlflow run` comes first.
    """
    check_tracking_server()
    mlflow.enable_system_metrics_logging()
    if not mlflow.environment_variables.MLFLOW_RUN_ID.get():
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=run_name) as active:
        commit = git_commit()
        if commit:
            mlflow.set_tag("git_commit", commit)
        yield active


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
    """The commit of the code that runs, with `+changes` where the checkout differs; None outside a checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def log_epoch(epoch: int, logs: Mapping[str, float]) -> None:
    """Logs an epoch's metrics to the active run; what a Keras callback calls."""
    mlflow.log_metrics({name: float(value) for name, value in logs.items()}, step=epoch)
