"""What this machine and its registry hold."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import mlflow

import kits_ml
from kits_ml import runtime
from kits_ml.config import InfoSettings
from kits_ml.inference.predictor import read_description
from kits_ml.tracking import addresses, registry, runs

PACKAGES = ("tensorflow", "keras", "monai", "mlflow", "optuna", "nibabel", "numpy")


def info(settings: InfoSettings) -> dict[str, Any]:
    """Versions, devices and registered models; or what is known of one model.

    Raises:
        InputError: an unknown model, or a tracking server that does not answer.
    """
    if settings.model is not None:
        description = read_description(addresses.local_folder(settings.model))
        seen = {
            name: f"{len(description[name])} cases" for name in ("seen_cases", "seen_slices") if name in description
        }
        return {**description, **seen}
    runs.check_tracking_server()
    return {
        "kits_ml": kits_ml.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        **runtime.describe(),
        "tracking": mlflow.get_tracking_uri(),
        "models": registry.list_models(),
    }
