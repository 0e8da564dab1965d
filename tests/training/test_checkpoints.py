"""A training that was stopped goes on as if it never had been: the same weights, the same history."""

import dataclasses
import os
import signal

import keras
import numpy as np
import pytest

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError, StoppedError
from kits_ml.training import checkpoints
from kits_ml.training import fit as training
from kits_ml.training.batches import SliceArrays
from kits_ml.training.callbacks import BadLossError
from kits_ml.training.checkpoints import CheckpointFile

SETTINGS = TrainSettings(
    image_size=32, base_filters=2, depth=1, epochs=3, steps_per_epoch=4, batch_size=4, learning_rate=1e-2
)


def _slices(seed: int) -> SliceArrays:
    """Bright squares in noise: kidney where brighter, tumour where brightest. One case of ten slices."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((10, 32, 32), np.uint8)
    for one in labels:
        row, column = rng.integers(2, 16, 2)
        one[row : row + 12, column : column + 12] = 1
        one[row + 2 : row + 8, column + 2 : column + 8] = 2
    grey = (60 + 70 * labels + rng.normal(0, 5, labels.shape)).astype(np.uint8)
    return SliceArrays(grey=grey, labels=labels, cases=("a",) * 10)


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


class Killed(Exception):
    """Stands for the end of the process."""


def _kill():
    raise Killed


def _with_dropout(settings: TrainSettings) -> keras.Model:
    """The network, with a layer that draws random numbers."""
    inner = models.build(settings)
    image = keras.Input(inner.input_shape[1:])
    return keras.Model(image, inner(keras.layers.Dropout(0.2, seed=7)(image)))


def _fit(settings=SETTINGS, *, build=_with_dropout, **options):
    runtime.configure(precision="float32")
    runtime.seed_everything(settings.seed)
    model = build(settings)
    fitted = training.fit(model, _slices(0), _slices(1), settings, **options)
    return model, fitted


def _file(folder, *, interval_s=0.0) -> CheckpointFile:
    return CheckpointFile(folder, about={"run_id": "r"}, interval_s=interval_s)


def _assert_same(one, other):
    (model, fitted), (model_again, fitted_again) = one, other
    assert fitted_again.history == fitted.history
    assert (fitted_again.best_epoch, fitted_again.best_score) == (fitted.best_epoch, fitted.best_score)
    for first, second in zip(model.get_weights(), model_again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def uninterrupted():
    return _fit()


# 4 steps an epoch: in the first epoch, in the second, between its last step and its validation
@pytest.mark.parametrize(("killed_after", "next_epoch", "next_step"), [(3, 0, 2), (7, 1, 2), (8, 1, 3)])
def test_a_kill_costs_nothing_but_time(killed_after, next_epoch, next_step, uninterrupted, tmp_path):
    with pytest.raises(Killed):
        _fit(checkpoint_file=_file(tmp_path), callbacks=[AfterStep(killed_after, _kill)])
    found = checkpoints.read(tmp_path / checkpoints.CHECKPOINT_FILE)
    assert (found.epoch, found.step, found.fitted) == (next_epoch, next_step, False)
    _assert_same(uninterrupted, _fit(checkpoint_file=_file(tmp_path), resumed=found))
