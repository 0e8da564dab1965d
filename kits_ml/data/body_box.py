"""Where the body lies in the slices' plane, without the CT table."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Skin, fat and everything denser lie above this; mattresses, blankets and air below it.
BODY_HU = -300.0
#: Longer side of the coarse grid on which the body is told from the table: 4 pixels of a 512 x 512 slice are one.
COARSE_SIZE = 128
#: A slice whose largest piece is smaller than this share of the largest piece of all shows no body.
SMALLEST_SHARE = 0.1

#: Slices that are looked at together.
BLOCK_SLICES = 8

Box = tuple[tuple[int, int], tuple[int, int]]


def find_body_box(image: np.ndarray) -> Box | None:
    """Finds the smallest box in the slices' plane around the body in all slices.

    In each slice, what lies above -300 HU is brought to a coarse grid of at most 128 x 128 pixels and opened, which
    removes the shell of the table and thin contacts with it; the largest piece that is left is the body. Arms that
    lie apart from the trunk do not count. Where the table cannot be told from the body it stays in the box: nothing
    of the trunk is left out for being near the table. Memory does not grow with the number of slices.

    Args:
        image: `(slices, rows, columns)` in HU.

    Returns:
        First and one past the last row, and the same for columns. None where no body can be told: nothing large lies
        above -300 HU, or nothing lies below it (values that were clipped to a window, where fat looks like air).
    """
    row_edges, column_edges = (_coarse_edges(size, max(image.shape[1:])) for size in image.shape[1:])
    pieces = []
    has_air = False
    for start in range(0, len(image), BLOCK_SLICES):
        block = np.ascontiguousarray(image[start : start + BLOCK_SLICES])  # files store slices fastest
        has_air = has_air or bool(block.min() < BODY_HU)
        pieces += [_largest_piece(one > BODY_HU, row_edges, column_edges) for one in block]
    largest = max(area for area, _ in pieces)
    if not has_air or not largest:
        return None
    boxes = np.array([box for area, box in pieces if area >= SMALLEST_SHARE * largest])  # (slices, axis, first/last)
    rows, columns = zip(boxes[..., 0].min(axis=0).tolist(), boxes[..., 1].max(axis=0).tolist(), strict=True)
    return rows, columns


def _coarse_edges(size: int, longer_side: int) -> np.ndarray:
    """Edges of the coarse pixels along an axis, the same from either end; `(pixels + 1,)`."""
    step = -(-longer_side // COARSE_SIZE)
    num_pixels = -(-size // step)
    return (2 * np.arange(num_pixels + 1) * size + num_pixels) // (2 * num_pixels)


def _largest_piece(mask: np.ndarray, row_edges: np.ndarray, column_edges: np.ndarray) -> tuple[int, Box]:
    """Area (coarse pixels) and box (fine pixels) of the largest connected piece of a slice after opening."""
    sums = np.add.reduceat(np.add.reduceat(mask, row_edges[:-1], axis=0, dtype=np.int32), column_edges[:-1], axis=1)
    coarse = 2 * sums > np.outer(np.diff(row_edges), np.diff(column_edges))
    padded = np.pad(coarse, 1, mode="edge")  # what the scan cuts off goes on beyond it
    opened = ndimage.binary_opening(padded)[1:-1, 1:-1]
    labelled, num_pieces = ndimage.label(opened)
    if not num_pieces:
        return 0, ((0, 0), (0, 0))
    areas = np.bincount(labelled.ravel())[1:]
    rows, columns = ndimage.find_objects(labelled)[int(areas.argmax())]
    # one coarse pixel more on each side: half-covered ones and the corners that opening took
    first_row, last_row = max(rows.start - 1, 0), min(rows.stop + 1, len(row_edges) - 1)
    first_column, last_column = max(columns.start - 1, 0), min(columns.stop + 1, len(column_edges) - 1)
    return int(areas.max()), (
        (int(row_edges[first_row]), int(row_edges[last_row])),
        (int(column_edges[first_column]), int(column_edges[last_column])),
    )
