"""Images a second in training and prediction: this package, plain PyTorch, MONAI's BasicUNet, exported runtimes.

    pip install -e .[engines]
    python experiments/benchmarks/throughput.py                      # on this processor, writes throughput.md
    python experiments/benchmarks/throughput.py --device cuda \\
        --base_filters 32,64 --image_size 256,512                    # on a GPU, writes throughput-cuda.md

Every measurement is a fresh process, the ways take turns in each round, and the table gives medians over all rounds,
so that whatever else the machine does strikes all of them. Each process warms up, then trains and predicts one batch
again and again for some seconds; reading data is not measured here (`loader.py` does). Training is forward, loss
(Dice + cross-entropy), backward and an Adam step: this package by `keras.Model.fit` with what it does at each step of
a training (learning rate, clock, a look at the loss); PyTorch by a loop, without. For prediction batch normalisation
is folded into the convolutions, in the package's U-Net and in its PyTorch twin. The batch comes from the host's
memory in each step, and predictions go back there. bfloat16 is measured where the processor or the GPU computes in
it, and left out elsewhere. OpenVINO and ONNX Runtime get the package's model by `keras.Model.export`; their label
maps are held against TensorFlow's on squares in noise, which the model was trained on for a minute: untrained, it
would toss coins. On a GPU several processes start and compile at the same time (`--together`), and then measure one
after another.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import machine
from engines import Task, tasks_of

WARM_UPS = 2
PACKAGES = ("tensorflow", "keras", "torch", "jax", "monai", "openvino", "onnxruntime")
READY = "ready"  # a process prints it when it has warmed up
NOTES = "<!-- notes: what stands below stays when it is measured again -->"


class Way(NamedTuple):
    """One thing to measure: whose network, in what, at which precision."""

    name: str
    engine: str
    precision: str
    device: str

    @property
    def key(self) -> str:
        return f"{self.engine}-{self.precision}"


class Size(NamedTuple):
    """Of the network and of its images."""

    base_filters: int
    image_size: int


class Job(NamedTuple):
    """A way at a size: what a process measures."""

    size: Size
    way: Way


#: Images a second, by task, and what else a process prints.
Found = dict[str, float]


WAYS = [
    Way("kits_ml U-Net, TensorFlow", "keras-tensorflow", "float32", "cpu"),
    Way("kits_ml U-Net, TensorFlow", "keras-tensorflow", "bfloat16", "cpu"),
    Way("PyTorch U-Net, channels last", "torch-unet", "float32", "cpu"),
    Way("PyTorch U-Net, channels last", "torch-unet", "bfloat16", "cpu"),
    Way("PyTorch U-Net, channels last, compiled", "torch-compiled", "float32", "cpu"),
    Way("PyTorch U-Net, channels last, compiled", "torch-compiled", "bfloat16", "cpu"),
    Way("MONAI BasicUNet, channels last", "torch-basic", "float32", "cpu"),
    Way("MONAI BasicUNet, channels last", "torch-basic", "bfloat16", "cpu"),
    Way("kits_ml U-Net, OpenVINO", "openvino", "float32", "cpu"),
    Way("kits_ml U-Net, OpenVINO", "openvino", "bfloat16", "cpu"),
    Way("kits_ml U-Net, ONNX Runtime", "onnxruntime", "float32", "cpu"),
    Way("kits_ml U-Net, JAX", "keras-jax", "float32", "cuda"),
    Way("kits_ml U-Net, JAX", "keras-jax", "bfloat16", "cuda"),
    Way("kits_ml U-Net, PyTorch", "keras-torch", "float32", "cuda"),
    Way("kits_ml U-Net, PyTorch", "keras-torch", "bfloat16", "cuda"),
    Way("PyTorch U-Net, channels last", "torch-unet", "float32", "cuda"),
    Way("PyTorch U-Net, channels last", "torch-unet", "bfloat16", "cuda"),
    Way("PyTorch U-Net, channels last, compiled", "torch-compiled", "bfloat16", "cuda"),
]


def images_per_second(task: Task, *, seconds: float) -> float:
    """Counts calls for some seconds."""
    start, num_calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        task.call()
        num_calls += 1
    return task.num_images * num_calls / taken


def measure(way: Way, options: argparse.Namespace) -> None:
    """One way in this process: warms up, waits for a line, then prints what it measures."""
    tasks = tasks_of(way.engine, way.precision, options)
    for task, _ in itertools.product(tasks.values(), range(WARM_UPS)):
        task.call()
    print(READY, flush=True)
    sys.stdin.readline()
    for name, task in tasks.items():
        print(json.dumps({name: images_per_second(task, seconds=options.seconds)}), flush=True)


def start(job: Job, options: argparse.Namespace) -> subprocess.Popen:
    """A process that will measure."""
    backend = job.way.engine.partition("-")[2] if job.way.engine.startswith("keras") else "tensorflow"
    command = [sys.executable, "-W", "ignore", __file__, "--way", job.way.key, "--device", options.device]
    for name, value in {**job.size._asdict(), "batch_size": options.batch_size, "seconds": options.seconds}.items():
        command += [f"--{name}", str(value)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # others are on the GPU too
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def measure_together(jobs: Sequence[Job], options: argparse.Namespace) -> dict[Job, Found]:
    """Starts the jobs at the same time and, when all are ready, has them measure one after another."""
    processes = {job: start(job, options) for job in jobs}
    found: dict[Job, Found] = {job: {} for job in jobs}
    for job, process in processes.items():
        while (line := process.stdout.readline()) and line.strip() != READY:
            found[job] |= _measured(line)
        if not line:
            sys.exit(f"{job}: failed, see above")
    for job, process in processes.items():
        output, _ = process.communicate("go\n")
        if process.returncode:
            sys.exit(f"{job}: failed, see above")
        for line in output.splitlines():
            found[job] |= _measured(line)
        print(f"{job.size}, {job.way.key}: {found[job]}", file=sys.stderr)
    return found


def _measured(line: str) -> Found:
    return json.loads(line) if line.startswith("{") else {}


def chosen_ways(options: argparse.Namespace) -> list[Way]:
    """The ways of a device that are asked for, less bfloat16 where nothing computes in it."""
    from kits_ml import runtime

    bfloat16 = options.device == "cuda" or runtime.has_bfloat16()
    return [
        way
        for way in WAYS
        if way.device == options.device
        and (bfloat16 or way.precision == "float32")
        and options.precision in (None, way.precision)
        and (options.engines is None or way.engine in options.engines.split(","))
    ]


def table(size: Size, ways: list[Way], rounds: list[dict[Job, Found]], peak: float) -> str:
    """Medians, and each as a share of plain PyTorch's at the same precision, and of what the device can multiply."""

    def median(key: str, task: str) -> float | None:
        found = [
            found[task]
            for one in rounds
            for job, found in one.items()
            if job.size == size and job.way.key == key and task in found
        ]
        return statistics.median(found) if found else None

    last = "of the matrix peak, training" if peak else "label maps equal"
    lines = [f"| | precision | training | of PyTorch's | prediction | of PyTorch's | {last} |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    for way in ways:
        cells = [way.name, way.precision]
        for task in ("training", "prediction"):
            own, reference = median(way.key, task), median(f"torch-unet-{way.precision}", task)
            cells += [f"{own:.{0 if own > 100 else 2}f}" if own else ""]
            cells += [f"{own / reference:.2f}" if own and reference else ""]
        same, training = median(way.key, "same"), median(way.key, "training")
        if peak:
            cells.append(f"{training * 3 * tflops_of_image(size) / peak:.1%}" if way.precision == "bfloat16" else "")
        else:
            cells.append(f"{same:.4%}" if same is not None else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tflops_of_image(size: Size) -> float:
    """10^12 operations of one image forward; training, with the gradients of inputs and weights, is thrice that."""
    from kits_ml import models
    from kits_ml.config import TrainSettings
    from kits_ml.models import cost

    settings = TrainSettings(image_size=size.image_size, base_filters=size.base_filters)
    return cost.gflops(models.build(settings)) / 1e3


def matrix_peak() -> float:
    """10^12 operations a second of a bfloat16 product of matrices of 8192 rows, what the GPU reaches at its best."""
    import torch

    side, num_products = 8192, 20
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(num_products):
        left @ right
    torch.cuda.synchronize()
    return 2 * side**3 * num_products / (time.perf_counter() - start) / 1e12


def page(tables: dict[Size, str], options: argparse.Namespace, about: str, peak: float) -> str:
    from kits_ml import runtime

    on_gpu = f"{gpu_name()}, which multiplies bfloat16 matrices at {peak:.0f} TFLOP/s; " if peak else ""
    slow = not peak and not runtime.has_bfloat16()
    parts = [
        "# Throughput" + (" on a GPU" if peak else ""),
        *__doc__.strip().split("\n\n")[1:],
        f"{on_gpu}{about}." + (" The processor has no AVX512-BF16: float32 alone." if slow else ""),
    ]
    for size, rows in tables.items():
        parts += [
            f"U-Net, {size.base_filters} filters, depth 4, {size.image_size}x{size.image_size}, batch "
            f"{options.batch_size}; images a second, medians of {options.rounds} rounds of {options.seconds:g} s:",
            rows,
        ]
    return "\n\n".join(parts) + "\n"


def gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name()


def whole_numbers(given: str) -> list[int]:
    return [int(one) for one in given.split(",")]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--engines", help="only these, such as keras-tensorflow,torch-unet")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="only this")
    parser.add_argument("--image_size", type=whole_numbers, default=[256])
    parser.add_argument("--base_filters", type=whole_numbers, default=[16])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", type=int, help="processes that start at the same time; 1 on a CPU, 16 on a GPU")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    on_gpu = options.device == "cuda"
    options.steps_per_call = 50 if on_gpu else 5
    ways = chosen_ways(options)
    if options.way:
        (way,) = [one for one in ways if one.key == options.way]
        (options.base_filters,), (options.image_size,) = options.base_filters, options.image_size
        measure(way, options)
        return
    about, peak = machine.of_page(PACKAGES), matrix_peak() if on_gpu else 0.0
    sizes = list(itertools.starmap(Size, itertools.product(options.base_filters, options.image_size)))
    jobs = list(itertools.starmap(Job, itertools.product(sizes, ways)))
    together = options.together or (16 if on_gpu else 1)
    rounds: list[dict[Job, Found]] = []
    for _ in range(options.rounds):
        rounds.append({})
        for first in range(0, len(jobs), together):
            rounds[-1] |= measure_together(jobs[first : first + together], options)
    suffix = f"-{options.device}" if on_gpu else ""
    output = options.output or Path(__file__).with_name(f"throughput{suffix}.md")
    tables = {size: table(size, ways, rounds, peak) for size in sizes}
    _, mark, notes = output.read_text().partition(NOTES) if output.exists() else ("",) * 3
    output.write_text(page(tables, options, about, peak) + (f"\n{mark}{notes}" if mark else ""))
    print(output)


if __name__ == "__main__":
    main()
