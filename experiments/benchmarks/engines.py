"""What `throughput.py` measures: calls that train or predict one batch, of this package's U-Net and of others."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Task(NamedTuple):
    """What is done again and again: a call handles so many images, and ends when its work has ended."""

    call: Callable[[], object]
    num_images: int


def tasks_of(engine: str, precision: str, options: argparse.Namespace) -> dict[str, Task]:
    """By name, `training` (not of exported models) and `prediction`."""
    family, _, network = engine.partition("-")
    if family == "keras":
        return keras_tasks(options, precision)
    if family == "torch":
        return torch_tasks(options, precision, network)
    return exported_tasks(options, precision, engine)


def keras_tasks(options: argparse.Namespace, precision: str) -> dict[str, Task]:
    from kits_ml import runtime
    from kits_ml.inference.engines import for_prediction

    model = keras_model(options, precision)
    network = for_prediction(model)
    image, labels = squares(options.batch_size, options.image_size)
    batches = runtime.feed(one_batch_again(image, labels, options.steps_per_call))
    watching = at_each_step(options.steps_per_call)

    def train() -> None:
        model.fit(batches, verbose=0, callbacks=watching)

    return {
        "training": Task(train, options.steps_per_call * options.batch_size),
        "prediction": Task(lambda: np.asarray(network.predict_on_batch(image)), options.batch_size),
    }


def keras_model(options: argparse.Namespace, precision: str):
    """The package's U-Net, compiled as `fit` compiles it."""
    from kits_ml import runtime

    runtime.configure(precision=precision)  # before anything imports keras
    import keras

    from kits_ml import models
    from kits_ml.config import TrainSettings
    from kits_ml.training.losses import make_loss

    runtime.seed_everything(0)
    settings = TrainSettings(image_size=options.image_size, base_filters=options.base_filters)
    model = models.build(settings)
    model.compile(optimizer=keras.optimizers.Adam(), loss=make_loss(settings), jit_compile=runtime.jit_compile())
    return model


def at_each_step(num_steps: int) -> list:
    """What the package does at each step of a training: it sets the learning rate, and looks at clock and loss."""
    from kits_ml.config import TrainSettings
    from kits_ml.training.budget import make_budget
    from kits_ml.training.callbacks import StopOnBadLoss

    settings = TrainSettings(epochs=2, steps_per_epoch=num_steps)  # of two, so that none ends the training
    return [StopOnBadLoss(first_step=0), make_budget(settings)]


def one_batch_again(image: np.ndarray, labels: np.ndarray, num_steps: int):
    """An epoch of some steps, for `keras.Model.fit`."""
    import keras

    class OneBatch(keras.utils.PyDataset):
        num_batches = num_steps

        def __getitem__(self, index):
            return image, labels

    return OneBatch()


def torch_tasks(options: argparse.Namespace, precision: str, network: str) -> dict[str, Task]:
    """Plain PyTorch: channels last, and bfloat16 by autocast."""
    import torch
    from torch_unet import TorchUNet, dice_crossentropy, folded

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    model = basic_unet() if network == "basic" else TorchUNet(base_filters=options.base_filters)
    model = model.to(options.device, memory_format=torch.channels_last)
    predicting = model if network == "basic" else folded(model)
    run, run_predicting = map(torch.compile if network == "compiled" else lambda same: same, (model, predicting))
    optimizer = torch.optim.Adam(model.parameters())
    image, labels = squares(options.batch_size, options.image_size)
    image, labels = torch.from_numpy(image).movedim(-1, 1), torch.from_numpy(labels)
    if options.device == "cuda":
        image, labels = image.pin_memory(), labels.pin_memory()
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=precision == "bfloat16")

    def on_device() -> torch.Tensor:
        return image.to(options.device, memory_format=torch.channels_last, non_blocking=True)

    def train() -> float:
        model.train()
        for _ in range(options.steps_per_call):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = run(on_device())
            loss = dice_crossentropy(logits, labels.to(options.device, non_blocking=True).long())
            loss.backward()
            optimizer.step()
        return float(loss.detach())  # waits for the device

    def predict() -> np.ndarray:
        predicting.eval()
        with torch.inference_mode(), autocast:
            return run_predicting(on_device()).float().softmax(dim=1).cpu().numpy()

    return {
        "training": Task(train, options.steps_per_call * options.batch_size),
        "prediction": Task(predict, options.batch_size),
    }


def basic_unet():
    """MONAI's default features, in 2-D."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)


def exported_tasks(options: argparse.Namespace, precision: str, engine: str) -> dict[str, Task]:
    """The package's model, trained for a minute, exported; prediction only."""
    import keras

    from kits_ml.inference.engines import for_prediction

    model, weights = keras_model(options, "float32"), trained_weights(options)
    model.set_weights(weights)
    model = for_prediction(model)
    image, _ = squares(options.batch_size, options.image_size)
    signature = [keras.InputSpec(shape=image.shape, dtype="float32")]
    with tempfile.TemporaryDirectory() as folder:
        if engine == "openvino":
            predict = openvino_model(model, Path(folder) / "model.xml", signature, precision)
        else:
            predict = onnx_model(model, Path(folder) / "model.onnx", signature)
    expected = np.asarray(model.predict_on_batch(image)).argmax(-1)
    same = float((predict(image).argmax(-1) == expected).mean())
    print(json.dumps({"same": same}))
    return {"prediction": Task(lambda: predict(image), options.batch_size)}


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


def num_cores() -> int:
    return len(os.sched_getaffinity(0))
