"""The preparation as a MONAI-compatible transform: a callable from dict to dict, for use inside `Compose`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from kits_ml.config import PreprocessingSettings
from kits_ml.data import frames, preprocessing


class PrepareSlicesd:
    """Does what `preprocessing.monai_chain` does, and several times as fast; needs no MONAI of its own.

    Takes `image`, `(slices, rows, columns)` in HU, and, where it is there, `label` of the same shape; the slices
    stand as channels, as in the chain. Gives the image as float32 in [0, 1] (rounded to the 256 grey values that the
    prepared store and the network have), the label as uint8, and under `frame` what undoes it.

    Args:
        settings: the preparation.
        image_key, label_key: where they stand in the dict.
        spacing_key: where `(slices, rows, columns)` in mm stands; read only where `framing` is `spacing`.
    """

    def __init__(
        self,
        settings: PreprocessingSettings,
        *,
        image_key: Hashable = "image",
        label_key: Hashable = "label",
        spacing_key: Hashable = "spacing_mm",
    ):
        self.settings = settings
        self.image_key, self.label_key, self.spacing_key = image_key, label_key, spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Prepares one case.

        Raises:
            InputError: no foreground, or a spacing that is needed and missing.
        """
        image = np.asarray(data[self.image_key])
        frame = frames.find_frame(image, self.settings, spacing_mm=data.get(self.spacing_key))
        grey = np.concatenate(list(preprocessing.prepare_image(image, frame, self.settings)))
        prepared = {**data, self.image_key: preprocessing.network_input(grey), "frame": frame}
        if self.label_key in data:
            labels = np.asarray(data[self.label_key]).astype(np.uint8, copy=False)
            prepared[self.label_key] = preprocessing.prepare_labels(labels, frame)
        return prepared

    def inverse(self, data: Mapping[Hashable, Any], probabilities: np.ndarray) -> np.ndarray:
        """Puts a network's probabilities back on the grid of the case.

        Args:
            data: what the transform gave.
            probabilities: `(slices, image_size, image_size, classes)`.

        Returns:
            Label map, `(slices, rows, columns)` uint8.
        """
        return preprocessing.restore_labels(probabilities, data["frame"])
