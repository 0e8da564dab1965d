"""From a volume in HU to a label map on its own grid."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import files
from kits_ml.config import PreprocessingSettings
from kits_ml.data import frames, preprocessing
from kits_ml.data.neighbours import stack_neighbours
from kits_ml.errors import InputError, first_line
from kits_ml.inference import mirroring
from kits_ml.inference.engines import MODEL_FILE, Network, for_prediction, load_network
from kits_ml.inference.segmenting import (
    Observer,
    SliceMoments,
    SliceProbabilities,
    checked_image,
    segment_slices,
    wants_variance,
)
from kits_ml.labels import LABEL_NAMES

log = logging.getLogger(__name__)

DESCRIPTION_FILE = "model.json"


class Predictor:
    """A network with its preparation.

    Args:
        model: a Keras model or another `engines.Network`, from `(batch, size, size, input_slices)` to class
            probabilities. `save` needs a Keras model.
        settings: the preparation that the model was trained with.
        description: what else is known of the model: `label_names`, `seen_cases`, ...; `input_slices` is how many
            slices it sees at once, 1 if nothing is said.
        batch_size: slices the network takes at once; more need more memory.
        test_time_augmentation: one of `mirroring.MIRRORED_AXES`: the mean over mirrored slices is taken, and
            their variance for observers that ask for it.
    """

    def __init__(
        self,
        model: Any,
        settings: PreprocessingSettings,
        *,
        description: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        test_time_augmentation: str = "none",
    ):
        self.model = model
        self._network: Network | None = None
        self.settings = settings
        self.description = dict(description or {})
        self.input_slices = int(self.description.get("input_slices", 1))
        self.batch_size = batch_size
        self.test_time_augmentation = test_time_augmentation

    @property
    def network(self) -> Network:
        """What predicts, with the weights that the model had at the first prediction."""
        if self._network is None:
            self._network = for_prediction(self.model)
        return self._network

    def segment(
        self,
        image: np.ndarray,
        *,
        spacing_mm: Sequence[float] | None = None,
        progress: str | None = None,
        observe: Observer | None = None,
    ) -> np.ndarray:
        """Segments a volume.

        Args:
            image: `(slices, rows, columns)` in HU, slices from superior to inferior, rows to posterior, columns to
                the patient's left; any numeric dtype.
            spacing_mm: distance between slices, rows and columns; needed where the preparation's `framing` is
                `spacing`, else of no effect.
            progress: what the progress bar says; without, there is none.
            observe: is given each slice's probabilities on the scan's grid, so that nobody needs to keep them:
                the slice's index, the rows and columns they are of (elsewhere all is background), and
                `(classes, rows, columns)` float32. Their most probable class is the label map. With test-time
                augmentation its `add_variance`, if it has one, is given the variance over the passes right before.

        Returns:
            Label map of the same shape, uint8: 0 background, 1 kidney, 2 tumour.

        Raises:
            InputError: not three axes, NaN or infinite voxels, nothing above `foreground_hu`, or a spacing that is
                needed and missing.
        """
        image = checked_image(image)
        slices = self.moments(image, spacing_mm=spacing_mm, with_variance=wants_variance(observe))
        return segment_slices(slices, shape=image.shape, progress=progress, observe=observe)

    def probabilities(
        self, image: np.ndarray, *, spacing_mm: Sequence[float] | None = None
    ) -> Iterator[SliceProbabilities]:
        """Yields the softmax of each slice on the scan's grid, in order; no more than a batch of them is kept.

        Args:
            image, spacing_mm: as for `segment`.

        Yields:
            The rows and columns they are of (elsewhere all is background), and `(classes, rows, columns)` float32.

        Raises:
            InputError: as `segment`.
        """
        for inside, probabilities, _ in self.moments(image, spacing_mm=spacing_mm, with_variance=False):
            yield inside, probabilities

    def moments(
        self, image: np.ndarray, *, spacing_mm: Sequence[float] | None = None, with_variance: bool = True
    ) -> Iterator[SliceMoments]:
        """Yields what `probabilities` does, with the variance over the passes of test-time augmentation.

        The variance is put on the scan's grid as the probabilities are, by linear interpolation. Between pixels it is
        so an upper bound of the variance of the interpolated probabilities (Jensen's inequality).

        Args:
            image, spacing_mm: as for `segment`.
            with_variance: whether it is wanted; else nothing more is computed than for `probabilities`.

        Yields:
            The rows and columns, and `(classes, rows, columns)` float32 twice; the variance is None without
            augmentation.

        Raises:
            InputError: as `segment`.
        """
        image = checked_image(image)
        frame = frames.find_frame(image, self.settings, spacing_mm=spacing_mm)
        if note := frame.note(self.settings):
            log.info("%s", note)
        blocks = preprocessing.prepare_image(image, frame, self.settings)
        for grey in stack_neighbours(blocks, num_slices=self.input_slices, batch_size=self.batch_size):
            mean, variance = self._moments(grey, with_variance=with_variance)
            variances = itertools.repeat(None)
            if variance is not None:
                variances = preprocessing.restore_probabilities(variance, frame)
            restored = preprocessing.restore_probabilities(mean, frame)
            for one, its_variance in zip(restored, variances, strict=False):  # None goes on for ever
                yield frame.inside, one, its_variance

    def save(self, folder: Path) -> None:
        """Writes `model.keras` and `model.json`, all that `load` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(folder / MODEL_FILE)
        content = {
            **self.description,
            "label_names": {str(value): name for value, name in LABEL_NAMES.items()},
            "preprocessing": self.settings.to_dict(),
        }
        files.write_json(folder / DESCRIPTION_FILE, content)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        batch_size: int = 8,
        test_time_augmentation: str = "none",
        engine: str = "keras",
        num_threads: int = 0,
    ) -> Predictor:
        """Loads what `save` wrote. For Keras, call `runtime.configure` first.

        Args:
            folder: of the model.
            batch_size, test_time_augmentation: see the class.
            engine, num_threads: what runs the network, see `engines.load_network`.

        Raises:
            InputError: the folder holds no such model, or none that the engine runs.
        """
        folder = Path(folder)
        description = read_description(folder)
        settings = PreprocessingSettings.from_mapping(description["preprocessing"], source=str(folder))
        return cls(
            load_network(folder, engine=engine, num_threads=num_threads),
            settings,
            description=description,
            batch_size=batch_size,
            test_time_augmentation=test_time_augmentation,
        )

    def _moments(self, grey: np.ndarray, *, with_variance: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean and variance; the last, smaller batch is filled up so that the network is traced once."""
        filled = np.zeros((self.batch_size, *grey.shape[1:]), np.uint8)
        filled[: len(grey)] = grey
        mean, variance = mirroring.moments_over_mirrored(
            self.network.predict_on_batch,
            preprocessing.network_input(filled),
            self.test_time_augmentation,
            with_variance=with_variance,
        )
        return mean[: len(grey)], None if variance is None else variance[: len(grey)]


def read_description(folder: str | Path) -> dict[str, Any]:
    """What is known of a saved model, without loading it.

    Raises:
        InputError: the folder holds no such model, or a damaged description.
    """
    folder = Path(folder)
    if not (folder / MODEL_FILE).exists() or not (folder / DESCRIPTION_FILE).exists():
        raise InputError(f"{folder}: no kits_ml model; expected {MODEL_FILE} and {DESCRIPTION_FILE}")
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text())
    except ValueError as error:
        raise InputError(f"{folder / DESCRIPTION_FILE}: damaged ({first_line(error)}); expected JSON") from error
    if not isinstance(description, dict):
        raise InputError(f"{folder / DESCRIPTION_FILE}: found a {type(description).__name__}, expected a mapping")
    if not isinstance(description.get("preprocessing"), dict):
        raise InputError(
            f"{folder / DESCRIPTION_FILE}: preprocessing: found {description.get('preprocessing')!r}, expected the "
            "settings by which slices are prepared"
        )
    return description
