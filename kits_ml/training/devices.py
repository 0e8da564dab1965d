"""What changes in a training whose batches several devices share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError


def check_devices(settings: TrainSettings, *, num_devices: int, precision: str) -> None:
    """Refuses what several devices, or a precision, cannot do.

    JAX compiles one step for all devices, which sees the whole batch and its whole gradient. TensorFlow runs the step
    on each device, with a part of the batch.

    Raises:
        InputError: a batch that cannot be shared out evenly, what Keras does on each device by itself, or gradients
            summed up in float16.
    """
    if settings.accumulation_steps > 1 and precision == "float16":
        raise InputError(
            f"accumulation_steps: found {settings.accumulation_steps} in float16, expected 1, or another precision: "
            "a gradient that overflows is left out, and updates would fall on other steps than the learning rate's"
        )
    if settings.batch_size % num_devices:
        raise InputError(f"batch_size: found {settings.batch_size}, expected a multiple of num_devices {num_devices}")
    if num_devices == 1 or keras.backend.backend() == "jax":
        return
    if settings.clip_norm:
        raise InputError(
            f"clip_norm: found {settings.clip_norm:g} on {num_devices} devices, expected 0: "
            "Keras clips each device's gradient before they are added"
        )
    if settings.accumulation_steps > 1:
        raise InputError(
            f"accumulation_steps: found {settings.accumulation_steps} on {num_devices} devices, expected 1: "
            "Keras cannot accumulate on several"
        )


@contextlib.contextmanager
def statistics_of_whole_batches(model: keras.Model, *, num_devices: int) -> Iterator[None]:
    """Lets batch normalisation see all devices' slices, as with JAX it does of itself.

    Left alone, TensorFlow normalises on each device by its own part of the batch, and keeps the running statistics of
    the first device's.
    """
    together = num_devices > 1 and keras.backend.backend() == "tensorflow"
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    alone = [layer for layer in normalizations if together and not layer.synchronized]
    for layer in alone:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in alone:  # a file would ask for several devices
            layer.synchronized = False
