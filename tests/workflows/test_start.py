"""How a training begins, and how it ends early: best weights of a failed run start another one."""

import dataclasses
import os
import signal

import keras
import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError, StoppedError
from kits_ml.training.callbacks import BadLossError
from kits_ml.training.fit import Fitted
from kits_ml.workflows import start
from kits_ml.workflows import train as workflow
from kits_ml.workflows.prepare import prepare
from tests.tracking.stores import tracked_in


def test_a_second_training_has_the_precision_of_the_first(monkeypatch):
    """What Keras keeps of earlier models is let go; a GPU's policy must not go with it."""
    monkeypatch.setattr(runtime, "accelerator", lambda: runtime.Accelerator("gpu", ("gpu:0",), (8, 0)))
    settings = TrainSettings(image_size=16, base_filters=1, depth=1)
    try:
        first, second = start.new_model(settings), start.new_model(settings)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        monkeypatch.undo()
        runtime.configure(precision="float32")
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):  # the same seed
        np.testing.assert_array_equal(one, other)


def _no_server(*_):
    raise MlflowException("no answer")


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tracked_in(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        yield


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own code
def test_sigterm_ends_the_run_before_the_training_too(tracking, monkeypatch):
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(workflow, "prepare", lambda settings: os.kill(os.getpid(), signal.SIGTERM))
    settings = TrainSettings(image_size=32, base_filters=2, depth=1)
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM; no checkpoint was written, so the same") as caught:
        workflow.train(settings)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (run.info.status, run.data.tags["end_reason"]) == ("KILLED", str(caught.value))
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own code
def test_too_little_memory_is_one_line(tracking, monkeypatch):
    def fail(settings):
        raise MemoryError

    monkeypatch.setattr(workflow, "prepare", fail)
    message = (
        "batch_size: found 8 slices of 32x32 for unet with 2 filters, more than the memory holds; expected fewer"
    )
    with pytest.raises(InputError, match=message):
        workflow.train(TrainSettings(image_size=32, base_filters=2, depth=1))
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own code
def test_best_weights_of_a_failed_run_are_a_model_to_start_from(tmp_path, tracking, make_case, monkeypatch):
    for number in range(6):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number, size=32)
    settings = TrainSettings(data="cases", image_size=32, base_filters=2, depth=1, num_workers=1)

    def fail(model, *_, **__):
        error = BadLossError("the loss became nan in epoch 2, step 2; try a smaller learning_rate")
        error.fitted = Fitted(model=model, history={}, best_epoch=0, best_score=0.5, training_minutes=1.0)
        fail.weights = model.get_weights()
        raise error

    monkeypatch.setattr(workflow, "fit", fail)
    with monkeypatch.context() as patched:
        patched.setattr(mlflow, "log_artifacts", _no_server)
        patched.setattr(workflow.resume, "forget", lambda file: pytest.fail("the checkpoint has the weights too"))
        with pytest.raises(InputError, match="MLflow: no answer"):
            workflow.train(settings)
    mlflow.delete_run(mlflow.search_runs(search_all_experiments=True, output_format="list")[0].info.run_id)
    with pytest.raises(InputError, match=r"of epoch 1 with val_foreground_iou 0.500, are kept: runs:/"):
        workflow.train(settings)
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"
    assert run.data.tags["end_reason"].startswith("the loss became nan in epoch 2")

    model = models.build(settings)
    uri = f"runs:/{run.info.run_id}/{workflow.BEST_WEIGHTS}"
    parent = start.start_from(model, dataclasses.replace(settings, init_from=uri))
    for one, other in zip(model.get_weights(), fail.weights, strict=True):
        np.testing.assert_array_equal(one, other)

    # the same split: its test case is new to the parent; its validation case is scored all the same
    prepared = prepare(settings)
    for part in ("validation", "test"):
        assert start.unseen_by_parent(prepared, part, parent) == list(getattr(prepared.split, part))
    # validation and test change places: the parent has seen the only test case
    turned = dataclasses.replace(prepared.split, validation=prepared.split.test, test=prepared.split.validation)
    with pytest.raises(InputError, match=f"init_from {uri}: has seen all 1 test cases"):
        start.unseen_by_parent(dataclasses.replace(prepared, split=turned), "test", parent)
    both = dataclasses.replace(prepared.split, validation=(), test=(*turned.test, *turned.validation))
    found = start.unseen_by_parent(dataclasses.replace(prepared, split=both), "test", parent)
    assert found == list(prepared.split.test)
