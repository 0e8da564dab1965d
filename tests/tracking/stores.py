"""MLflow's store of a test, of which nothing is left for the next."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import mlflow
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils


@contextmanager
def tracked_in(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Makes `uri` MLflow's store, with no experiment chosen.

    Afterwards the process has its environment back, and what MLflow itself remembers: `mlflow.set_tracking_uri` would
    go before the MLFLOW_TRACKING_URI of every later test, and an experiment's number means another in another store.
    """
    with (
        mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=uri),
        mock.patch.object(utils, "_tracking_uri", None),
        mock.patch.object(fluent, "_active_experiment_id", None),
    ):
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        try:
            yield mlflow.MlflowClient()
        finally:
            while mlflow.active_run():
                mlflow.end_run()
