"""The small trainings that the faults are compared by: all alike, but for what is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from readings import Reading, predictions, soften

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.training.as_reported import VALIDATION_METRIC
from kits_ml.training.batches import SliceArrays, describe
from kits_ml.training.fit import fit


class LastWeights(keras.callbacks.Callback):
    """Keeps the weights that a training ends with; `fit` gives back the best ones."""

    def on_train_end(self, logs=None):
        self.weights = self.model.get_weights()


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A small training.

    Attributes:
        model: with the weights of the best epoch.
        last: the weights that the training ended with.
        history: values by metric name, one an epoch.
        best_epoch: counted from 0.
        minutes: of training.
    """

    model: keras.Model
    last: Sequence[np.ndarray]
    history: Mapping[str, Sequence[float]]
    best_epoch: int
    minutes: float


def train(slices: SliceArrays, validation: SliceArrays, settings: TrainSettings) -> Trained:
    """Trains a fresh network of the settings' seed."""
    runtime.configure(num_threads=settings.num_threads, precision=settings.precision)
    runtime.free_memory()
    runtime.seed_everything(settings.seed)
    last = LastWeights()
    fitted = fit(models.build(settings), slices, validation, settings, callbacks=[last])
    return Trained(
        model=fitted.model,
        last=last.weights,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        minutes=fitted.training_minutes,
    )


def read(model: keras.Model, slices: SliceArrays, *, batch_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of a model on some patients' slices.

    Returns:
        Dice of each patient by case, NaN where the region is not shown; and what the report's metric reads: of the
        `softmax` as it is, and `hardened`, with the `pixel_error` and the part of saturated pixels beside it.
    """
    soft, hard = Reading(), Reading()
    for case, labels, probabilities in predictions(model, slices, batch_size=batch_size):
        soft.add(case, labels, probabilities)
        hard.add(case, labels, soften(probabilities.argmax(axis=-1), "saturated"))
    found = soft.result()
    return soft.dice_by_case(), {
        "softmax": found["as_reported"],
        "hardened": hard.result()["as_reported"],
        "pixel_error": found["pixel_error"],
        "saturated_fraction": found["saturated_fraction"],
    }


def course(trained: Trained) -> dict[str, list[float]]:
    """What the essay draws of a training, epoch by epoch."""
    wanted = ("loss", VALIDATION_METRIC, "val_dice_kidney", "val_dice_tumour", "val_foreground_iou")
    return {name: list(trained.history[name]) for name in wanted}


def small_settings(size: Mapping[str, Any], **changes: Any) -> TrainSettings:
    """The report's way at a smaller size, with changes."""
    fixed = {
        "loss": "categorical_crossentropy",
        "sampling": "shuffled",
        "augmentation": False,
        "learning_rate_schedule": "constant",
        "as_reported": True,
    }
    return TrainSettings.from_mapping({**fixed, **size, **changes}, source="small training")


def describe_sizes(train_slices: SliceArrays, validation: SliceArrays, settings: TrainSettings) -> dict[str, Any]:
    """How many slices and patients, and the budget, for the figures' captions."""
    return {
        "train": dict(describe(train_slices)),
        "validation": dict(describe(validation)),
        **{name: getattr(settings, name) for name in ("image_size", "base_filters", "batch_size", "seed")},
        "steps": settings.epochs * settings.steps_per_epoch,
    }
