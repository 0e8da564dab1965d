"""Steps: how large, how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings(Settings):
    """The optimiser, its learning rate and the budget."""

    learning_rate: float = setting(1e-3, "of Adam, at the start", minimum=0)
    learning_rate_schedule: Literal["cosine", "constant"] = setting(
        "cosine", "cosine: down to zero over the training; constant: the report's"
    )
    epochs: int = setting(5, "how often the validation patients are looked at", minimum=1)
    steps_per_epoch: int = setting(50, "steps between two looks", minimum=1)
