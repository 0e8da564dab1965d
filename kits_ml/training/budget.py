"""How long a training lasts, and the learning rate that follows how much of it is used up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from kits_ml.config import TrainSettings
from kits_ml.training.schedules import Schedule, make_schedule
from kits_ml.trust import require_trustworthy

LEARNING_RATE = "learning_rate"


#: Epochs of a training that nothing else limits, and of one that the clock ends.
DEFAULT_EPOCHS, MOST_EPOCHS = 5, 1_000_000


def num_steps(settings: TrainSettings) -> int:
    """Steps of the whole training, if neither the clock nor early stopping ends it before."""
    if settings.epochs is None and settings.max_steps is not None:
        return settings.max_steps
    epochs = settings.epochs or (DEFAULT_EPOCHS if settings.max_minutes is None else MOST_EPOCHS)
    steps = epochs * settings.steps_per_epoch
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def num_epochs(settings: TrainSettings) -> int:
    """Epochs of the whole training; `max_steps` may cut the last one short."""
    return math.ceil(num_steps(settings) / settings.steps_per_epoch)


def rates_of_steps(settings: TrainSettings) -> np.ndarray | None:
    """The learning rate of each step of the training, `(steps,)` float32; None where the clock decides it."""
    if settings.max_minutes is not None:
        return None
    schedule, steps = make_schedule(settings), num_steps(settings)
    of_updates = (schedule(step / steps) for step in range(0, steps, settings.accumulation_steps))
    return np.fromiter(of_updates, np.float32).repeat(settings.accumulation_steps)[:steps]


class Budget(keras.callbacks.Callback):
    """Follows how much of the budget is used up, and ends the training when all is.

    Where the clock decides it, it sets the learning rate of each update too; by steps alone the optimiser knows it
    (`rates_of_steps`), which on a GPU is much quicker than to be told.

    A budget in steps and one in minutes are the same to it: the progress is the larger of the shares used. Give it
    to `Model.fit` before what validates: the clock runs from the begin of an epoch to the end of its last step, the
    compilation in the first step and waiting for batches included, validation not. A training by the clock is not
    deterministic.

    In float16 a step whose gradient overflows changes nothing, and the optimiser does not count it: by steps alone,
    its learning rate is from then on that of so many steps before the one that is logged here.

    Steps are counted from the epoch's number, so a training that goes on with `initial_epoch` is right by steps; the
    time used before is its state.

    Args:
        schedule: from progress in [0, 1] to the learning rate.
        num_steps: all steps of the training.
        steps_per_epoch: of these, in an epoch.
        accumulation_steps: steps an update; the learning rate stays within them and no training ends between them.
        max_minutes: None for no budget in time; the optimiser's learning rate is then left alone.
        first_step: of the first epoch, where the training goes on in its midst.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        schedule: Schedule,
        num_steps: int,
        steps_per_epoch: int,
        accumulation_steps: int = 1,
        max_minutes: float | None = None,
        first_step: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        super().__init__()
        self.schedule = schedule
        self.num_steps = num_steps
        self.steps_per_epoch = steps_per_epoch
        self.accumulation_steps = accumulation_steps
        self.max_minutes = max_minutes
        self.first_step = first_step
        self.clock = clock
        self.elapsed_s = 0.0
        self.learning_rate: float | None = None
        self._first_step = 0
        self._last_look_s = 0.0

    def progress(self, step: int) -> float:
        """How much of the budget is used up after so many steps, in [0, 1]."""
        used = step / self.num_steps
        if self.max_minutes is not None:
            used = max(used, self.elapsed_s / (60 * self.max_minutes))
        return min(used, 1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self._first_step = epoch * self.steps_per_epoch + self.first_step
        self._last_look_s = self.clock()

    def on_train_batch_begin(self, batch, logs=None):
        step = self._first_step + batch
        if step % self.accumulation_steps == 0:
            self._look()
            before, self.learning_rate = self.learning_rate, self.schedule(self.progress(step))
            if self.max_minutes is not None and self.learning_rate != before:
                self.model.optimizer.learning_rate = self.learning_rate

    def on_train_batch_end(self, batch, logs=None):
        self._look()
        step = self._first_step + batch + 1
        if step % self.accumulation_steps == 0 and self.progress(step) >= 1:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        logs[LEARNING_RATE] = self.learning_rate
        self.first_step = 0

    def get_state(self) -> dict[str, float | None]:
        """The time used up, and the learning rate, which the optimiser keeps too."""
        return {"elapsed_s": self.elapsed_s, "learning_rate": self.learning_rate}

    def set_state(self, state: Mapping[str, float | None]) -> None:
        self.elapsed_s, self.learning_rate = state["elapsed_s"], state["learning_rate"]

    def _look(self) -> None:
        now = self.clock()
        self.elapsed_s += now - self._last_look_s
        self._last_look_s = now


def make_budget(settings: TrainSettings, *, first_step: int = 0) -> Budget:
    """The budget and the learning rate, as the settings ask for them; `first_step` as of `Budget`."""
    return Budget(
        schedule=make_schedule(settings),
        num_steps=num_steps(settings),
        steps_per_epoch=settings.steps_per_epoch,
        accumulation_steps=settings.accumulation_steps,
        max_minutes=settings.max_minutes,
        first_step=first_step,
    )


class EarlyStopping(keras.callbacks.Callback):
    """Ends a training after some epochs without a better score.

    Give it to `Model.fit` after what validates.

    Args:
        metric: in the logs of an epoch; more is better.
        num_epochs: how many epochs without a new best one end it.

    Raises:
        InputError: a metric as reported, which may not decide.
    """

    def __init__(self, metric: str, *, num_epochs: int):
        super().__init__()
        self.metric = require_trustworthy(metric, use="stop a training")
        self.num_epochs = num_epochs
        self.score, self.waited = -math.inf, 0

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.metric] > self.score:
            self.score, self.waited = float(logs[self.metric]), 0
            return
        self.waited += 1
        if self.waited >= self.num_epochs:
            self.model.stop_training = True

    def get_state(self) -> dict[str, float]:
        """The best score, and how many epochs it is old."""
        return {"score": self.score, "waited": self.waited}

    def set_state(self, state: Mapping[str, float]) -> None:
        self.score, self.waited = state["score"], state["waited"]
