"""One training of a search: on training patients, scored on validation patients; test patients are never read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from kits_ml import models
from kits_ml.config import PrepareSettings, TrainSettings
from kits_ml.models import cost
from kits_ml.training import batches
from kits_ml.training.fit import fit
from kits_ml.training.metrics import scores_by_case
from kits_ml.workflows import start
from kits_ml.workflows.prepare import prepare

#: Preparations that one process keeps open: the folds of a trial.
NUM_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Trialled:
    """What a training of a search gives.

    Attributes:
        score: the best epoch's mean IoU of the foreground regions over the validation patients.
        best_epoch: counted from 0.
        cases: by validation case, its scores with the best epoch's weights, on the prepared grid.
        num_parameters: of the network.
        gflops: of one image.
        training_minutes: validation not counted.
    """

    score: float
    best_epoch: int
    cases: Mapping[str, Mapping[str, float]]
    num_parameters: int
    gflops: float
    training_minutes: float


def train_trial(settings: TrainSettings, *, on_epoch: Callable[[int, Mapping[str, float]], None]) -> Trialled:
    """Trains and scores; records nothing.

    Args:
        settings: of the training. Trials of one process that prepare alike share the slices.
        on_epoch: called with the epoch's number, from 0, and its metrics; may raise to end the training.

    Raises:
        InputError: bad settings or data, what the devices cannot do, a loss that is no number.
    """
    model = start.new_model(settings)
    train, validation = _slices(settings.select(PrepareSettings), settings.training_margin_mm)
    single = models.without_supervision(model)
    num_parameters, gflops = single.count_params(), cost.gflops(single)
    fitted = fit(
        model, train, validation, settings, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=on_epoch)]
    )
    return Trialled(
        score=fitted.best_score,
        best_epoch=fitted.best_epoch,
        cases=scores_by_case(fitted.model, validation, batch_size=settings.batch_size),
        num_parameters=num_parameters,
        gflops=gflops,
        training_minutes=fitted.training_minutes,
    )


@functools.lru_cache(maxsize=NUM_KEPT)
def _slices(settings: PrepareSettings, margin_mm: float | None) -> tuple[batches.SliceArrays, batches.SliceArrays]:
    prepared = prepare(settings)
    train = batches.read_slices(prepared.store, prepared.split.train, margin_mm=margin_mm)
    return train, batches.read_slices(prepared.store, prepared.split.validation)
