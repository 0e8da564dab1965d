"""A training that was stopped goes on as if it never had been: the same weights, the same history."""

import dataclasses
import errno
import logging
import os
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError, StoppedError
from kits_ml.training import checkpoints
from kits_ml.training import fit as training
from kits_ml.training.callbacks import BadLossError, BestWeights
from kits_ml.training.checkpoints import CheckpointFile
from kits_ml.training.optimizers import make_optimizer
from tests.training.conftest import squares

#: For training and for validation, one case of ten slices each.
SLICES = squares(0, cases="a" * 10), squares(1, cases="a" * 10)

SETTINGS = TrainSettings(
    image_size=32, base_filters=2, depth=1, epochs=3, steps_per_epoch=4, batch_size=4, learning_rate=1e-2
)


class AfterStep(keras.callbacks.Callback):
    """Does something after step `number` of the training, counted from 1."""

    def __init__(self, number: int, action):
        super().__init__()
        self.number, self.action, self.count = number, action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.number:
            self.action()

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


class KilledError(Exception):
    """Stands for the end of the process."""


def _kill():
    raise KilledError


def _with_dropout(settings: TrainSettings) -> keras.Model:
    """The network, with a layer that draws random numbers."""
    inner = models.build(settings)
    image = keras.Input(inner.input_shape[1:])
    return keras.Model(image, inner(keras.layers.Dropout(0.2, seed=7)(image)))


def _fit(settings=SETTINGS, *, build=_with_dropout, **options):
    runtime.configure(precision="float32")
    runtime.seed_everything(settings.seed)
    model = build(settings)
    fitted = training.fit(model, *SLICES, settings, **options)
    return model, fitted


def _file(folder, *, interval_s=0.0) -> CheckpointFile:
    return CheckpointFile(folder, about={"run_id": "r"}, interval_s=interval_s)


def _assert_same(one, other):
    (model, fitted), (model_again, fitted_again) = one[:2], other
    assert fitted_again.history == fitted.history
    assert (fitted_again.best_epoch, fitted_again.best_score) == (fitted.best_epoch, fitted.best_score)
    for first, second in zip(model.get_weights(), model_again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return *_fit(checkpoint_file=_file(folder)), folder


def test_averages_accumulated_gradients_and_the_schedule_go_on(tmp_path):
    """Killed after step 8, the fourth of epoch 1; the checkpoint is of step 7, between the two of an update."""
    settings = dataclasses.replace(
        SETTINGS,
        optimizer="adamw",
        weight_decay=0.01,
        ema_momentum=0.8,
        accumulation_steps=2,
        learning_rate_schedule="one_cycle",
        early_stopping_epochs=2,
        max_steps=10,
        sampling="foreground",
    )
    whole = _fit(settings)
    with pytest.raises(KilledError):
        _fit(settings, checkpoint_file=_file(tmp_path), callbacks=[AfterStep(8, _kill)])
    checkpoint = checkpoints.read(_file(tmp_path).path)
    assert (checkpoint.epoch, checkpoint.step) == (1, 3)
    again = _fit(settings, checkpoint_file=_file(tmp_path), callbacks=[AfterStep(99, _kill)], resumed=checkpoint)
    _assert_same(whole, again)
    assert len(again[1].history["loss"]) == 3


# 4 steps an epoch; the checkpoint is that of the step before
@pytest.mark.parametrize(
    ("killed_after", "next_epoch", "next_step"),
    [
        pytest.param(3, 0, 2, marks=pytest.mark.slow),
        pytest.param(5, 1, 0, marks=pytest.mark.slow),  # at an epoch's end
        pytest.param(7, 1, 2, marks=pytest.mark.slow),
        (8, 1, 3),
    ],
)
def test_a_kill_costs_nothing_but_time(killed_after, next_epoch, next_step, uninterrupted, tmp_path):
    with pytest.raises(KilledError):
        _fit(checkpoint_file=_file(tmp_path), callbacks=[AfterStep(killed_after, _kill)])
    found = checkpoints.read(tmp_path / checkpoints.CHECKPOINT_FILE)
    assert (found.epoch, found.step, found.fitted) == (next_epoch, next_step, False)
    assert found.about == {"run_id": "r"}
    _assert_same(uninterrupted, _fit(checkpoint_file=_file(tmp_path), resumed=found))


def test_ctrl_c_ends_after_the_step_and_callbacks_get_their_state_back(uninterrupted, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    press = AfterStep(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError, match="stopped by Ctrl-C in epoch 1, after step 3") as caught:
        _fit(checkpoint_file=_file(tmp_path, interval_s=1000), callbacks=[press])
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    found = checkpoints.read(tmp_path / checkpoints.CHECKPOINT_FILE)
    assert (found.epoch, found.step) == (0, 3)
    counter = AfterStep(-1, _kill)
    _assert_same(uninterrupted, _fit(resumed=found, callbacks=[counter]))
    assert counter.count == 3 * 4


def test_after_the_last_epoch_the_best_weights_wait(uninterrupted):
    _, fitted, folder = uninterrupted
    found = checkpoints.read(folder / checkpoints.CHECKPOINT_FILE)
    assert found.fitted
    assert [path.name for path in folder.iterdir()] == [checkpoints.CHECKPOINT_FILE]  # nothing half written
    model = _with_dropout(SETTINGS)
    _assert_same(uninterrupted, (model, training.fitted_before(model, found)))
    assert training.history_before(found) == fitted.history


def test_the_best_weights_survive_a_loss_that_is_no_number():
    def spoil():
        model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])

    runtime.configure(precision="float32")
    model = models.build(SETTINGS)
    with pytest.raises(BadLossError, match="the loss became nan in epoch 2, step 2") as caught:
        training.fit(model, *SLICES, SETTINGS, callbacks=[AfterStep(5, spoil)])
    fitted = caught.value.fitted
    assert (fitted.best_epoch, len(fitted.history["loss"])) == (0, 1)
    assert all(np.isfinite(weights).all() for weights in fitted.model.get_weights())


