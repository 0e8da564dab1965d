"""The device, its threads and its precision: the only place that touches TensorFlow's, JAX's or PyTorch's settings.

Call `set_environment` before anything imports keras, and `configure` before a network is built or runs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kits_ml import tensorflow_backend
from kits_ml.errors import InputError
from kits_ml.importing import quick_import

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]

#: From these compute capabilities on, NVIDIA's GPUs have matrix units for a precision.
GPU_BFLOAT16 = (8, 0)
GPU_FLOAT16 = (7, 0)
#: Beyond these, threads that make batches wait for each other more than they work.
MOST_LOADER_THREADS = 8


class Accelerator(NamedTuple):
    """What the networks of this process run on.

    Attributes:
        kind: of the devices.
        names: of the devices, as the backend calls them.
        capability: the lowest compute capability of the GPUs; (0, 0) where it is not known.
    """

    kind: Literal["cpu", "gpu", "tpu"]
    names: tuple[str, ...]
    capability: tuple[int, int] = (0, 0)


class _Configured(NamedTuple):
    precision: str = "not configured"
    num_devices: int = 1
    deterministic: bool = False
    strategy: Any = None


_configured = _Configured()


def set_environment() -> None:
    """Chooses TensorFlow where no Keras backend was chosen, and quiets it. Has no effect once keras is imported.

    TensorFlow takes oneDNN of itself only on processors with AVX512-VNNI; on one with AVX2 alone, training is half
    as fast again with it (experiments/benchmarks/throughput.md).
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def configure(
    *, num_threads: int = 0, precision: str = "auto", deterministic: bool = False, num_devices: int = 1
) -> None:
    """Prepares the process for a network.

    Once the backend runs, thread counts stay as they were first set, and determinism is never switched off again.

    Args:
        num_threads: threads of one operation; 0 means one a core. JAX takes all cores, whatever it is told.
        precision: see `resolve_precision`. Weights, probabilities, losses and scores stay float32. On a CPU
            TensorFlow computes convolutions, and what lies between them, in bfloat16; on a GPU all layers compute in
            half precision (Micikevicius et al. 2018, arXiv:1710.03740).
        deterministic: only operations that give the same bits each time.
        num_devices: devices that share a batch; 0 means all.

    Raises:
        InputError: what this device or backend cannot do.
    """
    global _configured
    set_environment()
    with warnings.catch_warnings(), quick_import():
        warnings.simplefilter("ignore")  # third-party deprecations while importing
        import keras
    backend = keras.backend.backend()
    if backend not in _DEVICES:
        raise InputError(f"KERAS_BACKEND: found {backend}, expected one of {', '.join(_DEVICES)}")
    if num_threads:
        _set_threads(backend, num_threads)
    if deterministic:
        _make_deterministic(backend)
    found = accelerator()
    resolved = resolve_precision(
        precision, backend=backend, kind=found.kind, capability=found.capability, cpu_bfloat16=has_bfloat16()
    )
    mixed = resolved != "float32" and found.kind != "cpu"
    keras.config.set_dtype_policy(f"mixed_{resolved}" if mixed else "float32")
    if backend == "tensorflow":
        _set_onednn(use_bfloat16=resolved == "bfloat16" and found.kind == "cpu")
        tensorflow_backend.use_fused_batch_normalization()
    names = _chosen(found, num_devices, backend=backend)
    _configured = _Configured(resolved, len(names), deterministic, _distribute(backend, names))


def resolve_precision(
    precision: str, *, backend: str, kind: str, capability: tuple[int, int], cpu_bfloat16: bool
) -> Precision:
    """The precision that a device computes in.

    Args:
        precision: `auto` or one by name. `auto` takes bfloat16 where the device has it and half precision is worth
            it (a CPU with TensorFlow, an NVIDIA GPU from Ampere on, a TPU), else float16 on an NVIDIA GPU from Volta
            on, else float32.
        backend: of Keras.
        kind: of the device, `cpu`, `gpu` or `tpu`.
        capability: the compute capability of a GPU.
        cpu_bfloat16: whether the processor multiplies bfloat16.

    Raises:
        InputError: float16 where there is no GPU, or bfloat16 on a CPU without TensorFlow.
    """
    if kind == "cpu":
        if precision == "float16":
            raise InputError("precision: found float16 on a CPU, expected auto, float32 or bfloat16")
        if backend != "tensorflow":
            if precision == "bfloat16":
                raise InputError(f"precision: found bfloat16 on a CPU with {backend}, expected auto or float32")
            return "float32"
        return "bfloat16" if precision == "bfloat16" or (precision == "auto" and cpu_bfloat16) else "float32"
    if precision != "auto":
        return precision
    if kind == "tpu" or capability >= GPU_BFLOAT16:
        return "bfloat16"
    return "float16" if capability >= GPU_FLOAT16 else "float32"


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and Keras (and through it the backend)."""
    import keras
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    keras.utils.set_random_seed(seed)


def jit_compile() -> bool | str:
    """What `Model.compile` should get: no XLA with TensorFlow on a CPU, where it halves the speed, or on several
    devices, which it cannot share a step of."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return "auto"
    return "auto" if accelerator().kind == "gpu" and _configured.num_devices == 1 else False


