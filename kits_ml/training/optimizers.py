"""Optimisers by name.

Weight decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): an update takes `learning rate x
weight_decay` off each weight, by choice off biases and normalisation too, and leaves the gradient alone.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kits_ml.config import TrainSettings
from kits_ml.training.budget import rates_of_steps

#: Names of the variables that are no kernels, with TensorFlow's number behind them or without.
NO_KERNELS = r"\b(bias|gamma|beta)(:\d+)?$"

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


class RateOfStep(keras.optimizers.schedules.LearningRateSchedule):
    """Looks the learning rate up by the number of steps done; after the last it stays.

    Args:
        rates: `(steps,)`.
    """

    def __init__(self, rates: np.ndarray):
        self.rates = np.asarray(rates, np.float32)

    def __call__(self, step: Any) -> Any:
        return ops.take(ops.convert_to_tensor(self.rates), ops.minimum(ops.cast(step, "int32"), len(self.rates) - 1))

    def get_config(self) -> dict[str, Any]:
        return {"rates": self.rates.tolist()}


def make_optimizer(settings: TrainSettings) -> keras.optimizers.Optimizer:
    """The optimiser that the settings name, fresh. It knows the learning rate of each step, unless the clock decides
    it: then `budget.Budget` sets it.

    With `accumulation_steps` the gradients of so many steps are averaged; clipping, weight decay and the learning
    rate act on the average. Keras moves the average of the weights at every step, not every update: its momentum is
    set so that `accumulation_steps` moves together make `ema_momentum`. Right after an update, only the first of them
    is made; `averaging.AverageWeights` makes up for the others.

    Args:
        settings: of the optimiser. Call in the scope of `runtime.device_scope`.
    """
    own = {"momentum": settings.momentum, "nesterov": settings.momentum > 0} if settings.optimizer == "sgd" else {}
    steps = settings.accumulation_steps
    rates = rates_of_steps(settings)
    optimizer = OPTIMIZERS[settings.optimizer](
        learning_rate=float(settings.learning_rate) if rates is None else RateOfStep(rates),
        weight_decay=settings.weight_decay or None,
        global_clipnorm=settings.clip_norm or None,
        use_ema=settings.ema_momentum > 0,
        ema_momentum=settings.ema_momentum ** (1 / steps),
        gradient_accumulation_steps=steps if steps > 1 else None,
        **own,
    )
    if settings.weight_decay_of == "kernels":
        optimizer.exclude_from_weight_decay(var_names=[NO_KERNELS])
    return optimizer
