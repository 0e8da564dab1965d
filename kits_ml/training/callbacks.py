"""What watches a training: the best weights, a loss that is no number, progress, the course, and checkpoints."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from kits_ml.errors import InputError, StoppedError
from kits_ml.training import checkpoints
from kits_ml.training.batches import SliceArrays
from kits_ml.training.checkpoints import Checkpoint, CheckpointFile
from kits_ml.training.interrupts import StopRequest
from kits_ml.training.metrics import Observer, validation_scores
from kits_ml.trust import require_trustworthy

#: What chooses the weights: the mean IoU of the foreground regions over the validation patients.
SELECTION_METRIC = "val_foreground_iou"


class BadLossError(InputError):
    """The loss, or the weights, are no numbers any more.

    Attributes:
        fitted: the best weights so far (`fit.Fitted`); None where no epoch was finished.
    """

    fitted: Any = None


class Validation(keras.callbacks.Callback):
    """Puts the validation patients' scores into the logs of each epoch."""

    def __init__(self, scored: keras.Model, slices: SliceArrays, *, batch_size: int, observe: Observer | None = None):
        super().__init__()
        self.scored = scored
        self.slices = slices
        self.batch_size = batch_size
        self.observe = observe

    def on_epoch_end(self, epoch, logs=None):
        scores = validation_scores(self.scored, self.slices, batch_size=self.batch_size, observe=self.observe)
        logs.update({f"val_{name}": value for name, value in scores.items()})


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest score; of equal ones, the first.

    The loss tells of weights that are no numbers a step late, after an epoch's last update not before the next epoch:
    so weights are looked at before they are kept.

    Raises:
        InputError: a metric as reported, which may not choose.
        BadLossError: the weights to keep are no numbers any more.
    """

    def __init__(self, metric: str):
        super().__init__()
        self.metric = require_trustworthy(metric, use="choose weights")
        self.score, self.epoch, self.weights = -float("inf"), -1, None

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.metric] > self.score:
            weights = self.model.get_weights()
            if not all(np.isfinite(one).all() for one in weights):
                raise BadLossError(f"the weights became no numbers in epoch {epoch + 1}; try a smaller learning_rate")
            self.score, self.epoch, self.weights = float(logs[self.metric]), epoch, weights

    def restore(self, model: keras.Model) -> None:
        """Gives the model the kept weights."""
        if self.weights is not None:
            model.set_weights(self.weights)

    def get_state(self) -> dict[str, Any]:
        """Score and epoch; the weights are arrays and go another way."""
        return {"score": self.score, "epoch": self.epoch}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.score, self.epoch = state["score"], state["epoch"]


class StopOnBadLoss(keras.callbacks.Callback):
    """Ends a training whose loss is no number any more.

    Args:
        first_step: of the epoch that is gone on with.
    """

    def __init__(self, *, first_step: int = 0):
        super().__init__()
        self.first_step = first_step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if not np.isfinite(loss):
            raise BadLossError(
                f"the loss became {loss} in epoch {self.epoch + 1}, step {self.first_step + batch + 1}; "
                "try a smaller learning_rate"
            )

    def on_epoch_end(self, epoch, logs=None):
        self.first_step = 0


class Progress(keras.callbacks.Callback):
    """One bar over all steps, and a line an epoch.

    Args:
        num_steps: of the whole training; None where nobody knows.
        done: steps that were done before.
    """

    def __init__(self, num_steps: int | None, *, done: int = 0):
        super().__init__()
        self.num_steps = num_steps
        self.done = done
        self.bar = None

    def on_train_begin(self, logs=None):
        self.bar = tqdm(total=self.num_steps, initial=self.done, desc="train", unit="step", file=sys.stderr)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
        self.done += 1

    def on_epoch_end(self, epoch, logs=None):
        names = ("loss", "val_dice_kidney", "val_dice_tumour", SELECTION_METRIC)
        values = "  ".join(f"{name} {logs[name]:.3f}" for name in names)
        self.bar.write(f"epoch {epoch + 1}  {values}", file=sys.stderr)

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """Leaves the bar as it stands; also where an error ended the training."""
        if self.bar is not None:
            self.bar.close()


class Course(keras.callbacks.Callback):
    """The logs of each epoch, those before a restart too; Keras' own history forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.history = {name: list(values) for name, values in state["history"].items()}


