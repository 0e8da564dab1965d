"""What changes in a training whose batches several devices share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError


def check_devices(settings: TrainSettings, *, num_devices: int) -> None:
    """Refuses what several devices cannot do.

    Raises:
        InputError: a batch that cannot be shared out evenly, or what Keras does on each device by itself.
    """
    if settings.batch_size % num_devices:
        raise InputError(f"batch_size: found {settings.batch_size}, expected a multiple of num_devices {num_devices}")
    if num_devices == 1:
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


def share_loss(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The loss as a mean over devices, each with its part of the batch.

    With TensorFlow the devices' gradients are added. Keras divides a loss by their number only where it has an axis:
    a scalar would count once a device.

    Args:
        loss: takes labels and probabilities, gives a scalar.

    Returns:
        The same that gives `(1,)`.
    """

    @functools.wraps(loss)
    def shared(labels, probabilities):
        return ops.reshape(loss(labels, probabilities), (-1,))

    return shared
