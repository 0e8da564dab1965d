"""How much of a training step augmentation takes.

    python experiments/benchmarks/augmentation.py

measures the changes of the defaults on 256x256 slices of soft noise, each alone on every slice and all as often as
the defaults say, then steps of the default U-Net with and without augmentation, and writes
`experiments/benchmarks/augmentation.md`. It takes some minutes. An operation has one thread, those of the steps
too (TensorFlow does two at a time where it can): so CPU seconds are work, not threads that wait for each other, and
other users of the machine lengthen them little.
`--num_threads 0` gives the steps all cores. Steps with and without alternate, so that whatever else the machine does
strikes both. The least of several counts, for steps of the medians of epochs without their first step. The share is
augmentation's CPU time of a slice over a step's; allowed are 15 %. Last, bending an image with its labels by other
libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch  # before TensorFlow: the other order is known to crash in places

from kits_ml import runtime

runtime.set_environment()

import cv2  # noqa: E402
import keras  # noqa: E402
import machine  # noqa: E402
import numpy as np  # noqa: E402
from monai.transforms import Rand2DElasticd  # noqa: E402
from scipy import ndimage  # noqa: E402

from kits_ml import models  # noqa: E402
from kits_ml.config import AugmentationSettings, TrainSettings  # noqa: E402
from kits_ml.training.augmentation import BENDING_POINTS, Augmentation  # noqa: E402
from kits_ml.training.batches import ShuffledBatches, SliceArrays  # noqa: E402
from kits_ml.training.losses import make_loss  # noqa: E402
from kits_ml.training.spatial import SpatialChange, move, source_positions  # noqa: E402

SIZE = 256
NUM_SLICES = 64
PACKAGES = ("numpy", "opencv-python-headless", "scipy", "monai", "torch", "keras", "tensorflow")
ALLOWED = 0.15
RESULT = Path(__file__).with_suffix(".md")
BUSY = "**Others used the machine meanwhile**: steps take much longer than they would; trust CPU times and shares."


def soft_noise(num_slices: int, *, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Slices `(num_slices, SIZE, SIZE, channels)` float32 in [0, 1] with some structure, and labels."""
    rng = np.random.default_rng(0)
    fields = [cv2.GaussianBlur(rng.random((SIZE, SIZE), np.float32), (0, 0), 4) for _ in range(num_slices * channels)]
    images = np.moveaxis(np.reshape(fields, (num_slices, channels, SIZE, SIZE)), 1, -1)
    images = np.ascontiguousarray((images - images.min()) / (images.max() - images.min()))
    return images, np.digitize(images[..., 0], (0.6, 0.7)).astype(np.uint8)


def cpu_ms(act: Callable[[], object], *, repetitions: int, calls: int = 1) -> float:
    """The least CPU time of several, in ms a call; `act` makes `calls` of them."""
    act()
    taken = []
    for _ in range(repetitions):
        start = time.process_time()
        act()
        taken.append(time.process_time() - start)
    return 1000 * min(taken) / calls


def change_table(repetitions: int) -> tuple[list[str], float]:
    """Each change alone and all together; and the ms a slice of the defaults with one slice of input."""
    defaults = AugmentationSettings()
    names = [name for name in AugmentationSettings.names() if name.endswith("_probability")]
    never = dataclasses.replace(defaults, **dict.fromkeys(names, 0.0))
    rows = {"nothing but drawing the numbers": never}
    for name in names:
        rows[name.removesuffix("_probability").replace("_", " ")] = dataclasses.replace(never, **{name: 1.0})
    rows["all, on every slice"] = dataclasses.replace(never, **dict.fromkeys(names, 1.0))
    rows["**as the defaults say**"] = defaults
    lines = ["| change | 1 slice, CPU ms | with 2 neighbours, CPU ms |", "|---|--:|--:|"]
    batches = [soft_noise(NUM_SLICES, channels=channels) for channels in (1, 3)]
    for title, settings in rows.items():
        change = Augmentation(settings, seed=0)
        found = [
            cpu_ms(
                lambda one=one, change=change: change(*one, first_draw=0), repetitions=repetitions, calls=NUM_SLICES
            )
            for one in batches
        ]
        lines.append(f"| {title} | {found[0]:.2f} | {found[1]:.2f} |")
    return lines, found[0]


