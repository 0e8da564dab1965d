"""Models by their addresses: one, or several as an ensemble, with the post-processing that goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits_ml import runtime
from kits_ml.config import InferenceSettings, PostprocessingSettings, SegmentationSettings
from kits_ml.data.partial import sha256_of
from kits_ml.errors import InputError
from kits_ml.inference import postprocessing
from kits_ml.inference.ensemble import Ensemble
from kits_ml.inference.predictor import DESCRIPTION_FILE, MODEL_FILE, Predictor
from kits_ml.inference.segmenting import Observer
from kits_ml.tracking import registry


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What segments a scan.

    Attributes:
        network: one network with its preparation, or several.
        postprocessing: what is done to each label map.
        folders: of the models, in the order of their addresses.
    """

    network: Predictor | Ensemble
    postprocessing: PostprocessingSettings
    folders: tuple[Path, ...]

    def segment(
        self,
        image: np.ndarray,
        *,
        spacing_mm: tuple[float, float, float],
        progress: str | None = None,
        observe: Observer | None = None,
    ) -> np.ndarray:
        """Segments and cleans; see `Predictor.segment`. What is observed is from before the cleaning."""
        label_map = self.network.segment(image, spacing_mm=spacing_mm, progress=progress, observe=observe)
        return postprocessing.postprocess(label_map, spacing_mm=spacing_mm, settings=self.postprocessing)

    def digests(self) -> list[str]:
        """SHA-256 of each model's files, hexadecimal."""
        return [sha256_of(folder / name) for folder in self.folders for name in (MODEL_FILE, DESCRIPTION_FILE)]


def load_segmenter(model: str, settings: SegmentationSettings) -> Segmenter:
    """Loads what an address names, and configures the process for it.

    Args:
        model: addresses as for `registry.local_folder`, divided by commas.
        settings: how it is used.

    Raises:
        InputError: an unknown model, one that is there twice, models that do not go together.
    """
    folders = local_folders(model)
    network = load_network(folders, settings)
    return Segmenter(network=network, postprocessing=choose_postprocessing(network, settings), folders=folders)


def local_folders(model: str) -> tuple[Path, ...]:
    """The folder of each model of an address, see `registry.local_folder`."""
    return tuple(registry.local_folder(address) for address in split_addresses(model))


def load_network(folders: tuple[Path, ...], settings: InferenceSettings) -> Predictor | Ensemble:
    """Loads one model, or several as an ensemble, and configures the process for Keras where that runs them.

    Args:
        folders: at least one; see `registry.local_folder`.
        settings: how they are used.
    """
    if settings.engine == "keras":
        runtime.configure(num_threads=settings.num_threads)
    members = [
        Predictor.load(
            folder,
            batch_size=settings.batch_size,
            test_time_augmentation=settings.test_time_augmentation,
            engine=settings.engine,
            num_threads=settings.num_threads,
        )
        for folder in folders
    ]
    return members[0] if len(members) == 1 else Ensemble(members)


def split_addresses(model: str) -> list[str]:
    """The addresses of one or several models.

    Raises:
        InputError: an empty one, or one that is there twice.
    """
    addresses = [one.strip() for one in model.split(",")]
    if not all(addresses):
        raise InputError(f"model: found {model!r}, expected addresses divided by single commas")
    twice = {one for one in addresses if addresses.count(one) > 1}
    if twice:
        raise InputError(f"model: found {', '.join(sorted(twice))} more than once, expected each model once")
    return addresses


def choose_postprocessing(network: Predictor | Ensemble, settings: SegmentationSettings) -> PostprocessingSettings:
    """What the settings say, or what is stored with the models.

    Raises:
        InputError: models that store different ones.
    """
    if settings.postprocessing == "given":
        return settings.select(PostprocessingSettings)
    stored = [postprocessing.settings_of(one.description, source="model") for one in members_of(network)]
    if any(one != stored[0] for one in stored):
        raise InputError(
            "postprocessing: the models of the ensemble store different ones; expected --postprocessing given"
        )
    return stored[0]


def as_stored(network: Predictor | Ensemble) -> Segmenter:
    """A network that is loaded, with the post-processing that is stored with it."""
    cleaning = postprocessing.settings_of(network.description, source="model")
    return Segmenter(network=network, postprocessing=cleaning, folders=())


def members_of(network: Predictor | Ensemble) -> list[Predictor]:
    """The networks of an ensemble; of one network, itself."""
    return network.members if isinstance(network, Ensemble) else [network]
