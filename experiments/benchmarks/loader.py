"""How fast the loader gives batches, beside what the default U-Net takes.

    python experiments/benchmarks/loader.py

makes a synthetic store of 3,000 slices of 256 x 256 (its PNGs are hard links to a few), decodes it, and writes
`experiments/benchmarks/loader.md`; it takes about three minutes. All is measured in one process and in turns, so that
whatever else the machine does strikes all of it: the loader alone (batches of 8, no augmentation, every `sampling`,
from the page cache, and after the system was asked to drop the cache file's pages), and the default U-Net
(16 filters, depth 4, batches of 8) training and predicting on TensorFlow. The median of several rounds counts, in
brackets the best. Images a CPU second, of all threads together, say what is left of it on a machine that others use.
The loader is to deliver at least 20 times what training takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULT = Path(__file__).with_suffix(".md")
WANTED = 20
BATCH_SIZE = 8
NUM_PICTURES = 64
PACKAGES = ("numpy", "keras", "tensorflow", "pillow")
BUSY = (
    "**Others used the machine meanwhile**: the network, which wants every core, suffers more of it than the loader, "
    "so the ratios are too large."
)


def synthetic_store(folder: Path, *, num_cases: int, slices_per_case: int, image_size: int = 256):
    """A finished store that takes little room: PNGs are hard links to a few.

    Grey values and labels of slice `n` of the store depend on `n % 64` alone: its corner pixel is that number, and it
    shows nothing where `n % 4` is 0 or 1, a kidney where it is 2, and kidney and tumour where it is 3.

    Args:
        folder: the store's, to be made.
        num_cases, slices_per_case: of the store.
        image_size: rows and columns, at least 16.

    Returns:
        The opened `PreparedStore`.
    """
    from kits_ml import files
    from kits_ml.config import PreprocessingSettings
    from kits_ml.data import png, slices

    size = image_size
    settings = PreprocessingSettings(image_size=size)
    grey = (np.random.default_rng(0).normal(110, 12, (NUM_PICTURES, size, size))).clip(0, 255).astype(np.uint8)
    grey[:, : size // 4] = grey[:, -size // 4 :] = 0  # air, so that the PNGs are as large as those of a CT
    grey[:, 0, 0] = np.arange(NUM_PICTURES)
    labels = np.zeros((4, size, size), np.uint8)
    labels[2:, size // 4 : size // 2, : size // 4] = 1
    labels[3, size // 4 : size // 4 + 2, :2] = 2
    pixels = slices.pixels_per_class(labels)
    pictures = {"images": grey, "labels": labels}
    names = [f"case_{number:05d}" for number in range(num_cases)]
    for kind, arrays in pictures.items():
        sources = [folder / f"sources/{kind}-{number}.png" for number in range(len(arrays))]
        for path, array in zip(sources, arrays, strict=True):
            files.write_bytes(path, png.encode(array))
        for case, name in enumerate(names):
            (folder / kind / name).mkdir(parents=True)
            for number in range(slices_per_case):
                source = sources[(case * slices_per_case + number) % len(arrays)]
                _link(source, folder / kind / name / f"{number:04d}.png")
    for case, name in enumerate(names):
        numbers = range(case * slices_per_case, (case + 1) * slices_per_case)
        record = {"case": name, "input_digest": name, "pixels": [pixels[number % 4] for number in numbers]}
        files.write_json(folder / "cases" / f"{name}.json", record | {"spacing_mm": [3.0, 0.8, 0.8]})
    return slices.finish_store(folder, names, settings)


def _link(source: Path, target: Path) -> None:
    """A hard link; a copy takes the source's place once it has as many links as the file system allows."""
    try:
        os.link(source, target)
    except OSError:
        fresh = source.with_suffix(".fresh")
        fresh.write_bytes(source.read_bytes())
        fresh.replace(source)
        os.link(source, target)


def rate(run: Callable[[int], object], *, seconds: float) -> tuple[float, float]:
    """Images a second, and images a CPU second, of calls with step numbers, after one to warm up."""
    run(0)
    start, start_cpu, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        steps += 1
        run(steps)
    images = steps * BATCH_SIZE
    return images / (time.perf_counter() - start), images / (time.process_time() - start_cpu)


