"""Moves a slice and its labels together: flip, rotation, scale, shift and bending, resampled once.

The resampling is OpenCV's, which takes the coordinates of all changes at once and lets other threads run meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, kw_only=True)
class SpatialChange:
    """Where the content of a slice goes: flipped first, then rotated, scaled, shifted and bent.

    Attributes:
        flip_left_right: mirror the columns.
        flip_up_down: mirror the rows.
        rotation_degrees: counter-clockwise as seen, about the middle; 90 is `np.rot90`.
        scale: of lengths, about the middle; 2 makes a square four times as large.
        shift: to later rows and later columns, as shares of the numbers of rows and columns.
        bending: `(points, points, 2)` how far the source lies from where it would, on a coarse grid over the slice,
            as shares of the numbers of rows and columns; between the points cubic. None: not bent.
    """

    flip_left_right: bool = False
    flip_up_down: bool = False
    rotation_degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    bending: np.ndarray | None = None

    @property
    def is_none(self) -> bool:
        """Whether all stays in its place."""
        flipped = self.flip_left_right or self.flip_up_down
        moved = self.rotation_degrees != 0 or self.scale != 1 or self.shift != (0, 0)
        return not flipped and not moved and self.bending is None


def move(image: np.ndarray, label_map: np.ndarray, change: SpatialChange) -> tuple[np.ndarray, np.ndarray]:
    """Applies one change to an image (linear) and its labels (nearest); what comes from outside is 0.

    Args:
        image: `(rows, columns, slices)` float32; a slice with its neighbours, which all move alike.
        label_map: `(rows, columns)` uint8.

    Returns:
        Arrays of the same shapes and types; the same arrays where nothing moves.
    """
    if change.is_none:
        return image, label_map
    rows, columns = source_positions(label_map.shape, change)
    moved = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    labels = cv2.remap(label_map, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return moved.reshape(image.shape), labels  # OpenCV drops a last axis of 1


def source_positions(shape: tuple[int, int], change: SpatialChange) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's content comes from: the changes undone, last first.

    Args:
        shape: rows and columns.

    Returns:
        Row and column in the original, `shape` float32 each.
    """
    middle_row, middle_column = ((length - 1) / 2 for length in shape)
    rows = (np.arange(shape[0])[:, None] - middle_row - change.shift[0] * shape[0]) / change.scale
    columns = (np.arange(shape[1])[None, :] - middle_column - change.shift[1] * shape[1]) / change.scale
    cos, sin = np.cos(np.deg2rad(change.rotation_degrees)), np.sin(np.deg2rad(change.rotation_degrees))
    down, right = -1 if change.flip_up_down else 1, -1 if change.flip_left_right else 1
    from_rows = _outer_sum(middle_row + down * cos * rows, down * sin * columns)
    from_columns = _outer_sum(middle_column - right * sin * rows, right * cos * columns)
    if change.bending is not None:
        bent = cv2.resize(change.bending.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
        from_rows += bent[..., 0] * np.float32(shape[0])
        from_columns += bent[..., 1] * np.float32(shape[1])
    return from_rows, from_columns


def _outer_sum(by_row: np.ndarray, by_column: np.ndarray) -> np.ndarray:
    """`(rows, 1)` and `(1, columns)` -> `(rows, columns)` float32, which is what OpenCV takes."""
    return by_row.astype(np.float32) + by_column.astype(np.float32)
