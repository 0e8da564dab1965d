"""Models by their addresses: one, or several as an ensemble, with the post-processing that goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits_ml import runtime
from kits_ml.config import InferenceSettings, PostprocessingSettings, SegmentationSettings
from kits_ml.data import scans
from kits_ml.data.images import read_image
from kits_ml.data.partial import sha256_of
from kits_ml.data.verification import write_verified
from kits_ml.data.volumes import Volume
from kits_ml.errors import InputError
from kits_ml.inference import postprocessing
from kits_ml.inference.engines import ONNX_FILE
from kits_ml.inference.ensemble import Ensemble
from kits_ml.inference.predictor import DESCRIPTION_FILE, MODEL_FILE, Predictor
from kits_ml.inference.provenance import ModelSource, Provenance
from kits_ml.inference.segmenting import Observer
from kits_ml.labels import region_volumes_ml
from kits_ml.tracking import addresses


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What was found in a scan.

    Attributes:
        label_map: `(slices, rows, columns)` uint8: 0 background, 1 kidney, 2 tumour.
        scan: what was read.
    """

    label_map: np.ndarray
    scan: Volume

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each region, millilitres; the tumour is part of the kidney."""
        return region_volumes_ml(self.label_map, self.scan.spacing_mm)

    def save(self, path: str | Path) -> None:
        """Writes the label map on the scan's grid as `.nii.gz` or `.nii`, and reads it back.

        Raises:
            InputError: it is not as it was written, and was removed.
        """
        write_verified(path, self.label_map, self.scan.geometry)


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What segments scans.

    Attributes:
        network: one network with its preparation, or several.
        postprocessing: what is done to each label map.
        models: what they were when they were loaded, in the order of their addresses.
        engine, test_time_augmentation: how they are used.
    """

    network: Predictor | Ensemble
    postprocessing: PostprocessingSettings
    models: tuple[ModelSource, ...] = ()
    engine: str = "keras"
    test_time_augmentation: str = "none"

    def segment(
        self,
        image: np.ndarray,
        *,
        spacing_mm: tuple[float, float, float] | None = None,
        progress: str | None = None,
        observe: Observer | None = None,
    ) -> np.ndarray:
        """Segments and cleans a volume; see `Predictor.segment`. What is observed is from before the cleaning.

        Raises:
            InputError: as there, or there is post-processing to do and no spacing.
        """
        label_map = self.network.segment(image, spacing_mm=spacing_mm, progress=progress, observe=observe)
        return postprocessing.postprocess(label_map, spacing_mm=spacing_mm, settings=self.postprocessing)

    def segment_scan(self, path: str | Path, *, progress: str | None = None) -> Segmentation:
        """Reads, segments and cleans a scan of any orientation and spacing.

        Args:
            path: a NIfTI file or a folder of DICOM slices.
            progress: what the progress bar says; without, there is none.

        Raises:
            InputError: a scan that cannot be read or used.
        """
        scan = read_image(path)
        try:
            label_map = self.segment(scan.array, spacing_mm=scan.spacing_mm, progress=progress)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return Segmentation(label_map=label_map, scan=scan)

    def provenance(self, *, scan: str, note: str = "") -> Provenance:
        """What reports say of a prediction.

        Args:
            scan: its name, see `scans.name_of`.
            note: what was said of it when it was read.
        """
        return Provenance(
            scan=scan,
            models=self.models,
            engine=self.engine,
            test_time_augmentation=self.test_time_augmentation,
            postprocessing=self.postprocessing.to_dict(),
            note=note,
        )

    def digests(self) -> list[str]:
        """SHA-256 of each model's files when they were loaded, hexadecimal."""
        return [digest for one in self.models for digest in one.sha256.values()]


def load_segmenter(model: str, settings: SegmentationSettings) -> Segmenter:
    """Loads what an address names now, and configures the process for it.

    Args:
        model: addresses as for `addresses.local_folder`, divided by commas.
        settings: how it is used.

    Raises:
        InputError: an unknown model, one that is there twice, models that do not go together.
    """
    pinned = [addresses.pinned(one) for one in addresses.split_addresses(model)]
    folders = addresses.local_folders(",".join(pinned))  # one version under two names is found here
    models = tuple(
        _source(address, folder, engine=settings.engine) for address, folder in zip(pinned, folders, strict=True)
    )
    network = load_network(folders, settings)
    return Segmenter(
        network=network,
        postprocessing=choose_postprocessing(network, settings),
        models=models,
        engine=settings.engine,
        test_time_augmentation=settings.test_time_augmentation,
    )


def _source(address: str, folder: Path, *, engine: str) -> ModelSource:
    """What there is to say of a model; where a folder lies is nobody's business."""
    names = [MODEL_FILE, DESCRIPTION_FILE, *([ONNX_FILE] if engine != "keras" else [])]
    return ModelSource(
        address=address if address.startswith(("models:/", "runs:/")) else scans.name_of(address),
        sha256={name: sha256_of(folder / name) for name in names if (folder / name).is_file()},
    )


def load_network(folders: tuple[Path, ...], settings: InferenceSettings) -> Predictor | Ensemble:
    """Loads one model, or several as an ensemble, and configures the process for Keras where that runs them.

    Args:
        folders: at least one; see `addresses.local_folder`.
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
    return Segmenter(network=network, postprocessing=cleaning)


def members_of(network: Predictor | Ensemble) -> list[Predictor]:
    """The networks of an ensemble; of one network, itself."""
    return network.members if isinstance(network, Ensemble) else [network]