def cold_rate(folder: Path) -> tuple[float, float]:
    """Images a second, and a CPU second, of one pass over all slices, the cache files' pages dropped before.

    The system drops only pages that no process has mapped, so this must be a process of its own.
    """
    from kits_ml.data.slices import PreparedStore
    from kits_ml.training import batches

    store = PreparedStore.open(folder)
    for path in (folder / "cache").glob("*/*.npy"):
        with path.open("r+b") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    slices = batches.read_slices(store, list(store.case_digests))
    steps = len(slices) // BATCH_SIZE
    loader = batches.ShuffledBatches(slices, batch_size=BATCH_SIZE, steps_per_epoch=steps, seed=0)
    start, start_cpu = time.perf_counter(), time.process_time()
    for step in range(steps):
        loader.batch(step)
    images = steps * BATCH_SIZE
    return images / (time.perf_counter() - start), images / (time.process_time() - start_cpu)


def measure(store, *, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Images a second and a CPU second of each way, a number a round."""
    from kits_ml import models, runtime
    from kits_ml.config import TrainSettings
    from kits_ml.training import batches, sampling
    from kits_ml.training.losses import make_loss

    command = [sys.executable, __file__, "--cold", str(store.folder)]
    cold = [tuple(json.loads(subprocess.check_output(command))) for _ in range(rounds)]
    settings = TrainSettings(batch_size=BATCH_SIZE, augmentation=False)
    runtime.configure(num_threads=settings.num_threads, precision=settings.precision)
    slices = batches.read_slices(store, list(store.case_digests))
    model = models.build(settings)
    model.compile(optimizer="adam", loss=make_loss(settings), jit_compile=runtime.jit_compile())
    ways: dict[str, Callable[[int], object]] = {}
    for name in sampling.SAMPLINGS:
        ways[f"loader, {name}"] = sampling.make_batches(slices, dataclasses.replace(settings, sampling=name)).batch
    images, labels = ways["loader, shuffled"](0)
    ways["U-Net, training"] = lambda _: model.train_on_batch(images, labels)
    ways["U-Net, predicting"] = lambda _: model.predict_on_batch(images)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, run in ways.items():
            found[name].append(rate(run, seconds=8 if "U-Net" in name else 2))
            print(f"{number} {name}: {found[name][-1]} images a second, a CPU second", file=sys.stderr)
    return {**found, "loader, shuffled, pages dropped": cold}


def table(found: dict[str, list[tuple[float, float]]]) -> list[str]:
    """A line a way, and whether the loader is fast enough."""
    middle = {name: [statistics.median(one) for one in zip(*rates, strict=True)] for name, rates in found.items()}
    training = middle["U-Net, training"]
    lines = [
        "| way | images a second | times training | images a CPU second | times training |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, rates in found.items():
        best = [max(one) for one in zip(*rates, strict=True)]
        cells = [
            f"{rate:,.1f} ({most:,.1f}) | {rate / base:,.0f}"
            for rate, most, base in zip(middle[name], best, training, strict=True)
        ]
        lines.append(" | ".join([f"| {name}", *cells]) + " |")
    times = min(
        rate / base
        for name, rates in middle.items()
        if name.startswith("loader")
        for rate, base in zip(rates, training, strict=True)
    )
    verdict = "enough" if times >= WANTED else "NOT ENOUGH"
    return [*lines, "", f"The least of these ratios is {times:,.0f}; {WANTED} are wanted: {verdict}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(cold_rate(Path(arguments.cold))))
        return
    import machine  # beside this script; tests import it from elsewhere

    about = machine.of_page(PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        from kits_ml.data.slice_cache import open_cache

        store = synthetic_store(Path(folder) / "store", num_cases=30, slices_per_case=100)
        start = time.perf_counter()
        open_cache(store)
        decoded = len(store.index) / (time.perf_counter() - start)
        lines = table(measure(store, rounds=arguments.rounds))
    if os.getloadavg()[0] > 2.5 or float(about.split("load ")[1].split()[0]) > 1.5:
        lines = [BUSY, "", *lines]
    lines += ["", f"Decoding the PNGs, once: {decoded:,.0f} slices a second (grey values and labels)."]
    text = "\n".join(["# The loader", "", *__doc__.splitlines()[2:], "", f"{about}.", "", *lines]) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
