"""A training that starts with the weights of another model, and what that model has seen."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kits_ml import models
from kits_ml.config import ArchitectureSettings, PreprocessingSettings, TrainSettings
from kits_ml.errors import InputError, first_line
from kits_ml.inference.predictor import DESCRIPTION_FILE, MODEL_FILE, read_description

log = logging.getLogger(__name__)

KERAS_SUFFIX = ".keras"


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The model that another one starts from.

    Attributes:
        source: what the user called it.
        description: what is known of it, see `Predictor`; empty where nothing is.
    """

    source: str
    description: Mapping[str, Any]

    def has_seen(self, digest: str, slice_digests: Collection[str]) -> bool:
        """Whether it was trained on a case, or on a scan that shares a slice with it.

        Args:
            digest: of the case.
            slice_digests: of all its slices.
        """
        slices = {one for kept in self.description.get("seen_slices", {}).values() for one in kept}
        return digest in self.description.get("seen_cases", {}).values() or not slices.isdisjoint(slice_digests)

    def describe(self) -> dict[str, Any]:
        """For the description of the model that starts from it."""
        return {
            "model": self.source,
            "run_id": self.description.get("run_id"),
            "seen_cases_known": "seen_cases" in self.description,
        }

    def seen(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """What a model has seen that starts from this one: its own and all that this one has seen.

        Args:
            name: `seen_cases` or `seen_slices`.
            own: by case; a case of the parent with the same name and another content gets the parent's run behind
                its name.
        """
        behind = f" of {self.description.get('run_id') or self.source}"
        before = self.description.get(name, {})
        return {
            **{case if own.get(case, value) == value else case + behind: value for case, value in before.items()},
            **own,
        }


def start_from(model: keras.Model, path: Path, *, source: str, settings: TrainSettings) -> Parent:
    """Gives a fresh model the weights of a saved one.

    The image size may differ. Outputs that only one of the two has (deep supervision) are left as they are.

    Args:
        model: as `models.build` gives it.
        path: a `.keras` file, or a folder with `model.keras` and `model.json`. What is known of a file is read from
            a `model.json` beside it.
        source: what the user calls it, for messages.
        settings: of the training.

    Raises:
        InputError: no such model, or other channels, classes, architecture or weights; one line that names both.
    """
    file, description = _read(path, source)
    _compare_settings(description, settings, source)
    try:
        loaded = keras.saving.load_model(file, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"init_from {source}: cannot be loaded ({first_line(error)})") from error
    _copy_weights(models.without_supervision(loaded), models.without_supervision(model), source)
    return Parent(source=source, description=description)


def _read(path: Path, source: str) -> tuple[Path, dict[str, Any]]:
    if path.suffix != KERAS_SUFFIX:
        return path / MODEL_FILE, read_description(path)
    if not path.is_file():
        raise InputError(f"init_from {source}: no such file; expected a {KERAS_SUFFIX} file or a model")
    if path.name == MODEL_FILE and (path.parent / DESCRIPTION_FILE).exists():
        return path, read_description(path.parent)
    log.warning(
        "init_from %s: no %s beside it says which cases it was trained on; test cases may be among them",
        *(source, DESCRIPTION_FILE),
    )
    return path, {}


def _compare_settings(description: Mapping[str, Any], settings: TrainSettings, source: str) -> None:
    """Compares what the description says with the settings; it may not say everything."""
    found = {**description.get("network", {}), **description}
    for name, value in settings.select(ArchitectureSettings).to_dict().items():
        if name != "deep_supervision" and found.get(name, value) != value:
            raise InputError(f"init_from {source}: has {name} {found[name]}, expected {value} as set")
    preprocessing = description.get("preprocessing", {})
    differing = [
        f"{name} {preprocessing[name]} there, {value} here"
        for name, value in settings.select(PreprocessingSettings).to_dict().items()
        if name != "image_size" and preprocessing.get(name, value) != value
    ]
    if differing:
        log.warning("init_from %s: was trained on slices prepared otherwise: %s", source, "; ".join(differing))


def _copy_weights(loaded: keras.Model, model: keras.Model, source: str) -> None:
    for what, found, expected in (
        ("channels", loaded.input_shape[-1], model.input_shape[-1]),
        ("classes", loaded.output_shape[-1], model.output_shape[-1]),
    ):
        if found != expected:
            raise InputError(f"init_from {source}: has {found} {what}, expected {expected}")
    if loaded.name != model.name and loaded.name in models.ARCHITECTURES:
        raise InputError(f"init_from {source}: has architecture {loaded.name}, expected {model.name} as set")
    if len(loaded.weights) != len(model.weights):
        raise InputError(
            f"init_from {source}: has {len(loaded.weights)} arrays of weights, expected {len(model.weights)} of "
            f"{model.name} as set; architecture or depth differ"
        )
    for number, (one, other) in enumerate(zip(loaded.weights, model.weights, strict=True), 1):
        found, expected = (f"{weight.name} {tuple(weight.shape)}" for weight in (one, other))
        if found != expected:
            raise InputError(
                f"init_from {source}: array {number} of {len(model.weights)} is {found}, expected {expected} of "
                f"{model.name} as set; architecture or base_filters differ"
            )
    model.set_weights(loaded.get_weights())