def library_table(repetitions: int) -> list[str]:
    """Rotation, scale, shift and bending of one image (linear) and its labels (nearest), every time."""
    (images, labels), rng = soft_noise(1), np.random.default_rng(0)
    image, label_map = images[0], labels[0]
    bending = rng.normal(0, 0.01, (BENDING_POINTS, BENDING_POINTS, 2))
    change = SpatialChange(rotation_degrees=10, scale=1.1, shift=(0.05, 0.05), bending=bending)
    channels_first = {"image": torch.from_numpy(image[None, ..., 0]), "label": torch.from_numpy(label_map[None])}
    monai = Rand2DElasticd(
        ["image", "label"],
        spacing=(32, 32),
        magnitude_range=(2, 3),
        prob=1,
        rotate_range=0.26,
        scale_range=0.3,
        translate_range=25,
        mode=["bilinear", "nearest"],
        padding_mode="zeros",
    )

    def scipy() -> None:
        positions = np.stack(source_positions(label_map.shape, change))
        ndimage.map_coordinates(image[..., 0], positions, order=1)
        ndimage.map_coordinates(label_map, positions, order=0)

    ways = {
        "OpenCV `remap` (ours)": lambda: move(image, label_map, change),
        "SciPy `map_coordinates`": scipy,
        "MONAI `Rand2DElasticd`": lambda: monai(channels_first),
    }
    lines = ["| library | CPU ms |", "|---|--:|"]
    return [*lines, *(f"| {name} | {cpu_ms(way, repetitions=4 * repetitions):.2f} |" for name, way in ways.items())]


class StepClock(keras.callbacks.Callback):
    """Times the steps of an epoch but the first, in which Keras traces its graph and fills its queue."""

    def __init__(self):
        super().__init__()
        self.taken: list[tuple[float, float]] = []

    def on_train_batch_begin(self, batch, logs=None):
        self.started = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter(), time.process_time()
        if batch > 0:
            self.taken.append((now[0] - self.started[0], now[1] - self.started[1]))

    def medians(self) -> dict[str, float]:
        """Seconds a step."""
        wall, cpu = (statistics.median(kind) for kind in zip(*self.taken, strict=True))
        return {"wall": wall, "cpu": cpu}


def step_table(repetitions: int, steps: int, num_threads: int) -> tuple[list[str], dict[bool, dict[str, float]]]:
    """Steps of the default U-Net with and without augmentation, in turn; the least ms a slice, wall and CPU."""
    settings = TrainSettings()
    runtime.configure(num_threads=num_threads, precision=settings.precision)
    runtime.seed_everything(settings.seed)
    model = models.build(settings)
    model.compile(optimizer="adam", loss=make_loss(settings), jit_compile=runtime.jit_compile())
    images, labels = soft_noise(NUM_SLICES)
    slices = SliceArrays(grey=(255 * images[..., 0]).astype(np.uint8), labels=labels, cases=("a",) * NUM_SLICES)
    augment = Augmentation(settings, seed=settings.seed)

    def epoch(augmented: bool, num_steps: int) -> dict[str, float]:
        loader = ShuffledBatches(
            slices,
            batch_size=settings.batch_size,
            steps_per_epoch=num_steps,
            seed=settings.seed,
            augment=augment if augmented else None,
        )
        clock = StepClock()
        model.fit(runtime.feed(loader), verbose=0, shuffle=False, callbacks=[clock])
        return {name: 1000 * seconds / settings.batch_size for name, seconds in clock.medians().items()}

    taken: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for repetition in range(repetitions):
        for augmented in (False, True) if repetition % 2 else (True, False):
            taken[augmented].append(epoch(augmented, steps))
    least = {
        augmented: {kind: min(one[kind] for one in all_of_them) for kind in ("wall", "cpu")}
        for augmented, all_of_them in taken.items()
    }
    heading = f"steps of the default U-Net, {num_threads or 'all'} thread(s)"
    lines = [f"| {heading} | a slice, ms | a slice, CPU ms |", "|---|--:|--:|"]
    for augmented, title in ((False, "without augmentation"), (True, "with augmentation")):
        lines.append(f"| {title} | {least[augmented]['wall']:.0f} | {least[augmented]['cpu']:.0f} |")
    return lines, least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of an epoch, at least 2")
    parser.add_argument("--num_threads", type=int, default=1, help="of the steps; 0: one a core")
    arguments = parser.parse_args()
    about = f"{machine.of_page(PACKAGES)}; Keras on {keras.backend.backend()}"
    busy = os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)
    torch.set_num_threads(1)
    changes, default_ms = change_table(arguments.repetitions)
    libraries = library_table(arguments.repetitions)
    steps, least = step_table(arguments.repetitions, arguments.steps, arguments.num_threads)
    share = default_ms / least[False]["cpu"]
    longer = least[True]["wall"] / least[False]["wall"] - 1
    lines = ["# Augmentation beside the training step", "", *__doc__.splitlines()[2:], "", f"{about}.", ""]
    lines += [BUSY, ""] if busy else []
    lines += [
        f"Augmentation takes {default_ms:.1f} CPU ms a slice, **{share:.1%}** of the CPU time of a step "
        f"(allowed: {ALLOWED:.0%}); steps with it take {longer:+.1%} of the time of steps without.",
        "",
        *(*steps, "", *changes, "", *libraries),
    ]
    text = "\n".join(lines) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
