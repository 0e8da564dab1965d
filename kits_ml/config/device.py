"""What the network runs on, and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Settings):
    """Seed, precision, threads and devices."""

    seed: int = setting(0, "of the weights, the order of slices and their augmentation", minimum=0, maximum=2**32 - 1)
    deterministic: bool = setting(
        False,
        "only operations that give the same bits each time: same seed, same weights, on the same machine with the "
        "same num_threads and num_devices and without max_minutes; slower on a GPU",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "of the network's arithmetic; auto: bfloat16 where the device has it, else float16 on a GPU that has it",
    )
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)
    num_loader_threads: int = setting(
        0,
        "threads that read and vary the next batches; how many changes no result; 0: one beside a CPU, up to eight "
        "beside a GPU",
        minimum=0,
    )
    num_devices: int = setting(
        1,
        "GPUs (or CPUs) that share each batch; 0: all there are; with TensorFlow a loss that is no plain mean over "
        "pixels or slices (Dice, top-k, weighted cross-entropy) sees a device's part of the batch, and clip_norm and "
        "accumulation_steps are refused; with JAX it sees all of it, and they work",
        minimum=0,
    )
