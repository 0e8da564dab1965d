"""How long a piece is, and what else is known of it, added up from parts: nothing of a volume's size is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist


def largest_diameter(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Largest distance between two points of a mask's surface, in millimetres: Feret's diameter.

    The surface is taken midway between neighbouring voxels of which one is in the mask, which is where a triangle
    mesh at 0.5 has its corners (pyradiomics' Maximum3DDiameter). A sphere so keeps its diameter, where the distance
    of voxel centres would fall short by about a voxel; a single voxel measures its longest edge.

    Args:
        mask: boolean, two or three axes, at least one voxel; its surroundings count as outside.
        spacing_mm: distance between voxels along each axis.
    """
    return _farthest(outermost(mask), spacing_mm)


def outermost(mask: np.ndarray) -> np.ndarray:
    """The corners of the convex hull of a mask's surface, see `largest_diameter`.

    Of the surface's points on a line along the last axis only the first and the last can be corners, so no more are
    made of them.

    Args:
        mask: boolean, two or three axes, at least one voxel.

    Returns:
        `(points, axes)` float64, in voxels.
    """
    found = []
    for axis in range(mask.ndim):
        padding = [(int(one == axis),) * 2 for one in range(mask.ndim)]
        steps = np.diff(np.pad(mask, padding), axis=axis)  # where neighbours differ
        lines = np.argwhere(steps.any(axis=-1))
        along = steps[tuple(lines.T)]
        for place in (along.argmax(axis=1), along.shape[1] - 1 - along[:, ::-1].argmax(axis=1)):
            points = np.column_stack([lines, place]).astype(float)
            points[:, axis] -= 0.5
            found.append(points)
    return _corners(np.concatenate(found))


class Shape:
    """A piece, added up from its parts; places are counted from the scan's first voxel.

    Args:
        num_columns: of the scan.

    Attributes:
        by_column: how many of its voxels lie in each column of the scan.
        first_slice, end_slice: where it begins, and one past its last slice.
        hu_sum: of its tissue.
        confidence_sum: of its tissue, each from 0 to 255.
        axial_mm: by slice, the largest diameter there; empty unless it was asked for.
    """

    def __init__(self, num_columns: int):
        self.by_column = np.zeros(num_columns, np.int64)
        self.first_slice = self.end_slice = 0
        self.hu_sum = 0.0
        self.confidence_sum = 0
        self.axial_mm: dict[int, float] = {}
        self._corners: list[np.ndarray] = []

    def add(
        self,
        mask: np.ndarray,
        start: Sequence[int],
        *,
        tissue: np.ndarray,
        image: np.ndarray,
        confidence: np.ndarray | None,
    ) -> None:
        """Adds a part; parts come in the order of their slices.

        Args:
            mask: which voxels it has in its smallest box, `(slices, rows, columns)` bool.
            start: where that box begins.
            tissue: which of them are measured, the same shape.
            image, confidence: of that box.
        """
        if not self._corners:
            self.first_slice = start[0]
        self.end_slice = start[0] + len(mask)
        self.by_column[start[2] : start[2] + mask.shape[2]] += mask.sum(axis=(0, 1))
        self.hu_sum += float(image[tissue].sum(dtype=np.float64))
        if confidence is not None:
            self.confidence_sum += int(confidence[tissue].sum(dtype=np.int64))
        self._corners.append(outermost(mask) + np.asarray(start))

    def add_axial(self, mask: np.ndarray, first_slice: int, spacing_mm: Sequence[float]) -> None:
        """Measures each slice of a part; slices lie in one part alone.

        Args:
            mask: of the part.
            first_slice: where it begins.
            spacing_mm: along rows and columns.
        """
        for index, one in enumerate(mask, start=first_slice):
            if one.any():  # parts that hang together elsewhere may leave slices out
                self.axial_mm[index] = largest_diameter(one, spacing_mm)

    def length_mm(self, spacing_mm: Sequence[float]) -> float:
        """Its largest diameter: between corners of its parts' hulls, for no other point can be one of its own."""
        return _farthest(_corners(np.concatenate(self._corners)), spacing_mm)


def _corners(points: np.ndarray) -> np.ndarray:
    return points[ConvexHull(points).vertices]


def _farthest(points: np.ndarray, spacing_mm: Sequence[float]) -> float:
    return float(pdist(points * np.asarray(spacing_mm, float)).max())
