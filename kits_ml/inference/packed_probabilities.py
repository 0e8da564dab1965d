"""Keeping the probabilities of a whole scan in bytes: two a voxel, as much as the scan itself."""

from __future__ import annotations

import numpy as np

from kits_ml.inference.segmenting import Window
from kits_ml.labels import NUM_CLASSES


class PackedProbabilities:
    """Keeps what it observes of `segment`.

    Args:
        shape: of the scan, `(slices, rows, columns)`.

    Attributes:
        foreground: `(classes - 1, slices, rows, columns)` uint8, rounded, 255 for probability 1: kidney, tumour.
            Background is the rest.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self.foreground = np.zeros((NUM_CLASSES - 1, *shape), np.uint8)

    def __call__(self, index: int, inside: Window, probabilities: np.ndarray) -> None:
        """Keeps a slice; see `segmenting.Observer`."""
        self.foreground[:, index, *inside] = np.rint(np.clip(probabilities[1:], 0, 1) * 255)
