"""Images a second in training and prediction: this package, plain PyTorch, MONAI's BasicUNet, exported runtimes.

    pip install -e .[engines]
    python experiments/benchmarks/throughput.py                      # on this processor, writes throughput.md
    python experiments/benchmarks/throughput.py --device cuda        # on a GPU, writes throughput-cuda.md

Every measurement is a fresh process, the ways take turns in each round, and the table gives medians over all rounds,
so that whatever else the machine does strikes all of them. Each process warms up, then counts steps on one batch
for some seconds; reading data is not measured here (`loader.py` does). Training is forward, loss (Dice +
cross-entropy), backward and an Adam step. bfloat16 is measured where the processor or the GPU computes in it, and
left out elsewhere. OpenVINO and ONNX Runtime get the package's model by `keras.Model.export`; their label maps are
held against TensorFlow's on squares in noise, which the model was trained on for a minute: untrained, it would toss
coins.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np

WARM_UP_STEPS = 3
PACKAGES = ("tensorflow", "keras", "torch", "jax", "monai", "openvino", "onnxruntime")


class Way(NamedTuple):
    """One thing to measure: whose network, in what, at which precision."""

    name: str
    engine: str
    precision: str
    device: str
    training: bool = True

    @property
    def key(self) -> str:
        return f"{self.engine}-{self.precision}"


WAYS = [
    Way("kits_ml U-Net, TensorFlow", "keras-tensorflow", "float32", "cpu"),
    Way("kits_ml U-Net, TensorFlow", "keras-tensorflow", "bfloat16", "cpu"),
    Way("PyTorch U-Net, channels last", "torch-unet", "float32", "cpu"),
    Way("PyTorch U-Net, channels last", "torch-unet", "bfloat16", "cpu"),
    Way("MONAI BasicUNet, channels last", "torch-basic", "float32", "cpu"),
    Way("MONAI BasicUNet, channels last", "torch-basic", "bfloat16", "cpu"),
    Way("kits_ml U-Net, OpenVINO", "openvino", "float32", "cpu", training=False),
    Way("kits_ml U-Net, OpenVINO", "openvino", "bfloat16", "cpu", training=False),
    Way("kits_ml U-Net, ONNX Runtime", "onnxruntime", "float32", "cpu", training=False),
    Way("kits_ml U-Net, JAX", "keras-jax", "float32", "cuda"),
    Way("kits_ml U-Net, JAX", "keras-jax", "bfloat16", "cuda"),
    Way("kits_ml U-Net, PyTorch", "keras-torch", "float32", "cuda"),
    Way("kits_ml U-Net, PyTorch", "keras-torch", "bfloat16", "cuda"),
    Way("PyTorch U-Net, channels last", "torch-unet", "float32", "cuda"),
    Way("PyTorch U-Net, channels last", "torch-unet", "bfloat16", "cuda"),
    Way("PyTorch U-Net, channels last, compiled", "torch-compiled", "bfloat16", "cuda"),
]


def squares(num_slices: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares in noise: `(slices, size, size, 1)` in [0, 1], and their labels."""
    rng = np.random.default_rng(0)
    labels = np.zeros((num_slices, size, size), np.uint8)
    for one in labels:
        row, column = rng.integers(0, size // 2, 2)
        one[row : row + size // 3, column : column + size // 3] = 1
        one[row + size // 12 : row + size // 5, column + size // 12 : column + size // 5] = 2
    image = 0.3 + 0.2 * labels + rng.normal(0, 0.05, labels.shape)
    return np.clip(image, 0, 1).astype(np.float32)[..., None], labels


def images_per_second(step: Callable[[], object], *, batch_size: int, seconds: float) -> float:
    """Counts steps after a warm-up; `step` ends when its work has ended."""
    for _ in range(WARM_UP_STEPS):
        step()
    start, num_steps = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        step()
        num_steps += 1
    return batch_size * num_steps / taken


def keras_model(options: argparse.Namespace, precision: str):
    """The package's U-Net, compiled as `fit` compiles it."""
    from kits_ml import runtime

    runtime.configure(precision="float32" if options.device == "cuda" else precision)  # before anything imports keras
    import keras

    from kits_ml import models
    from kits_ml.config import TrainSettings
    from kits_ml.training.losses import make_loss

    if options.device == "cuda" and precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    runtime.seed_everything(0)
    settings = TrainSettings(image_size=options.image_size, base_filters=options.base_filters)
    model = models.build(settings)
    model.compile(optimizer=keras.optimizers.Adam(), loss=make_loss(settings), jit_compile=runtime.jit_compile())
    return model


def keras_steps(options: argparse.Namespace, precision: str) -> dict[str, Callable[[], object]]:
    model = keras_model(options, precision)
    image, labels = squares(options.batch_size, options.image_size)
    return {
        "training": lambda: float(model.train_on_batch(image, labels)),
        "prediction": lambda: np.asarray(model.predict_on_batch(image)),
    }


def torch_steps(options: argparse.Namespace, precision: str, network: str) -> dict[str, Callable[[], object]]:
    """Plain PyTorch: channels last, and bfloat16 by autocast."""
    import torch
    from torch_unet import TorchUNet, dice_crossentropy

    torch.manual_seed(0)
    model = basic_unet() if network == "basic" else TorchUNet(base_filters=options.base_filters)
    model = model.to(options.device, memory_format=torch.channels_last)
    run = torch.compile(model) if network == "compiled" else model
    optimizer = torch.optim.Adam(model.parameters())
    image, labels = squares(options.batch_size, options.image_size)
    image = torch.from_numpy(image).movedim(-1, 1).to(options.device, memory_format=torch.channels_last)
    labels = torch.from_numpy(labels).long().to(options.device)
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=precision == "bfloat16")

    def train() -> float:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = run(image)
        loss = dice_crossentropy(logits, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def predict() -> np.ndarray:
        model.eval()
        with torch.inference_mode(), autocast:
            return run(image).float().softmax(dim=1).cpu().numpy()

    return {"training": train, "prediction": predict}


def basic_unet():
    """MONAI's default features, in 2-D."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(16, 32, 64, 128, 256, 16))


def exported_steps(options: argparse.Namespace, precision: str, engine: str) -> dict[str, Callable[[], object]]:
    """The package's model, trained for a minute, exported; prediction only."""
    import keras

    model, weights = keras_model(options, "float32"), trained_weights(options)
    model.set_weights(weights)
    image, _ = squares(options.batch_size, options.image_size)
    signature = [keras.InputSpec(shape=image.shape, dtype="float32")]
    with tempfile.TemporaryDirectory() as folder:
        if engine == "openvino":
            predict = openvino_model(model, Path(folder) / "model.xml", signature, precision)
        else:
            predict = onnx_model(model, Path(folder) / "model.onnx", signature)
    expected = np.asarray(model.predict_on_batch(image)).argmax(-1)
    same = float((predict(image).argmax(-1) == expected).mean())
    return {"prediction": lambda: predict(image), "same": lambda: same}


def openvino_model(model, path: Path, signature: list, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    model.export(str(path), format="openvino", verbose=False, input_signature=signature)
    hint = "bf16" if precision == "bfloat16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_cores()}
    request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()
    return lambda image: request.infer({0: image})[0]


def onnx_model(model, path: Path, signature: list) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    model.export(str(path), format="onnx", verbose=False, input_signature=signature)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_cores()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def trained_weights(options: argparse.Namespace) -> list[np.ndarray]:
    """Weights of the same network, trained on small squares: they fit any image size."""
    import keras

    small = argparse.Namespace(**{**vars(options), "image_size": 64})
    model = keras_model(small, "float32")
    image, labels = squares(64, 64)
    for step in range(120):
        chosen = np.arange(8 * step, 8 * step + 8) % len(image)
        model.train_on_batch(image[chosen], labels[chosen])
    weights = model.get_weights()
    keras.backend.clear_session()
    return weights


def measure(way: Way, options: argparse.Namespace) -> dict[str, float]:
    """One way in this process."""
    family, _, network = way.engine.partition("-")
    if family == "keras":
        steps = keras_steps(options, way.precision)
    elif family == "torch":
        steps = torch_steps(options, way.precision, network)
    else:
        steps = exported_steps(options, way.precision, way.engine)
    same = steps.pop("same", None)
    found = {
        task: images_per_second(step, batch_size=options.batch_size, seconds=options.seconds)
        for task, step in steps.items()
    }
    return found | ({"same": same()} if same else {})


def in_a_process(way: Way, options: argparse.Namespace) -> dict[str, float]:
    backend = way.engine.partition("-")[2] if way.engine.startswith("keras") else "tensorflow"
    command = [sys.executable, "-W", "ignore", __file__, "--way", way.key, "--device", options.device]
    for name in ("image_size", "base_filters", "batch_size", "seconds"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way.key}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def chosen_ways(device: str, engines: str | None) -> list[Way]:
    """The ways of a device, less bfloat16 where nothing computes in it."""
    from kits_ml import runtime

    bfloat16 = device == "cuda" or runtime.has_bfloat16()
    return [
        way
        for way in WAYS
        if way.device == device
        and (bfloat16 or way.precision == "float32")
        and (engines is None or way.engine in engines.split(","))
    ]


def num_cores() -> int:
    return len(os.sched_getaffinity(0))


def report(ways: list[Way], rounds: dict[str, list[dict[str, float]]]) -> str:
    """The page: medians, and each as a share of plain PyTorch's at the same precision."""

    def median(key: str, task: str) -> float | None:
        found = [one[task] for one in rounds[key] if task in one]
        return statistics.median(found) if found else None

    lines = ["| | precision | training | of PyTorch's | prediction | of PyTorch's | label maps equal |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    for way in ways:
        cells = [way.name, way.precision]
        for task in ("training", "prediction"):
            own, reference = median(way.key, task), median(f"torch-unet-{way.precision}", task)
            cells += [f"{own:.2f}" if own else "", f"{own / reference:.2f}" if own and reference else ""]
        same = median(way.key, "same")
        lines.append("| " + " | ".join([*cells, f"{same:.4%}" if same is not None else ""]) + " |")
    return "\n".join(lines)


def page(table: str, options: argparse.Namespace, about: str) -> str:
    from kits_ml import runtime

    device = f"{gpu_name()}; " if options.device == "cuda" else ""
    slow = options.device == "cpu" and not runtime.has_bfloat16()
    return "\n\n".join(
        [
            "# Throughput",
            *__doc__.strip().split("\n\n")[1:],
            f"{device}{about}." + (" The processor has no AVX512-BF16: float32 alone." if slow else ""),
            f"U-Net, {options.base_filters} filters, depth 4, {options.image_size}x{options.image_size}, batch "
            f"{options.batch_size}; images a second, medians of {options.rounds} rounds of {options.seconds:g} s:",
            table + "\n",
        ]
    )


def gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--engines", help="only these, such as keras-tensorflow,torch-unet")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--base_filters", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    ways = chosen_ways(options.device, options.engines)
    if options.way:
        (way,) = [one for one in ways if one.key == options.way]
        print(json.dumps(measure(way, options)))
        return
    about = machine.describe(PACKAGES)
    rounds: dict[str, list[dict[str, float]]] = {way.key: [] for way in ways}
    for number in range(options.rounds):
        for way in ways:
            found = in_a_process(way, options)
            rounds[way.key].append(found)
            print(f"round {number + 1}, {way.key}: {found}", file=sys.stderr)
    suffix = "" if options.device == "cpu" else f"-{options.device}"
    output = options.output or Path(__file__).with_name(f"throughput{suffix}.md")
    output.write_text(page(report(ways, rounds), options, about))
    print(output)


if __name__ == "__main__":
    main()
