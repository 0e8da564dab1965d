"""A scan cut and thinned out until it fits into a page, as NIfTI in base64."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from kits_ml.data.body_box import find_body_box
from kits_ml.labels import NUM_CLASSES

#: What a page holds of a scan. Two bytes a voxel that gzip halves and base64 swells by a third: some 16 MB.
MOST_VOXELS = 12_000_000

#: What is left around the body.
_MARGIN_MM = 10.0


@dataclass(frozen=True, kw_only=True)
class ViewerGrid:
    """Which part of a scan is shown, and how coarsely.

    Attributes:
        box: slices, rows and columns of the scan.
        steps: how many of its voxels are one in the viewer, along each of the three axes.
        is_cut: whether the scan has rows or columns outside the box.
    """

    box: tuple[slice, slice, slice]
    steps: tuple[int, int, int]
    is_cut: bool

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """Voxel-to-world matrix of the viewer's grid from the scan's, both in the house's axis order."""
        middle = [part.start + (step - 1) / 2 for part, step in zip(self.box, self.steps, strict=True)]
        shown = affine.astype(float).copy()
        shown[:3, 3] = affine[:3, :3] @ middle + affine[:3, 3]
        shown[:3, :3] = affine[:3, :3] * self.steps
        return shown

    def note(self) -> str:
        """What a reader should know; empty where the whole scan is shown as it is."""
        told = ["cut to the body"] if self.is_cut else []
        if self.steps != (1, 1, 1):
            axes = ("slices", "rows", "columns")
            told.append(
                "averaged over "
                + " and ".join(f"{step} {axis}" for step, axis in zip(self.steps, axes, strict=True) if step > 1)
            )
        if not told:
            return ""
        return f"Shown here {' and '.join(told)}; volumes and diameters are measured on the whole scan."


def fit_grid(
    image: np.ndarray, label_map: np.ndarray, *, spacing_mm: Sequence[float], most_voxels: int = MOST_VOXELS
) -> ViewerGrid:
    """The body and all that is labelled, thinned out along the finest axes until it has few enough voxels.

    Rows and columns go together, so that pixels keep their shape.

    Args:
        image: `(slices, rows, columns)` in HU.
        label_map: the same shape.
        spacing_mm: distance between slices, rows and columns.
        most_voxels: how many fit.
    """
    box = (slice(0, len(image)), *_shown_plane(image, label_map, spacing_mm[1:]))
    sizes = [part.stop - part.start for part in box]
    step_slices, step_plane = 1, 1
    while math.prod(_blocks(sizes, (step_slices, step_plane, step_plane))) > most_voxels:
        finest = spacing_mm[0] * step_slices < max(spacing_mm[1:]) * step_plane
        if finest and step_slices < sizes[0]:
            step_slices += 1
        else:
            step_plane += 1
    steps = (step_slices, *(min(step_plane, size) for size in sizes[1:]))
    return ViewerGrid(box=box, steps=steps, is_cut=tuple(sizes) != image.shape)


def block_means(array: np.ndarray, grid: ViewerGrid) -> np.ndarray:
    """Means over the grid's blocks, `(slices, rows, columns)` float32; what fills no block at the end is left out."""
    return np.stack([_mean(blocks) for blocks in _rows_of_blocks(array, grid)])


def encode_image(image: np.ndarray, grid: ViewerGrid, affine: np.ndarray) -> str:
    """HU as int16."""
    return _encode(np.clip(np.rint(block_means(image, grid)), -32768, 32767).astype(np.int16), grid.affine(affine))


def encode_labels(label_map: np.ndarray, grid: ViewerGrid, affine: np.ndarray) -> str:
    """The label that most voxels of a block have, the smaller of two alike, as uint8."""
    if grid.steps == (1, 1, 1):
        return _encode(label_map[grid.box].astype(np.uint8), grid.affine(affine))
    labels = [
        np.argmax([_mean(blocks == label) for label in range(NUM_CLASSES)], axis=0).astype(np.uint8)
        for blocks in _rows_of_blocks(label_map, grid)
    ]
    return _encode(np.stack(labels), grid.affine(affine))


def encode_bytes(byte_map: np.ndarray, grid: ViewerGrid, affine: np.ndarray) -> str:
    """An 8-bit map's means as uint8."""
    return _encode(np.rint(block_means(byte_map, grid)).astype(np.uint8), grid.affine(affine))


def _rows_of_blocks(array: np.ndarray, grid: ViewerGrid) -> Iterator[np.ndarray]:
    """For each slice of the viewer its blocks, `(slices, rows, step, columns, step)`: no second volume in memory."""
    part = array[grid.box]
    num_slices, num_rows, num_columns = _blocks(part.shape, grid.steps)
    step_slices, step_rows, step_columns = grid.steps
    for first in range(0, num_slices * step_slices, step_slices):
        block = part[first : first + step_slices, : num_rows * step_rows, : num_columns * step_columns]
        yield block.reshape(len(block), num_rows, step_rows, num_columns, step_columns)


def _mean(blocks: np.ndarray) -> np.ndarray:
    return blocks.mean(axis=(0, 2, 4), dtype=np.float32)


def _encode(array: np.ndarray, affine: np.ndarray) -> str:
    """NIfTI, gzip, base64; equal volumes give equal text."""
    payload = nib.Nifti1Image(array, affine).to_bytes()
    return base64.b64encode(gzip.compress(payload, compresslevel=6, mtime=0)).decode()


def _blocks(sizes: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(1, size // step) for size, step in zip(sizes, steps, strict=True))


def _shown_plane(image: np.ndarray, label_map: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns of the body with a margin, and of all that is labelled."""
    body = find_body_box(image) or tuple((0, size) for size in image.shape[1:])
    labelled = np.zeros(image.shape[1:], bool)
    for one in label_map:
        labelled |= one > 0
    shown = []
    for axis, (first, end) in enumerate(body):
        margin = math.ceil(_MARGIN_MM / spacing_mm[axis])
        first, end = max(0, first - margin), min(image.shape[axis + 1], end + margin)
        hits = np.flatnonzero(labelled.any(axis=1 - axis))
        if len(hits):
            first, end = min(first, int(hits[0])), max(end, int(hits[-1]) + 1)
        shown.append(slice(first, end))
    return shown[0], shown[1]
