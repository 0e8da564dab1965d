"""Metrics as reported: computed as somebody most likely did, to be looked at and for nothing else.

The report's own is `keras.metrics.MeanIoU` on one-hot labels and softmax, which takes no argmax;
`evaluation.misreading` tells what it reads. Others come by import path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import keras
import numpy as np
from keras import ops

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.labels import NUM_CLASSES
from kits_ml.training.imported_metrics import ImportedMetric, label_form, named_paths
from kits_ml.training.metrics import Observer
from kits_ml.trust import as_reported

NAME = "mean_iou"
TRAINING_METRIC = as_reported(NAME)
VALIDATION_METRIC = as_reported(f"val_{NAME}")


class ReportMeanIoU(keras.metrics.MeanIoU):
    """`keras.metrics.MeanIoU(num_classes=3)`, given one-hot labels. Its labels are whole numbers here."""

    def __init__(self, name: str = "as_reported_mean_iou", **options):
        super().__init__(**{"num_classes": NUM_CLASSES, "name": name, **options})

    def update_state(self, y_true, y_pred, sample_weight=None):
        one_hot = ops.one_hot(ops.cast(y_true, "int32"), NUM_CLASSES, dtype="float32")
        return super().update_state(one_hot, y_pred, sample_weight)


class AsReported(keras.callbacks.Callback):
    """Puts a metric into the logs of each epoch, under names that nothing may decide by.

    Give `training` to `Model.compile` (it averages over weights that change, as the report's did), and `observe` to
    the validation that runs before this.

    Args:
        name: logged as `as_reported/<name>` and `as_reported/val_<name>`.
        make: gives a new metric, which takes labels that are whole numbers.
    """

    def __init__(self, name: str = NAME, make: Callable[[], keras.metrics.Metric] = ReportMeanIoU) -> None:
        super().__init__()
        self.names = as_reported(name), as_reported(f"val_{name}")
        self.training = make()
        self.validation = make()

    def observe(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Takes a validation batch: labels `(batch, rows, columns)`, and probabilities of the classes behind them."""
        self.validation.update_state(labels, probabilities)

    def on_epoch_end(self, epoch, logs=None):
        training, validation = self.names
        logs[training] = logs.pop(self.training.name)
        logs[validation] = float(self.validation.result())
        self.validation.reset_state()


def make_as_reported(settings: TrainSettings) -> list[AsReported]:
    """The metrics as reported that a training asks for, each fresh: the report's own, then the imported ones.

    Raises:
        InputError: no such metric, one that cannot be computed in a training, or two of one name.
    """
    paths = named_paths(settings.as_reported_metrics)
    if settings.as_reported and NAME in paths:
        raise InputError(f"as_reported_metrics: found {paths[NAME]} with as_reported, which is logged as {NAME} too")
    own = [AsReported()] if settings.as_reported else []
    return own + [AsReported(name, _maker(name, path)) for name, path in paths.items()]


def observed_by(reported: Sequence[AsReported]) -> Observer | None:
    """What shows them all each batch of a validation; None where there are none."""
    if not reported:
        return None

    def observe(labels: np.ndarray, probabilities: np.ndarray) -> None:
        for one in reported:
            one.observe(labels, probabilities)

    return observe


def _maker(name: str, path: str) -> Callable[[], keras.metrics.Metric]:
    return partial(ImportedMetric, path, labels=label_form(path), name=f"as_reported_{name}")
