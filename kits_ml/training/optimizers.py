"""Optimisers by name.

Weight decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): an update takes `learning rate x
weight_decay` off each weight, by choice off biases and normalisation too, and leaves the gradient alone.
"""

from __future__ import annotations

import keras

from kits_ml.config import TrainSettings

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


def make_optimizer(settings: TrainSettings) -> keras.optimizers.Optimizer:
    """The optimiser that the settings name, fresh. `budget.Budget` leads its learning rate.

    With `accumulation_steps` the gradients of so many steps are averaged; clipping, weight decay and the learning
    rate act on the average. Keras moves the average of the weights at every step, not every update: its momentum is
    set so that `accumulation_steps` moves together make `ema_momentum`.

    Args:
        settings: of the optimiser. Call in the scope of `runtime.device_scope`.
    """
    own = {"momentum": settings.momentum, "nesterov": settings.momentum > 0} if settings.optimizer == "sgd" else {}
    steps = settings.accumulation_steps
    optimizer = OPTIMIZERS[settings.optimizer](
        learning_rate=float(settings.learning_rate),
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
