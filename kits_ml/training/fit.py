"""The training loop: a model, slices in, the best weights and their history out. Knows nothing of MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.models.standalone import standalone
from kits_ml.training import budget
from kits_ml.training.as_reported import make_as_reported, observed_by
from kits_ml.training.averaging import AverageWeights
from kits_ml.training.batches import FollowEpochs, ShuffledBatches, SliceArrays
from kits_ml.training.callbacks import (
    SELECTION_METRIC,
    BadLossError,
    BestWeights,
    Checkpoints,
    Course,
    Progress,
    StopOnBadLoss,
    Validation,
)
from kits_ml.training.checkpoints import Checkpoint, CheckpointFile
from kits_ml.training.devices import check_devices, statistics_of_whole_batches
from kits_ml.training.interrupts import stop_requests
from kits_ml.training.losses import make_loss
from kits_ml.training.losses.supervision import head_weights
from kits_ml.training.optimizers import make_optimizer
from kits_ml.training.sampling import make_batches


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a training gives.

    Attributes:
        model: with the best weights, and nothing of the training; it has one output, also after deep supervision, and
            computes in float32 on one device, whatever it was trained in and on.
        history: a list of values an epoch, by metric name.
        best_epoch: counted from 0.
        best_score: of `SELECTION_METRIC`.
        training_minutes: time of training, see `budget.Budget`; what was before an interruption counts too.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    best_score: float
    training_minutes: float


def fit(
    model: keras.Model,
    train: SliceArrays,
    validation: SliceArrays,
    settings: TrainSettings,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_file: CheckpointFile | None = None,
    resumed: Checkpoint | None = None,
) -> Fitted:
    """Trains, and leaves the best epoch's weights in the model.

    Args:
        model: fresh or warm; compiled here. Of several outputs (deep supervision) each counts in the loss, as
            `deep_supervision_weights` says, and the first alone is scored.
        train: slices to fit to.
        validation: slices of other patients, scored after each epoch.
        settings: loss, optimiser, batches and how they are varied, budget, seed.
        callbacks: called after the epoch's validation scores are in the logs. One with `get_state()` and
            `set_state(state)`, a JSON mapping, gets its state back when the training goes on.
        checkpoint_file: where checkpoints go; none are made without.
        resumed: goes on from here, as if it had never stopped.

    Raises:
        BadLossError: the loss became NaN or infinite; it has the best weights so far.
        StoppedError: by Ctrl-C or SIGTERM, after a checkpoint.
        InputError: a checkpoint of another model, or settings that the devices cannot follow.
    """
    check_devices(settings, num_devices=runtime.num_devices(), precision=runtime.precision())
    label_sizes = [shape[1] for shape in model.output_shape] if isinstance(model.output, list) else None
    reported = make_as_reported(settings)
    with runtime.device_scope():
        _compile(model, settings, label_sizes=label_sizes, metrics=[one.training for one in reported] or None)
    single = _scored(model)
    batches = make_batches(train, settings, label_sizes=label_sizes)
    first_step = resumed.step if resumed else 0
    best, course = BestWeights(SELECTION_METRIC), Course()
    progress = _progress(settings, resumed)
    spent = budget.make_budget(settings, first_step=first_step)
    watching = _in_order(
        settings,
        first_step=first_step,
        spent=spent,
        scoring=[
            Validation(single, validation, batch_size=settings.batch_size, observe=observed_by(reported)),
            *reported,
        ],
        best=best,
        last=[progress, *callbacks, course],
    )
    num_epochs = budget.num_epochs(settings)
    with stop_requests() as stop:
        keeper = Checkpoints(checkpoint_file, best=best, others=watching, stop=stop, resumed=resumed)
        try:
            _run(model, batches, num_epochs=num_epochs, keeper=keeper, resumed=resumed)
        except BadLossError as error:
            if best.weights:
                error.fitted = _fitted(model, best=best, course=course, elapsed_s=spent.elapsed_s)
            raise
        finally:
            progress.close()
        keeper.finish(num_epochs)
    return _fitted(model, best=best, course=course, elapsed_s=spent.elapsed_s)


def fitted_before(model: keras.Model, checkpoint: Checkpoint) -> Fitted:
    """What `fit` gave when it made this checkpoint, the last of its training.

    Args:
        model: of the same architecture; gets the weights.
        checkpoint: one that is `fitted`.
    """
    best, course = BestWeights(SELECTION_METRIC), Course()
    checkpoint.restore_callbacks([best, course])
    best.weights = list(checkpoint.arrays["best"])
    elapsed_s = checkpoint.callbacks[budget.Budget.__name__]["elapsed_s"]
    return _fitted(model, best=best, course=course, elapsed_s=elapsed_s)


def history_before(checkpoint: Checkpoint) -> dict[str, list[float]]:
    """The history until a checkpoint."""
    course = Course()
    checkpoint.restore_callbacks([course])
    return course.history


def _fitted(model: keras.Model, *, best: BestWeights, course: Course, elapsed_s: float) -> Fitted:
    best.restore(model)
    return Fitted(
        model=standalone(models.without_supervision(model)),
        history=course.history,
        best_epoch=best.epoch,
        best_score=best.score,
        training_minutes=elapsed_s / 60,
    )


def _run(
    model: keras.Model,
    batches: ShuffledBatches,
    *,
    num_epochs: int,
    keeper: Checkpoints,
    resumed: Checkpoint | None,
) -> None:
    """Goes through the epochs that are left; what is left of one that was begun is a run of its own."""

    def run(first: int, last: int) -> None:
        callbacks = [FollowEpochs(batches), *keeper.others, keeper]
        fed = runtime.feed(batches)
        with statistics_of_whole_batches(model, num_devices=runtime.num_devices()):
            model.fit(fed, initial_epoch=first, epochs=last, verbose=0, shuffle=False, callbacks=callbacks)

    epoch = 0
    if resumed:
        with runtime.device_scope():
            resumed.restore(model, keeper.others)
        keeper.best.weights = list(resumed.arrays["best"]) or None
        if resumed.stopped:
            return
        epoch = resumed.epoch
    if resumed and resumed.step:
        _make_metrics(model, batches, resumed)
        batches.first_step = resumed.step
        run(epoch, epoch + 1)
        if model.stop_training:
            return
        batches.first_step = 0
        epoch += 1
        keeper.last.restore(model, keeper.others)  # Keras ends a run by making averaged weights the weights
    if epoch < num_epochs:
        run(epoch, num_epochs)


def _make_metrics(model: keras.Model, batches: ShuffledBatches, resumed: Checkpoint) -> None:
    """Lets Keras make the variables of its metrics, which with TensorFlow it does at the first batch only."""
    if len(model.metrics_variables) != len(resumed.arrays["metrics"]):
        model.test_on_batch(*batches[0])
        resumed.restore(model, [])


def _compile(
    model: keras.Model,
    settings: TrainSettings,
    *,
    label_sizes: Sequence[int] | None,
    metrics: list[keras.metrics.Metric] | None,
) -> None:
    """Gives the model its optimiser and loss; with deep supervision the same loss for each output."""
    loss = make_loss(settings)
    model.compile(
        optimizer=make_optimizer(settings),
        loss=[loss] * len(label_sizes) if label_sizes else loss,
        loss_weights=head_weights(label_sizes, settings.deep_supervision_weights) if label_sizes else None,
        metrics=metrics,
        jit_compile=runtime.jit_compile(),
    )
    model.optimizer.build(model.trainable_variables)


def _scored(model: keras.Model) -> keras.Model:
    """The model whose output is scored: of several heads the first, on one device."""
    single = models.without_supervision(model)
    if single is model and runtime.num_devices() > 1:
        single = keras.Model(model.inputs, model.outputs[0])  # each device would predict the whole batch
    if single is not model:
        single.compile(jit_compile=runtime.jit_compile())
    return single


def _in_order(
    settings: TrainSettings,
    *,
    first_step: int,
    spent: keras.callbacks.Callback,
    scoring: Sequence[keras.callbacks.Callback],
    best: BestWeights,
    last: Sequence[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """All callbacks: each finds in the logs, and in the weights, what those before it have put there.

    Args:
        settings: averaging and early stopping.
        first_step: of the epoch that is gone on with.
        spent: ends the training when its budget is.
        scoring: put the scores into the logs.
        best: reads them; with averaging, while the average's weights are in the model.
        last: look on.
    """
    average = _average(settings, first_step)
    return [
        StopOnBadLoss(first_step=first_step),
        spent,
        *([average] if average else []),
        *scoring,
        best,
        *([average.give_back] if average else []),
        *_early_stopping(settings),
        *last,
    ]


def _average(settings: TrainSettings, first_step: int) -> AverageWeights | None:
    if not settings.ema_momentum:
        return None
    return AverageWeights(
        momentum=settings.ema_momentum, accumulation_steps=settings.accumulation_steps, first_step=first_step
    )


def _progress(settings: TrainSettings, resumed: Checkpoint | None) -> Progress:
    """The bar over all steps; of a budget in minutes nobody knows how many."""
    done = resumed.epoch * settings.steps_per_epoch + resumed.step if resumed else 0
    return Progress(budget.num_steps(settings) if settings.max_minutes is None else None, done=done)


def _early_stopping(settings: TrainSettings) -> list[keras.callbacks.Callback]:
    if not settings.early_stopping_epochs:
        return []
    return [budget.EarlyStopping(SELECTION_METRIC, num_epochs=settings.early_stopping_epochs)]
