"""What runs a trained network: Keras, or OpenVINO or ONNX Runtime on the ONNX file that lies beside it.

The other two start without Keras and TensorFlow, and OpenVINO is faster on a CPU (experiments/benchmarks).
"""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kits_ml import runtime
from kits_ml.errors import InputError, first_line

MODEL_FILE = "model.keras"
ONNX_FILE = "model.onnx"


class Network(Protocol):
    """What a predictor needs of a network."""

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """Prepared slices `(batch, size, size, input_slices)` float32 -> `(batch, size, size, classes)`."""


def load_network(folder: Path, *, engine: str, num_threads: int = 0) -> Network:
    """Loads a network to be run by an engine.

    Args:
        folder: with `model.keras`, and for the other engines `model.onnx`.
        engine: `keras`, or a name in `ONNX_ENGINES`.
        num_threads: 0 means one a core. Keras takes the process's, see `runtime.configure`, which is called first.

    Raises:
        InputError: an engine that is not installed, no ONNX file, or a file that the engine cannot read.
    """
    if engine == "keras":
        return _load_keras(folder / MODEL_FILE)
    path = folder / ONNX_FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {ONNX_FILE}, which engine {engine} runs; expected a model trained with --onnx true, "
            "or --engine keras"
        )
    try:
        return ONNX_ENGINES[engine](path, num_threads)
    except ImportError as error:
        raise InputError(f"engine {engine}: not installed; expected `pip install kits_ml[engines]`") from error
    except Exception as error:  # each engine has errors of its own
        raise InputError(f"{path}: {engine} cannot read it ({first_line(error)})") from error


def for_prediction(model: Any) -> Network:
    """What predicts: of a Keras model a copy with its normalisations in its convolutions, else the model itself."""
    keras = sys.modules.get("keras")  # not imported where another engine runs
    if keras is None or not isinstance(model, keras.Model):
        return model
    from kits_ml.models.folding import folded

    network = folded(model)
    network.compile(jit_compile=runtime.jit_compile())
    return network


class OpenVinoNetwork:
    """An ONNX network in OpenVINO, in bfloat16 where the processor computes in it, as Keras with `precision` auto.

    Args:
        path: the ONNX file.
        num_threads: 0 means one a core.
    """

    def __init__(self, path: Path, num_threads: int = 0):
        import openvino

        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if runtime.has_bfloat16() else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        self._request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """See `Network`."""
        return np.array(self._request.infer({0: batch})[0])  # the engine's own memory is written again


class OnnxRuntimeNetwork:
    """An ONNX network in ONNX Runtime on the CPU, in float32.

    Args:
        path: the ONNX file.
        num_threads: 0 means one a core.
    """

    def __init__(self, path: Path, num_threads: int = 0):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def predict_on_batch(self, batch: np.ndarray) -> np.ndarray:
        """See `Network`."""
        return self._session.run(None, {self._input: batch})[0]


def _load_keras(path: Path) -> Any:
    if path.is_file() and not zipfile.is_zipfile(path):  # of which Keras would say that it is not there
        raise InputError(f"{path}: found no Keras file or a part of one, expected a whole one; try `git lfs pull`")
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be loaded ({first_line(error)}); expected a model of Keras") from error


#: By name: what makes a network of an ONNX file and a number of threads.
ONNX_ENGINES: Mapping[str, Callable[[Path, int], Network]] = {
    "openvino": OpenVinoNetwork,
    "onnxruntime": OnnxRuntimeNetwork,
}
