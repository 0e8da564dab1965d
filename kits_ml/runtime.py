"""The device, its threads and its precision: the only place that touches TensorFlow's, JAX's or PyTorch's settings.

Call `set_environment` before anything imports keras, and `configure` before a network runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import warnings
from pathlib import Path
from typing import Any


def set_environment() -> None:
    """Chooses TensorFlow where no Keras backend was chosen, and quiets it. Has no effect once keras is imported."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def configure(*, num_threads: int = 0, precision: str = "auto") -> None:
    """Prepares the process for a network. Once TensorFlow runs, its thread counts stay as they were first set.

    Args:
        num_threads: threads of one operation; 0 means one a core.
        precision: `auto` computes convolutions in bfloat16 where the processor has it, `bfloat16` always,
            `float32` never. Weights and everything else stay float32.
    """
    set_environment()
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        _configure_tensorflow(num_threads, precision)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and Keras (and through it the backend)."""
    import keras
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    keras.utils.set_random_seed(seed)


def jit_compile() -> bool | str:
    """What `Model.compile` should get: no XLA on a CPU with TensorFlow, where it halves the speed."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


@functools.cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX), as Linux tells it."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's own, TensorFlow's, PyTorch's or XLA's."""
    name, message = type(error).__name__, str(error).lower()
    return (
        isinstance(error, MemoryError)
        or name in ("ResourceExhaustedError", "OutOfMemoryError")
        or "resource_exhausted" in message
        or (isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message))
    )


def free_memory() -> None:
    """Lets go of what Keras keeps of earlier models, between two trainings of one process."""
    import keras

    keras.utils.clear_session(free_memory=True)


def describe() -> dict[str, Any]:
    """Backend, devices and precision, for `kits-ml info` and for the record of a run."""
    import keras

    devices = keras.distribution.list_devices() if keras.backend.backend() != "torch" else ["cpu"]
    return {
        "keras_backend": keras.backend.backend(),
        "keras_version": keras.__version__,
        "devices": ", ".join(devices),
        "cpu_count": os.cpu_count(),
        "cpu_bfloat16": has_bfloat16(),
    }


def _configure_tensorflow(num_threads: int, precision: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations while importing
        import tensorflow as tf

    if num_threads:
        with contextlib.suppress(RuntimeError):  # TensorFlow is already running
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    use_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16())
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": use_bfloat16})
