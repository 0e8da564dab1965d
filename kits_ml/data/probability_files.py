"""Writing probabilities as NIfTI: four axes, the last one the classes, a byte a voxel and class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kits_ml.data import volumes
from kits_ml.labels import LABEL_NAMES, NUM_CLASSES

#: A stored 255 is probability 1; the header says so to every reader.
SLOPE = 1 / 255

#: Lines of the last axis that are brought into the file's order together.
_BLOCK_BYTES = 1 << 24


def write_probabilities(path: str | Path, foreground: Callable[[], np.ndarray], geometry: volumes.Geometry) -> None:
    """Writes the probabilities of all classes on the geometry's grid; the file appears whole or not at all.

    Args:
        path: ends in `.nii.gz` or `.nii`.
        foreground: gives `(classes - 1, slices, rows, columns)` uint8, 255 for probability 1: kidney, tumour.
            Background is what is left of 255. It is asked again for each block that is written, so that a file that
            is mapped need not stay so.
        geometry: the grid to write on.

    Raises:
        ValueError: a shape that does not fit.
    """
    given = foreground().shape
    grid = geometry.to_file(np.broadcast_to(np.uint8(0), given[1:])).shape
    if (given[0], *grid) != (NUM_CLASSES - 1, *geometry.shape):
        raise ValueError(f"probabilities of shape {given} do not fit the grid {geometry.shape}")
    shape = (*geometry.shape, NUM_CLASSES)
    header = volumes.image_on_grid(np.broadcast_to(np.uint8(0), shape), geometry).header
    header["descrip"] = f"probabilities: {', '.join(LABEL_NAMES.values())}"
    header["cal_max"] = 1
    header.set_slope_inter(SLOPE, 0)
    volumes.write_voxels(Path(path), header, _parts(foreground, geometry))


def _parts(foreground: Callable[[], np.ndarray], geometry: volumes.Geometry) -> Iterator[np.ndarray]:
    """Yields the voxels of one class after the other, as they lie in the file."""
    for label in range(NUM_CLASSES):
        for part in _blocks(geometry.shape):
            # a copy, so that of what is mapped no more than one class is held at a time
            needed = [label] if label else range(1, NUM_CLASSES)
            shown = [geometry.to_file(foreground()[one - 1])[..., part].copy() for one in needed]
            yield (shown[0] if label else _background(shown)).ravel(order="F")


def _blocks(shape: tuple[int, int, int]) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (shape[0] * shape[1]))
    return [slice(first, first + step) for first in range(0, shape[2], step)]


def _background(foreground: list[np.ndarray]) -> np.ndarray:
    """What is left of 255; sums of rounded bytes may be one more."""
    summed = sum(one.astype(np.int16) for one in foreground)
    return np.clip(255 - summed, 0, 255).astype(np.uint8)
