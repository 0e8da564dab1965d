"""The training loop: a model, slices in, the best weights and their history out. Knows nothing of MLflow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import keras
from tqdm import tqdm

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.models.standalone import standalone
from kits_ml.training import budget
from kits_ml.training.as_reported import AsReported
from kits_ml.training.averaging import AverageWeights
from kits_ml.training.batches import ShuffledBatches, SliceArrays
from kits_ml.training.devices import check_devices, share_loss
from kits_ml.training.losses import LOSSES
from kits_ml.training.metrics import Observer, validation_scores
from kits_ml.training.optimizers import make_optimizer
from kits_ml.training.sampling import BalancedBatches
from kits_ml.trust import require_trustworthy

#: What chooses the weights: the mean IoU of the foreground regions over the validation patients.
SELECTION_METRIC = "val_foreground_iou"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a training gives.

    Attributes:
        model: with the best weights; it has one output, also after deep supervision, and computes in float32 on one
            device, whatever it was trained in and on.
        history: a list of values an epoch, by metric name.
        best_epoch: counted from 0.
        best_score: of `SELECTION_METRIC`.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    best_score: float


def fit(
    model: keras.Model,
    train: SliceArrays,
    validation: SliceArrays,
    settings: TrainSettings,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Trains, and leaves the best epoch's weights in the model.

    Args:
        model: fresh or warm; compiled here. Of several outputs (deep supervision) each counts in the loss as much as
            its resolution, as in nnU-Net, and the first alone is scored.
        train: slices to fit to.
        validation: slices of other patients, scored after each epoch.
        settings: loss, optimiser, batches, budget, seed.
        callbacks: called after the epoch's validation scores are in the logs.

    Raises:
        InputError: the loss became NaN or infinite, or settings that the devices cannot follow.
    """
    check_devices(settings, num_devices=runtime.num_devices())
    label_sizes = [shape[1] for shape in model.output_shape] if isinstance(model.output, list) else None
    reported = AsReported() if settings.as_reported else None
    with runtime.device_scope():
        _compile(model, settings, label_sizes=label_sizes, metrics=[reported.training] if reported else None)
    single = models.without_supervision(model)
    if single is model and runtime.num_devices() > 1:
        single = keras.Model(model.inputs, model.outputs[0])  # each device would predict the whole batch
    if single is not model:
        single.compile(jit_compile=runtime.jit_compile())
    draw = BalancedBatches if settings.balanced_sampling else ShuffledBatches
    batches = draw(
        train,
        batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
        input_slices=settings.input_slices,
        label_sizes=label_sizes,
    )
    best = BestWeights(SELECTION_METRIC)
    num_epochs = budget.num_epochs(settings)
    average = _average(settings)
    history = model.fit(
        batches,
        epochs=num_epochs,
        verbose=0,
        shuffle=False,
        callbacks=[
            StopOnBadLoss(),
            budget.make_budget(settings),
            *([average] if average else []),
            Validation(
                single,
                validation,
                batch_size=settings.batch_size,
                observe=reported.observe if reported else None,
            ),
            *([reported] if reported else []),
            best,
            *([average.give_back] if average else []),
            *_early_stopping(settings),
            Progress(num_epochs, settings.steps_per_epoch),
            *callbacks,
        ],
    )
    best.restore(model)
    plain = model.dtype_policy.name == "float32" and runtime.num_devices() == 1
    return Fitted(
        model=single if plain else standalone(single),
        history={name: [float(value) for value in values] for name, values in history.history.items()},
        best_epoch=best.epoch,
        best_score=best.score,
    )


def _compile(
    model: keras.Model,
    settings: TrainSettings,
    *,
    label_sizes: Sequence[int] | None,
    metrics: list[keras.metrics.Metric] | None,
) -> None:
    """Gives the model its optimiser and loss; with deep supervision the same loss for each output."""
    loss = share_loss(LOSSES[settings.loss]) if runtime.num_devices() > 1 else LOSSES[settings.loss]
    model.compile(
        optimizer=make_optimizer(settings),
        loss=[loss] * len(label_sizes) if label_sizes else loss,
        loss_weights=head_weights(label_sizes) if label_sizes else None,
        metrics=metrics,
        jit_compile=runtime.jit_compile(),
    )


def _average(settings: TrainSettings) -> AverageWeights | None:
    if not settings.ema_momentum:
        return None
    return AverageWeights(momentum=settings.ema_momentum, accumulation_steps=settings.accumulation_steps)


def _early_stopping(settings: TrainSettings) -> list[keras.callbacks.Callback]:
    if not settings.early_stopping_epochs:
        return []
    return [budget.EarlyStopping(SELECTION_METRIC, num_epochs=settings.early_stopping_epochs)]


def head_weights(sizes: Sequence[int]) -> list[float]:
    """What the outputs of deep supervision weigh in the loss: as their resolution, 1 together.

    Args:
        sizes: rows of each output.
    """
    return [size / sum(sizes) for size in sizes]


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

    Raises:
        InputError: a metric as reported, which may not choose.
    """

    def __init__(self, metric: str):
        super().__init__()
        self.metric = require_trustworthy(metric, use="choose weights")
        self.score, self.epoch, self.weights = -float("inf"), -1, None

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.metric] > self.score:
            self.score, self.epoch, self.weights = float(logs[self.metric]), epoch, self.model.get_weights()

    def restore(self, model: keras.Model) -> None:
        """Gives the model the kept weights."""
        if self.weights is not None:
            model.set_weights(self.weights)


class StopOnBadLoss(keras.callbacks.Callback):
    """Ends a training whose loss is no number any more."""

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])
        if loss != loss or loss in (float("inf"), -float("inf")):
            raise InputError(f"the loss became {loss} in step {batch + 1} of the epoch; try a smaller learning_rate")


class Progress(keras.callbacks.Callback):
    """One bar over all steps, and a line an epoch."""

    def __init__(self, num_epochs: int, steps_per_epoch: int):
        super().__init__()
        self.num_epochs = num_epochs
        self.steps_per_epoch = steps_per_epoch

    def on_train_begin(self, logs=None):
        self.bar = tqdm(total=self.num_epochs * self.steps_per_epoch, desc="train", unit="step", file=sys.stderr)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        names = ("loss", "val_dice_kidney", "val_dice_tumour", SELECTION_METRIC)
        values = "  ".join(f"{name} {logs[name]:.3f}" for name in names)
        self.bar.write(f"epoch {epoch + 1}/{self.num_epochs}  {values}", file=sys.stderr)

    def on_train_end(self, logs=None):
        self.bar.close()
