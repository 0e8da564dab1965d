"""All probabilities of a volume, for those who ask for them."""

from __future__ import annotations

import numpy as np

from kits_ml.labels import BACKGROUND, NUM_CLASSES


class ProbabilityMap:
    """An observer of `Predictor.segment` that keeps what it sees.

    Args:
        shape: of the volume, `(slices, rows, columns)`.

    Attributes:
        array: `(classes, slices, rows, columns)`, float32; 12 bytes a voxel. Outside the window that the network
            sees, all is background.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self.array = np.zeros((NUM_CLASSES, *shape), np.float32)
        self.array[BACKGROUND] = 1

    def __call__(self, index: int, inside: tuple[slice, slice], probabilities: np.ndarray) -> None:
        self.array[:, index, *inside] = probabilities
