"""Each epoch is logged once: after an outage, and after a kill."""

import types

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from kits_ml.tracking import runs


@pytest.fixture
def server(monkeypatch):
    """A server that keeps `(name, step): value`, and may be down."""

    class Server(dict):
        down = False

        def log_metrics(self, metrics, step):
            if self.down:
                raise MlflowException("no answer")
            for name, value in metrics.items():
                assert (name, step) not in self, "logged twice"
                self[name, step] = value

        def get_metric_history(self, run_id, name):
            return [types.SimpleNamespace(step=step) for one, step in self if one == name]

    server = Server()
    monkeypatch.setattr(mlflow, "log_metrics", server.log_metrics)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: server)
    monkeypatch.setattr(mlflow, "active_run", lambda: types.SimpleNamespace(info=types.SimpleNamespace(run_id="r")))
    return server


def test_an_outage_delays_an_epoch(server, caplog):
    log = runs.EpochLog()
    log(0, {"loss": 3.0})
    server.down = True
    log(1, {"loss": 2.0})
    assert "epoch 2: metrics not logged (no answer); trying again later" in caplog.text
    with pytest.raises(MlflowException):
        log.flush()
    server.down = False
    log(2, {"loss": 1.0})
    assert server == {("loss", 0): 3.0, ("loss", 1): 2.0, ("loss", 2): 1.0}


def test_a_resumed_training_logs_what_is_missing(server):
    # epoch 0 is there; epoch 1 was lost in an outage; epoch 2 was logged, and the kill came before its checkpoint
    server.update({("loss", 0): 3.0, ("loss", 2): 1.0})
    log = runs.EpochLog({"loss": [3.0, 2.0]})
    log(2, {"loss": 1.0, "score": 0.5})
    assert server == {("loss", 0): 3.0, ("loss", 1): 2.0, ("loss", 2): 1.0, ("score", 2): 0.5}