class Checkpoints(keras.callbacks.Callback):
    """Writes checkpoints: at the start, when one is due, at each epoch's end, and when somebody asks to stop.

    Comes after all other callbacks, so that a checkpoint never says of an epoch what they have not done yet: an epoch
    whose checkpoint a kill prevented is gone through again, with the same result.

    Args:
        file: where they go; None: nowhere.
        best: its weights are kept too.
        others: callbacks whose state is kept.
        stop: asks to stop.
        resumed: what the training goes on from.

    Attributes:
        last: the state at the end of the epoch that was gone on with in its midst; None before, and without one.

    Raises:
        StoppedError: after the checkpoint, where somebody asked to stop.
    """

    def __init__(
        self,
        file: CheckpointFile | None,
        *,
        best: BestWeights,
        others: Sequence[keras.callbacks.Callback],
        stop: StopRequest,
        resumed: Checkpoint | None = None,
    ):
        super().__init__()
        self.file, self.best, self.others, self.stop = file, best, others, stop
        self.begun = resumed is not None
        self.first_step = resumed.step if resumed else 0
        self.metrics = resumed.arrays["metrics"] if resumed and resumed.step else None
        self.last: Checkpoint | None = None

    def on_train_begin(self, logs=None):
        if self.file and not self.begun:  # so that a kill before the first one can be gone on from too
            self._keep(self._capture(epoch=0, step=0))
        self.begun = True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if self.metrics is not None:
            checkpoints.assign(self.model.metrics_variables, self.metrics, what="metrics")
            self.metrics = None

    def on_train_batch_end(self, batch, logs=None):
        wanted = self.stop.signal_number is not None
        if batch + 1 == self.params["steps"] or not (wanted or (self.file and self.file.is_due())):
            return  # after the last step comes the epoch's own
        if self.model.stop_training:
            return  # and so it does where a callback ends the epoch
        step = self.first_step + batch + 1
        self._keep(self._capture(epoch=self.epoch, step=step))
        if wanted:
            raise _stopped(self.stop, f"in epoch {self.epoch + 1}, after step {step}")

    def on_epoch_end(self, epoch, logs=None):
        checkpoint = self._capture(epoch=epoch + 1, step=0) if self.file or self.first_step else None
        self._keep(checkpoint)
        if self.first_step:
            self.first_step, self.last = 0, checkpoint
        if self.stop.signal_number is not None:
            raise _stopped(self.stop, f"after epoch {epoch + 1}")

    def finish(self, num_epochs: int) -> None:
        """Keeps the best weights alone, now that the training is over.

        Raises:
            StoppedError: where somebody asked to stop.
        """
        if self.file:
            arrays = {"best": self.best.weights or []}
            states = checkpoints.states(self.others)
            about = self.file.about
            self._keep(
                Checkpoint(epoch=num_epochs, step=0, arrays=arrays, callbacks=states, fitted=True, about=about)
            )
        if self.stop.signal_number is not None:
            raise _stopped(self.stop, "after the last epoch")

    def _capture(self, *, epoch: int, step: int) -> Checkpoint:
        return checkpoints.capture(
            self.model,
            self.others,
            epoch=epoch,
            step=step,
            best=self.best.weights or [],
            about=self.file.about if self.file else {},
        )

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        if self.file:
            self.file.write(checkpoint)


def _stopped(stop: StopRequest, where: str) -> StoppedError:
    """The error that ends a training on request."""
    how = "Ctrl-C" if stop.signal_number == signal.SIGINT else signal.Signals(stop.signal_number).name
    return StoppedError(f"stopped by {how} {where}", signal_number=stop.signal_number)