def test_weights_that_are_no_numbers_are_never_the_best():
    """An epoch's last update may spoil them after all its losses were numbers; all background may score best."""
    best = BestWeights(training.SELECTION_METRIC)
    good, bad = (
        SimpleNamespace(get_weights=lambda w=weight: [np.ones(2), np.array([1, w])]) for weight in (2, np.inf)
    )
    for epoch, (model, score) in enumerate([(good, 0.1), (bad, 0.1)]):  # no better than the first: nobody wants it
        best.set_model(model)
        best.on_epoch_end(epoch, {training.SELECTION_METRIC: score})
    with pytest.raises(BadLossError, match="the weights became no numbers in epoch 3; try a smaller learning_rate"):
        best.on_epoch_end(2, {training.SELECTION_METRIC: 0.2})
    assert (best.epoch, best.score, best.weights[1].tolist()) == (0, 0.1, [1, 2])


def _small() -> checkpoints.Checkpoint:
    arrays = {"model": [np.zeros((2, 3))], "optimizer": [], "metrics": [], "best": []}
    return checkpoints.Checkpoint(epoch=1, step=2, arrays=arrays, callbacks={"A": {"score": -np.inf}}, about={"a": 1})


def test_a_full_disk_is_said_and_keeps_the_checkpoint_before(tmp_path, monkeypatch, caplog):
    file = _file(tmp_path)
    assert file.write(_small())
    before = file.path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert not file.write(_small())
    assert "not written (No space left on device); training goes on" in caplog.text
    assert file.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file.path]


def test_it_comes_back_as_it_was_written(tmp_path):
    _file(tmp_path).write(_small())
    found = checkpoints.read(tmp_path / checkpoints.CHECKPOINT_FILE)
    assert found.callbacks == {"A": {"score": -np.inf}}
    np.testing.assert_array_equal(found.arrays["model"][0], np.zeros((2, 3)))
    assert checkpoints.read(tmp_path / checkpoints.CHECKPOINT_FILE, only_record=True).arrays["model"] == []


def test_the_scale_of_a_float16_loss_goes_on():
    def compiled() -> keras.Model:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile(make_optimizer(SETTINGS), loss="mse")
        model.optimizer.build(model.trainable_variables)
        return model

    keras.config.set_dtype_policy("mixed_float16")
    try:
        stopped, fresh = compiled(), compiled()
    finally:
        keras.config.set_dtype_policy("float32")
    stopped.optimizer.dynamic_scale.assign(3.0)  # it starts at 2^15, and halves at each overflow
    checkpoints.capture(stopped, [], epoch=0, step=1, best=[], about={}).restore(fresh, [])
    assert float(fresh.optimizer.dynamic_scale) == 3


@pytest.mark.parametrize("content", [b"", b"no archive", "half"])
def test_a_damaged_checkpoint_gets_one_line(content, tmp_path):
    file = _file(tmp_path)
    file.write(_small())
    file.path.write_bytes(file.path.read_bytes()[:300] if content == "half" else content)
    with pytest.raises(InputError, match=r"checkpoint.npz: no checkpoint, or a damaged one .*; remove it"):
        checkpoints.read(file.path)


def test_a_checkpoint_of_another_model_is_refused():
    variable = keras.Variable(np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"its model has an array of shape \(2, 3\), expected \(2, 4\)"):
        checkpoints.assign([variable], [np.zeros((2, 3))], what="model")
    with pytest.raises(InputError, match="its model has 0 arrays, expected 1"):
        checkpoints.assign([variable], [], what="model")
