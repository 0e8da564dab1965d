"""A trained model as one that runs anywhere."""

from __future__ import annotations

import json
from typing import Any

import keras


def standalone(model: keras.Model) -> keras.Model:
    """A copy with the same weights that computes in float32, on one device, and knows nothing of its training.

    A network that was trained in half precision or on several devices would ask for both wherever it is loaded, and
    for our losses; its file would hold the optimiser's moments too, twice the weights. Call outside the scope of
    `runtime.device_scope`.
    """
    config = _in_float32(json.loads(model.to_json()))
    config.pop("compile_config", None)  # names a loss that only training knows
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # what inputs and the model itself take
    try:
        copy = keras.models.model_from_json(json.dumps(config))
    finally:
        keras.config.set_dtype_policy(policy)
    copy.set_weights(model.get_weights())
    return copy


def _in_float32(config: Any) -> Any:
    """The configuration with every mixed-precision policy replaced."""
    if isinstance(config, dict):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_in_float32(value) for value in config]
    return "float32" if config in ("mixed_bfloat16", "mixed_float16") else config
