"""From a volume in HU to a label map on its own grid."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kits_ml import files, runtime
from kits_ml.config import PreprocessingSettings
from kits_ml.data import frames, preprocessing
from kits_ml.data.neighbours import stack_neighbours
from kits_ml.errors import InputError
from kits_ml.labels import LABEL_NAMES

log = logging.getLogger(__name__)

MODEL_FILE = "model.keras"
DESCRIPTION_FILE = "model.json"


#: Takes a slice's index, its rows and columns inside the window, and their probabilities.
Observer = Callable[[int, tuple[slice, slice], np.ndarray], None]


class Predictor:
    """A network with its preparation.

    Args:
        model: a Keras model from `(batch, size, size, input_slices)` to class probabilities.
        settings: the preparation that the model was trained with.
        description: what else is known of the model: `label_names`, `seen_cases`, ...; `input_slices` is how many
            slices it sees at once, 1 if nothing is said.
        batch_size: slices the network takes at once; more need more memory.
    """

    def __init__(
        self,
        model: Any,
        settings: PreprocessingSettings,
        *,
        description: Mapping[str, Any] | None = None,
        batch_size: int = 8,
    ):
        self.model = model
        self.settings = settings
        self.description = dict(description or {})
        self.input_slices = int(self.description.get("input_slices", 1))
        self.batch_size = batch_size

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
                `(classes, rows, columns)` float32. Their most probable class is the label map.

        Returns:
            Label map of the same shape, uint8: 0 background, 1 kidney, 2 tumour.

        Raises:
            InputError: not three axes, NaN or infinite voxels, nothing above `foreground_hu`, or a spacing that is
                needed and missing.
        """
        image = _checked(image)
        frame = frames.find_frame(image, self.settings, spacing_mm=spacing_mm)
        if note := frame.note(self.settings):
            log.info("%s", note)
        label_map = np.zeros(image.shape, np.uint8)  # background beyond the window
        with tqdm(total=len(image), desc=progress, unit="slice", disable=progress is None) as bar:
            done = 0
            blocks = preprocessing.prepare_image(image, frame, self.settings)
            for grey in stack_neighbours(blocks, num_slices=self.input_slices, batch_size=self.batch_size):
                probabilities = self._probabilities(grey)
                for restored in preprocessing.restore_probabilities(probabilities, frame):
                    label_map[done, *frame.inside] = restored.argmax(axis=0)
                    if observe:
                        observe(done, frame.inside, restored)
                    done += 1
                bar.update(len(grey))
        return label_map

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
    def load(cls, folder: str | Path, *, batch_size: int = 8) -> Predictor:
        """Loads what `save` wrote. Call `runtime.configure` first.

        Raises:
            InputError: the folder holds no such model.
        """
        import keras

        folder = Path(folder)
        description = read_description(folder)
        model = keras.saving.load_model(folder / MODEL_FILE, compile=False)
        model.compile(jit_compile=runtime.jit_compile())
        settings = PreprocessingSettings.from_mapping(description["preprocessing"], source=str(folder))
        return cls(model, settings, description=description, batch_size=batch_size)

    def _probabilities(self, grey: np.ndarray) -> np.ndarray:
        """Class probabilities; the last, smaller batch is filled up so that the network is traced once."""
        filled = np.zeros((self.batch_size, *grey.shape[1:]), np.uint8)
        filled[: len(grey)] = grey
        probabilities = self.model.predict_on_batch(preprocessing.network_input(filled))
        return np.asarray(probabilities)[: len(grey)]


def read_description(folder: str | Path) -> dict[str, Any]:
    """What is known of a saved model, without loading it.

    Raises:
        InputError: the folder holds no such model.
    """
    folder = Path(folder)
    if not (folder / MODEL_FILE).exists() or not (folder / DESCRIPTION_FILE).exists():
        raise InputError(f"{folder}: no kits_ml model; expected {MODEL_FILE} and {DESCRIPTION_FILE}")
    return json.loads((folder / DESCRIPTION_FILE).read_text())


def _checked(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"image of shape {image.shape}: expected (slices, rows, columns)")
    if image.dtype == np.int16:
        return image
    if image.dtype.kind not in "iuf":
        raise InputError(f"image of type {image.dtype}: expected HU as numbers")
    image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise InputError(f"image: {int((~np.isfinite(image)).sum())} voxels are NaN or infinite; expected HU values")
    return image
