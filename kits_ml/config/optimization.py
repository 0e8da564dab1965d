"""Steps: how large, how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings(Settings):
    """The optimiser, its learning rate and the budget. A step takes one batch."""

    optimizer: Literal["adam", "adamw", "nadam", "lion", "rmsprop", "sgd"] = setting(
        "adam", "adam; adamw: with weight_decay; sgd: with Nesterov's momentum, nnU-Net's; nadam, lion, rmsprop"
    )
    learning_rate: float = setting(1e-3, "the highest of the training, above 0")
    momentum: float = setting(0.99, "of sgd", minimum=0, maximum=0.99999)
    weight_decay: float = setting(
        0.0, "an update takes learning rate x this share off each weight; 0: none; not for adam, see adamw", minimum=0
    )
    weight_decay_of: Literal["all", "kernels"] = setting(
        "all", "what decays; all: biases and normalisation too, as in nnU-Net; kernels: neither, as in transformers"
    )
    clip_norm: float = setting(0.0, "scale gradients down to this norm, of all weights together; 0: never", minimum=0)
    ema_momentum: float = setting(
        0.0,
        "score and keep a moving average of the weights, of which an update replaces 1 - this; 0: the weights",
        minimum=0,
        maximum=0.99999,
    )
    learning_rate_schedule: Literal["constant", "cosine", "polynomial", "one_cycle"] = setting(
        "cosine",
        "over the budget; cosine, polynomial: down to zero; one_cycle: up from a 25th, then down to nearly zero; "
        "constant: the report's",
    )
    polynomial_power: float = setting(0.9, "of the polynomial schedule", minimum=0.1, maximum=10)
    warmup_fraction: float | None = setting(
        None,
        "share of the budget in which the learning rate rises; without: 0.3 for one_cycle, 0 for the others",
        minimum=0,
        maximum=0.9,
    )
    accumulation_steps: int = setting(
        1, "steps whose gradients are averaged for one update of the weights; not in float16", minimum=1
    )
    epochs: int | None = setting(
        None,
        "how often the validation patients are looked at, at most; without: 5, or with max_steps or max_minutes as "
        "often as they allow",
        minimum=1,
    )
    steps_per_epoch: int = setting(50, "steps between two looks", minimum=1)
    max_steps: int | None = setting(None, "end after so many steps, if epochs allows as many", minimum=1)
    max_minutes: float | None = setting(
        None,
        "end after this time of training, validation not counted, if epochs allows as much; "
        "the schedule then follows the clock, and no two trainings are the same",
        unit="minutes",
        minimum=0.001,
    )
    early_stopping_epochs: int = setting(
        0, "end after so many epochs without a better validation score; 0: never", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: found {self.learning_rate:g}, expected more than 0")
        if self.optimizer == "adam" and self.weight_decay:
            raise InputError(f"weight_decay: found {self.weight_decay:g} with adam, expected 0, or optimizer adamw")
        if self.optimizer == "adamw" and not self.weight_decay:
            raise InputError("weight_decay: found 0 with adamw, expected more, such as 0.01, or optimizer adam")
        if self.weight_decay_of != "all" and not self.weight_decay:
            raise InputError(f"weight_decay_of: found {self.weight_decay_of} with weight_decay 0, expected more")
        for name in ("steps_per_epoch", "max_steps"):
            steps = getattr(self, name)
            if steps is not None and steps % self.accumulation_steps:
                raise InputError(
                    f"accumulation_steps: found {self.accumulation_steps}, expected a divisor of {name} {steps}"
                )
