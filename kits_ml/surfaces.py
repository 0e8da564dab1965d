"""Distances between the surfaces of two masks, and the scores that come from them.

Array axes are `(slices, rows, columns)` and `spacing_mm` has the same order. A single slice is a volume one voxel
thick: its surface has an upper and a lower face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import spatial

# Only the tables of `surface-distance` 0.1: its functions use `np.Inf` (gone in NumPy 2) and `scipy.ndimage.filters`
# (deprecated), keep whole volumes of distances and sort in Python. A test holds `surface_distances` to its results.
from surface_distance import lookup_tables

Spacing = tuple[float, float, float]

#: Voxels looked at in one go: bounds the memory, whatever the number of slices.
_CHUNK_VOXELS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances from each surface element to the nearest one of the other surface, and the elements' areas.

    Attributes:
        true_to_pred_mm, areas_true_mm2: `(num_elements_true,)` float64.
        pred_to_true_mm, areas_pred_mm2: `(num_elements_pred,)` float64.
    """

    true_to_pred_mm: np.ndarray
    areas_true_mm2: np.ndarray
    pred_to_true_mm: np.ndarray
    areas_pred_mm2: np.ndarray


def surface_distances(mask_true: np.ndarray, mask_pred: np.ndarray, *, spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between two surfaces, as DeepMind's `surface-distance` defines them.

    The surface runs through the corners between voxels; an element's area follows from its eight voxels (marching
    cubes). Memory goes with the surfaces, not with the volume. Source: Nikolov et al., JMIR 2021, e26151.

    Args:
        mask_true: boolean, `(slices, rows, columns)`, not empty.
        mask_pred: boolean, the same shape, not empty.
        spacing_mm: distance between slices, rows and columns.

    Raises:
        ValueError: an empty mask, which has no surface.
    """
    areas_mm2 = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    corners_true, codes_true = _surface(mask_true)
    corners_pred, codes_pred = _surface(mask_pred)
    if not len(corners_true) or not len(corners_pred):
        raise ValueError(f"masks with {mask_true.sum()} and {mask_pred.sum()} voxels: expected none to be empty")
    points_true, points_pred = corners_true * np.asarray(spacing_mm), corners_pred * np.asarray(spacing_mm)
    return SurfaceDistances(
        true_to_pred_mm=spatial.KDTree(points_pred).query(points_true)[0],
        areas_true_mm2=areas_mm2[codes_true],
        pred_to_true_mm=spatial.KDTree(points_true).query(points_pred)[0],
        areas_pred_mm2=areas_mm2[codes_pred],
    )


def surface_dice(distances: SurfaceDistances, *, tolerance_mm: float) -> float:
    """The part of both surfaces' area that lies within `tolerance_mm` of the other surface, in [0, 1]."""
    near = distances.areas_true_mm2[distances.true_to_pred_mm <= tolerance_mm].sum()
    near += distances.areas_pred_mm2[distances.pred_to_true_mm <= tolerance_mm].sum()
    return float(near / (distances.areas_true_mm2.sum() + distances.areas_pred_mm2.sum()))


def hausdorff_mm(distances: SurfaceDistances, *, percent: float = 95.0) -> float:
    """The distance that `percent` of a surface's area keeps to the other surface; the larger of both directions."""
    return max(
        _percentile(distances.true_to_pred_mm, distances.areas_true_mm2, percent),
        _percentile(distances.pred_to_true_mm, distances.areas_pred_mm2, percent),
    )


def mean_distance_mm(distances: SurfaceDistances) -> float:
    """The mean distance over both surfaces, each element weighted by its area."""
    weighted = (
        distances.true_to_pred_mm @ distances.areas_true_mm2 + distances.pred_to_true_mm @ distances.areas_pred_mm2
    )
    return float(weighted / (distances.areas_true_mm2.sum() + distances.areas_pred_mm2.sum()))


def occupied(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices along each axis that hold a mask and, for each gap between them, one empty index that keeps it a gap.

    `mask[np.ix_(*occupied(mask))]` is the mask without its empty space: two kidneys and a stray voxel far away take
    little more room than the kidneys, and what touches, and what does not, stays so.

    Args:
        mask: boolean, three axes.
    """
    lines = (mask.any(axis=(1, 2)), mask.any(axis=0).any(axis=1), mask.any(axis=0).any(axis=0))
    kept = []
    for line in lines:
        after = np.zeros_like(line)
        after[1:] = line[:-1]
        kept.append(np.flatnonzero(line | after))
    return tuple(kept)


def _surface(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxel corners on the surface, `(num_elements, 3)` int, and their neighbourhood codes, `(num_elements,)` uint8.

    A corner's code has one bit for each of its eight voxels; the outside of the array is background. Corner i of an
    axis lies between the voxels i - 1 and i.
    """
    kept = occupied(mask)
    mask = mask[np.ix_(*kept)]
    if not mask.size:
        return np.zeros((0, 3), np.intp), np.zeros(0, np.uint8)
    places = [np.append(indices, indices[-1] + 1) for indices in kept]  # of each corner, before empty space went
    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL.astype(np.uint8)
    corners, found = [], []
    step = max(1, _CHUNK_VOXELS // mask[0].size)
    for start in range(0, len(mask) + 1, step):
        stop = min(start + step, len(mask) + 1)
        inside = mask[max(start - 1, 0) : stop]
        padding = (int(start == 0), int(stop == len(mask) + 1))
        slab = np.pad(inside, (padding, (1, 1), (1, 1))).view(np.uint8)
        codes = np.zeros([size - 1 for size in slab.shape], np.uint8)
        for (i, j, k), bit in np.ndenumerate(kernel):
            codes += bit * slab[i : i + codes.shape[0], j : j + codes.shape[1], k : k + codes.shape[2]]
        slices, rows, columns = np.nonzero((codes != 0) & (codes != 255))
        found.append(codes[slices, rows, columns])
        corners.append(np.stack([places[0][slices + start], places[1][rows], places[2][columns]], axis=1))
    return np.concatenate(corners), np.concatenate(found)


def _percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """The smallest value such that values up to it have `percent` of the weight."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(np.searchsorted(share, percent / 100), len(values) - 1)])