def num_devices() -> int:
    """How many devices share a batch."""
    return _configured.num_devices


def precision() -> str:
    """What the network computes in."""
    return _configured.precision


def loader_threads() -> int:
    """How many threads should make batches: one beside a CPU, which the network takes whole, more beside others."""
    return 1 if accelerator().kind == "cpu" else max(1, min(MOST_LOADER_THREADS, (os.cpu_count() or 1) - 1))


def device_scope() -> contextlib.AbstractContextManager:
    """Where a model and its optimiser must be made that are to run on all `num_devices()`."""
    return _configured.strategy.scope() if _configured.strategy is not None else contextlib.nullcontext()


def feed(batches: Any) -> Any:
    """Batches as `keras.Model.fit` takes them without waiting, see `tensorflow_backend.as_dataset`.

    Args:
        batches: a `keras.utils.PyDataset`.
    """
    import keras

    return tensorflow_backend.as_dataset(batches) if keras.backend.backend() == "tensorflow" else batches


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

    return {
        "keras_backend": keras.backend.backend(),
        "keras_version": keras.__version__,
        "devices": ", ".join(accelerator().names),
        "num_devices": _configured.num_devices,
        "cpu_count": os.cpu_count(),
        "cpu_bfloat16": has_bfloat16(),
        "precision_used": _configured.precision,
        "dtype_policy": keras.config.dtype_policy().name,
        "deterministic_operations": _configured.deterministic,
    }


def accelerator() -> Accelerator:
    """The devices that the backend would use: the best kind, all of it. Starts no backend but JAX."""
    import keras

    return _DEVICES[keras.backend.backend()]()


def _tensorflow_devices() -> Accelerator:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        # logical ones would start TensorFlow, whose threads may still be to be set
        return Accelerator("cpu", tuple(f"cpu:{n}" for n in range(len(tf.config.list_physical_devices("CPU")))))
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capability = min(detail.get("compute_capability") or (0, 0) for detail in details)
    return Accelerator("gpu", tuple(f"gpu:{number}" for number in range(len(gpus))), capability)


def _torch_devices() -> Accelerator:
    import torch

    if not torch.cuda.is_available():
        return Accelerator("cpu", ("cpu:0",))
    numbers = range(torch.cuda.device_count())
    capability = min(torch.cuda.get_device_capability(number) for number in numbers)
    return Accelerator("gpu", tuple(f"cuda:{number}" for number in numbers), capability)


def _jax_devices() -> Accelerator:
    import jax
    import keras

    devices = jax.devices()
    kind = devices[0].platform if devices[0].platform in ("cpu", "tpu") else "gpu"
    names = tuple(keras.distribution.list_devices())
    if kind != "gpu":
        return Accelerator(kind, names)
    versions = [str(getattr(device, "compute_capability", "0.0")).split(".") for device in devices]
    return Accelerator(kind, names, min((int(version[0]), int(version[-1])) for version in versions))


_DEVICES = {"tensorflow": _tensorflow_devices, "jax": _jax_devices, "torch": _torch_devices}


def _chosen(found: Accelerator, wanted: int, *, backend: str) -> tuple[str, ...]:
    """The devices that share a batch, by name."""
    names = found.names
    if backend == "tensorflow" and found.kind == "cpu" and wanted != 1:
        import tensorflow as tf

        names = tuple(f"cpu:{number}" for number in range(len(tf.config.list_logical_devices("CPU"))))
    if wanted > len(names):
        raise InputError(f"num_devices: found {wanted}, expected at most {len(names)} ({', '.join(names)})")
    chosen = names[: wanted or len(names)]
    if backend == "torch" and len(chosen) > 1:
        raise InputError(f"num_devices: found {len(chosen)} with torch, expected 1, or the backend tensorflow or jax")
    return chosen


def _distribute(backend: str, names: tuple[str, ...]) -> Any:
    """Tells the backend to share each batch between devices; gives TensorFlow's strategy, to make models in."""
    if backend == "jax":
        import keras

        several = keras.distribution.DataParallel(devices=list(names)) if len(names) > 1 else None
        keras.distribution.set_distribution(several)
    if backend != "tensorflow" or len(names) == 1:
        return None
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([name.upper() for name in names])


def _set_threads(backend: str, num_threads: int) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is already running
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(num_threads)
    else:
        log.warning("num_threads: %d has no effect with jax; bind the process to cores, as taskset does", num_threads)


def _make_deterministic(backend: str) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        import torch

        torch.use_deterministic_algorithms(True)
    else:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def _set_onednn(*, use_bfloat16: bool) -> None:
    """Lets TensorFlow rewrite graphs to bfloat16, but for softmax and loss: there 0.998 would count as certain."""
    import tensorflow as tf

    for change in ("INFERLIST_REMOVE", "DENYLIST_ADD"):
        name = f"TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_{change}"
        operations = {one for one in os.environ.get(name, "").split(",") if one}
        os.environ[name] = ",".join(sorted({*operations, "Softmax"}))
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": use_bfloat16})
