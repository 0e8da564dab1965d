"""What the network runs on, and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Settings):
    """Seed, precision and threads."""

    seed: int = setting(0, "of the weights, the order of slices and their augmentation", minimum=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "auto: bfloat16 in convolutions where the processor has it, else float32"
    )
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)
