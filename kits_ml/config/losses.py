"""What training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The loss."""

    loss: Literal["dice_crossentropy", "categorical_crossentropy"] = setting(
        "dice_crossentropy", "dice_crossentropy: ours; categorical_crossentropy: the report's"
    )
