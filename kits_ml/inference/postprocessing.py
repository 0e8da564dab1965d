"""Cleaning a predicted label map: each step a pure function, all off by default.

Pieces of a region are voxels that touch, be it at a corner, as lesions are counted in `scores`. All is done in the
box around what is labelled, and in slabs of it, so that memory does not grow with the scan. The steps come in the
order of `STEPS`: holes first, since a filled kidney is larger; tumours last, since they are judged by the kidneys
that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from kits_ml.config import PostprocessingSettings
from kits_ml.errors import InputError
from kits_ml.inference.nearness import Nearness
from kits_ml.inference.pieces import Pieces
from kits_ml.labels import BACKGROUND, KIDNEY, TUMOUR

Spacing = Sequence[float]


def postprocess(label_map: np.ndarray, *, spacing_mm: Spacing | None, settings: PostprocessingSettings) -> np.ndarray:
    """Cleans a label map.

    Args:
        label_map: `(slices, rows, columns)` with values 0, 1, 2.
        spacing_mm: distance between slices, rows and columns; None will do where there is nothing to do.
        settings: what to do; with the defaults, nothing.

    Returns:
        A label map of the same shape and dtype; the same array where there is nothing to do. Of a map without
        labels, or one of which nothing is left, all is background.

    Raises:
        InputError: not three axes, no spacing.
    """
    if spacing_mm is None:
        if is_off(settings):
            return label_map
        raise InputError("spacing_mm: found none, expected three distances in mm; there is post-processing to do")
    if label_map.ndim != 3 or len(spacing_mm) != 3 or not all(0 < size < math.inf for size in spacing_mm):
        raise InputError(
            f"label map of shape {label_map.shape} with spacing {tuple(spacing_mm)} mm: expected three axes "
            "(slices, rows, columns) and a positive spacing for each"
        )
    box = _labelled_box(label_map)
    if box is None or is_off(settings):
        return label_map
    cleaned = label_map.copy()
    for step in STEPS:
        step(cleaned[box], spacing_mm=tuple(spacing_mm), settings=settings)
    return cleaned


def is_off(settings: PostprocessingSettings) -> bool:
    """Whether the settings leave every label map as it is."""
    return settings.select(PostprocessingSettings) == PostprocessingSettings()


def settings_of(description: Mapping[str, Any], *, source: str) -> PostprocessingSettings:
    """The post-processing that is stored with a model; none if nothing is.

    Args:
        description: the model's, see `Predictor`.
        source: the model, for the error message.

    Raises:
        InputError: settings that are not known here.
    """
    return PostprocessingSettings.from_mapping(description.get("postprocessing") or {}, source=f"{source}: stored")


def _fill_holes(label_map: np.ndarray, *, spacing_mm: Spacing, settings: PostprocessingSettings) -> None:
    """Labels enclosed background: as tumour where tumour alone encloses it, else as kidney.

    What leads outside by faces only through labels is enclosed. `slices` looks within each slice; there fat of the
    renal sinus may be enclosed as well.
    """
    if settings.fill_holes == "none":
        return
    fill = _fill_volume if settings.fill_holes == "volume" else _fill_slices
    fill(label_map, TUMOUR, lambda part: label_map[part] == TUMOUR)
    fill(label_map, KIDNEY, lambda part: label_map[part] != BACKGROUND)


def _fill_volume(label_map: np.ndarray, value: int, walls: Callable[[slice], np.ndarray]) -> None:
    rest = Pieces(lambda part: ~walls(part), label_map.shape, corners=False)
    enclosed = ~rest.at_the_border()
    enclosed[0] = False
    if not enclosed.any():
        return
    for part, numbers in rest.numbers():
        one = label_map[part]
        one[enclosed[numbers] & (one == BACKGROUND)] = value


def _fill_slices(label_map: np.ndarray, value: int, walls: Callable[[slice], np.ndarray]) -> None:
    for index, one in enumerate(label_map):
        (wall,) = walls(slice(index, index + 1))
        if wall.any():
            one[ndimage.binary_fill_holes(wall) & (one == BACKGROUND)] = value


def _clean_kidneys(label_map: np.ndarray, *, spacing_mm: Spacing, settings: PostprocessingSettings) -> None:
    """Removes pieces of kidney that are small, and all but the largest; their tumour goes with them.

    A kidney is a piece of kidney and tumour together, as it is scored, and that is its size. A piece of tumour alone
    is no kidney: it is left to `_clean_tumours`. Of two pieces with as many voxels the upper one counts as larger.
    """
    if not settings.minimum_kidney_ml and not settings.keep_largest_kidneys:
        return
    pieces = Pieces(lambda part: label_map[part] != BACKGROUND, label_map.shape)
    is_kidney = pieces.meeting(lambda part: label_map[part] == KIDNEY)
    removed = is_kidney & _is_smaller(pieces, settings.minimum_kidney_ml, spacing_mm)
    kept = np.flatnonzero(is_kidney & ~removed)
    if settings.keep_largest_kidneys:
        by_size = kept[np.argsort(-pieces.num_voxels[kept], kind="stable")]
        removed[by_size[settings.keep_largest_kidneys :]] = True
    _remove(label_map, pieces, removed)


def _clean_tumours(label_map: np.ndarray, *, spacing_mm: Spacing, settings: PostprocessingSettings) -> None:
    """Removes pieces of tumour away from all kidney, and small ones; one that touches kidney becomes kidney."""
    if settings.tumour_contact_mm is None and not settings.minimum_tumour_ml:
        return
    pieces = Pieces(lambda part: label_map[part] == TUMOUR, label_map.shape)
    if not pieces.count:
        return
    kidney = label_map == KIDNEY
    touching = pieces.meeting(Nearness(kidney, spacing_mm=spacing_mm, distance_mm=0))
    near = touching
    if settings.tumour_contact_mm:
        near = pieces.meeting(Nearness(kidney, spacing_mm=spacing_mm, distance_mm=settings.tumour_contact_mm))
    removed = _is_smaller(pieces, settings.minimum_tumour_ml, spacing_mm)
    if settings.tumour_contact_mm is not None:
        removed |= ~near
    values = np.where(touching, KIDNEY, BACKGROUND).astype(label_map.dtype)
    _remove(label_map, pieces, removed, values=values)


#: In this order; each changes the part of a label map that holds all labels.
STEPS = (_fill_holes, _clean_kidneys, _clean_tumours)


def _is_smaller(pieces: Pieces, minimum_ml: float, spacing_mm: Spacing) -> np.ndarray:
    voxel_ml = math.prod(spacing_mm) / 1000
    return pieces.num_voxels * voxel_ml < minimum_ml * (1 - 1e-9)  # spacing comes in float32


def _remove(label_map: np.ndarray, pieces: Pieces, removed: np.ndarray, *, values: np.ndarray | None = None) -> None:
    """Gives the voxels of removed pieces another value, background if none is given for each piece.

    The pieces are found in the label map itself, a slab at a time, and each slab is changed after it was numbered; so
    they are of no use afterwards.
    """
    removed = removed.copy()
    removed[0] = False
    if not removed.any():
        return
    for part, numbers in pieces.numbers():
        gone = removed[numbers]
        label_map[part][gone] = BACKGROUND if values is None else values[numbers[gone]]


def _labelled_box(label_map: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box with all that is labelled; None where nothing is."""
    along = np.array([one.any() for one in label_map], bool)
    if not along.any():
        return None
    across = np.zeros(label_map.shape[1:], bool)
    for index in np.flatnonzero(along):
        across |= label_map[index] != BACKGROUND
    lines = (along, across.any(axis=1), across.any(axis=0))
    return tuple(slice(int(np.argmax(line)), len(line) - int(np.argmax(line[::-1]))) for line in lines)
