"""The moving average of the weights: scored and kept in their place, while training goes on from the weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np


class AverageWeights(keras.callbacks.Callback):
    """Puts the optimiser's moving average into the model for the callbacks between this and `give_back`.

    An average moves once an update. That of what is trained is the optimiser's, see `optimizers.make_optimizer`. The
    statistics of batch normalisation belong to the weights they were taken with, so they are averaged alike, here.
    `give_back` returns every weight exactly: callbacks after it,
    such as one that saves the state of the training, see what training goes on from.

    Args:
        momentum: what an update leaves of the average, in (0, 1).
        accumulation_steps: steps an update.
        first_step: of the first epoch, where the training goes on in its midst.
    """

    def __init__(self, *, momentum: float, accumulation_steps: int = 1, first_step: int = 0):
        super().__init__()
        self.momentum = momentum
        self.accumulation_steps = accumulation_steps
        self.first_step = first_step
        self.statistics: list[np.ndarray] | None = None
        self._weights: list[np.ndarray] = []

    @property
    def give_back(self) -> keras.callbacks.Callback:
        """The callback that returns the weights."""
        return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._return())

    def on_train_batch_end(self, batch, logs=None):
        if not self.model.non_trainable_weights or (self.first_step + batch + 1) % self.accumulation_steps:
            return
        found = _values(self.model.non_trainable_weights)
        if self.statistics is None:
            self.statistics = found
        else:
            pairs = zip(self.statistics, found, strict=True)
            self.statistics = [self.momentum * old + (1 - self.momentum) * new for old, new in pairs]

    def on_epoch_end(self, epoch, logs=None):
        self.first_step = 0
        variables = self._variables()
        self._weights = _values(variables)
        _assign(variables, [*self._trained_averages(), *(self.statistics or [])])

    def get_arrays(self) -> list[np.ndarray]:
        """The averaged statistics; the averages of what is trained are the optimiser's."""
        return self.statistics or []

    def set_arrays(self, arrays: Sequence[np.ndarray]) -> None:
        self.statistics = list(arrays) or None

    def _return(self) -> None:
        _assign(self._variables(), self._weights)
        self._weights = []

    def _trained_averages(self) -> list[np.ndarray]:
        """The averages of the trained weights after whole updates.

        The optimiser moves them at each step by `momentum ** (1 / accumulation_steps)`, and an epoch ends with an
        update: the moves that it would make with these weights until the next one are made here.
        """
        left = self.momentum ** (1 - 1 / self.accumulation_steps)
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16: inside the one that scales the loss
        averages = _values(optimizer._model_variables_moving_average)
        trained = self._weights[: len(averages)]
        return [left * old + (1 - left) * new for old, new in zip(averages, trained, strict=True)]

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.trainable_weights, *self.model.non_trainable_weights]


def _values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
