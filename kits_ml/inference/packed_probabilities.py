"""Keeping the probabilities of a whole scan, two bytes a voxel, out of memory."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Self

import numpy as np

from kits_ml.inference.segmenting import Window
from kits_ml.labels import NUM_CLASSES


class PackedProbabilities:
    """Keeps what it observes of `segment` in a file without a name; a context, at whose end the file is gone.

    Args:
        shape: of the scan, `(slices, rows, columns)`.
        folder: where there is room for it, two bytes a voxel.
    """

    def __init__(self, shape: tuple[int, int, int], folder: Path):
        self._shape = (shape[0], NUM_CLASSES - 1, *shape[1:])
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._file.truncate(math.prod(self._shape))  # zeros

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, index: int, inside: Window, probabilities: np.ndarray) -> None:
        """Keeps a slice; see `segmenting.Observer`."""
        packed = np.zeros(self._shape[1:], np.uint8)
        packed[:, *inside] = np.rint(np.clip(probabilities[1:], 0, 1) * 255)
        self._file.seek(index * packed.nbytes)
        self._file.write(packed)

    def foreground(self) -> np.ndarray:
        """What was kept: `(classes - 1, slices, rows, columns)` uint8, 255 for probability 1; kidney, tumour.

        Background is the rest. The file is mapped anew by each call: what is read of it counts as memory of the
        process as long as the array lives.
        """
        self._file.flush()
        return np.memmap(self._file, np.uint8, "r", shape=self._shape).swapaxes(0, 1)
