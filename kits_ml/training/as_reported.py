"""The report's own metric, computed as the report most likely did, to be looked at and for nothing else.

`keras.metrics.MeanIoU` on one-hot labels and softmax takes no argmax; `evaluation.misreading` tells what it reads.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kits_ml.labels import NUM_CLASSES
from kits_ml.trust import as_reported

TRAINING_METRIC = as_reported("mean_iou")
VALIDATION_METRIC = as_reported("val_mean_iou")


class ReportMeanIoU(keras.metrics.MeanIoU):
    """`keras.metrics.MeanIoU(num_classes=3)`, given one-hot labels. Its labels are whole numbers here."""

    def __init__(self, name: str = "as_reported_mean_iou", **options):
        super().__init__(**{"num_classes": NUM_CLASSES, "name": name, **options})

    def update_state(self, y_true, y_pred, sample_weight=None):
        one_hot = ops.one_hot(ops.cast(y_true, "int32"), NUM_CLASSES, dtype="float32")
        return super().update_state(one_hot, y_pred, sample_weight)


class AsReported(keras.callbacks.Callback):
    """Puts the report's metric into the logs of each epoch, under names that nothing may decide by.

    Give `training` to `Model.compile` (it averages over weights that change, as the report's did), and `observe` to
    the validation that runs before this.
    """

    def __init__(self) -> None:
        super().__init__()
        self.training = ReportMeanIoU()
        self.validation = ReportMeanIoU()

    def observe(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Takes a validation batch: labels `(batch, rows, columns)`, and probabilities of the classes behind them."""
        self.validation.update_state(labels, probabilities)

    def on_epoch_end(self, epoch, logs=None):
        logs[TRAINING_METRIC] = logs.pop(self.training.name)
        logs[VALIDATION_METRIC] = float(self.validation.result())
        self.validation.reset_state()
