"""The model registry: logging a model as code, registering it, finding it by name."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import kits_ml
from kits_ml.data.volumes import HOUSE_ORIENTATION
from kits_ml.errors import InputError, first_line
from kits_ml.tracking.addresses import logged_by
from kits_ml.tracking.runs import check_tracking_server

ARTIFACT_NAME = "model"
CHAMPION, CHALLENGER = "champion", "challenger"

#: What the model's environment needs; the versions are those of the training.
REQUIREMENTS = ("isal", "keras", "mlflow", "nibabel", "numpy", "pillow", "scipy", "tensorflow", "tqdm")

SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1))]),
    outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]),
    params=ParamSchema(
        [
            ParamSpec("orientation", "string", HOUSE_ORIENTATION),
            ParamSpec("probabilities", "boolean", False),
            ParamSpec("spacing_mm", "double", [], shape=(-1,)),
        ]
    ),
)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version in the registry.

    Attributes:
        name, version: where it is.
        aliases: what it is called, e.g. `champion`.
    """

    name: str
    version: str
    aliases: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The best address: `models:/NAME@champion` where it is the champion, else by version."""
        return (
            f"models:/{self.name}@{CHAMPION}" if CHAMPION in self.aliases else f"models:/{self.name}/{self.version}"
        )


def log_model(folder: Path, *, input_example: np.ndarray, spacing_mm: Sequence[float]) -> str:
    """Logs a model to the active run, with its code, signature and example.

    Args:
        folder: all that the model carries: what `Predictor.save` wrote, and what lies beside it.
        input_example: a small volume, `(slices, rows, columns)` HU, float32.
        spacing_mm: distance between its slices, rows and columns.

    Returns:
        The model's URI.
    """
    params = {"orientation": HOUSE_ORIENTATION, "probabilities": False, "spacing_mm": list(spacing_mm)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's advice to users of its API
        info = mlflow.pyfunc.log_model(
            name=ARTIFACT_NAME,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(folder)},
            code_paths=[str(Path(kits_ml.__file__).parent)],
            signature=SIGNATURE,
            input_example=(input_example, params),
            pip_requirements=requirements(),
        )
    return info.model_uri


def requirements() -> list[str]:
    """What a model's environment needs, with the versions of this one."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS]


def register(model_uri: str, name: str, *, description: str | None = None) -> Registered:
    """Registers a logged model as challenger. Only the gate makes champions.

    Args:
        model_uri: of the model.
        name: in the registry.
        description: of the version.

    Raises:
        InputError: the model or the registry cannot be reached.
    """
    check_tracking_server()
    client = mlflow.MlflowClient()
    try:
        version = mlflow.register_model(model_uri, name).version
        if description:
            client.update_model_version(name, version, description=description)
        client.set_registered_model_alias(name, CHALLENGER, version)
    except MlflowException as error:
        raise InputError(f"{model_uri}: cannot be registered as {name!r} ({first_line(error)})") from error
    return registered(name, version)


def registered(name: str, version: str) -> Registered:
    """A version as it stands now."""
    aliases = mlflow.MlflowClient().get_model_version(name, version).aliases
    return Registered(name=name, version=str(version), aliases=tuple(sorted(aliases)))


def model_of_run(run_id: str) -> str:
    """The URI of the model that a run logged.

    Raises:
        InputError: no such run, or it logged no model.
    """
    check_tracking_server()
    try:
        models = logged_by(run_id)
    except MlflowException as error:
        raise InputError(f"run {run_id!r}: {first_line(error)}") from error
    if not models:
        raise InputError(f"run {run_id!r}: logged no model; expected a finished training run")
    return f"models:/{models[-1].model_id}"


def list_models() -> dict[str, dict[str, str]]:
    """Registered models: the version behind each alias, by model name."""
    return {
        model.name: {alias: str(version) for alias, version in sorted(model.aliases.items())}
        for model in mlflow.MlflowClient().search_registered_models()
    }
