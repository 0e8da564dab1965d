"""Scores of one case: how much of the reference a prediction has, and how far off its surface lies.

Every score is of whole volumes on the scan's own grid, by region: `kidney` is label 1 or 2, `tumour` is label 2
(`labels.REGIONS`). The rule for empty masks is that of KiTS21/23: both empty is 1, one empty is 0, for every overlap
score. Distances have no value then: they are NaN, and whoever averages them says how many were left out.

Array axes are `(slices, rows, columns)` and `spacing_mm` has the same order, everywhere in this file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits_ml import labels
from kits_ml.errors import InputError
from kits_ml.surfaces import hausdorff_mm, mean_distance_mm, occupied, surface_dice, surface_distances

#: Surface Dice tolerances of KiTS21/23 ("kidney and masses" and "tumour"), from the disagreement between annotators.
SURFACE_TOLERANCE_MM: Mapping[str, float] = {"kidney": 1.0330773, "tumour": 1.1498198}

#: Lesions by the diameter of the sphere of their volume: name and upper bound in mm. 40 and 70 mm are the bounds of
#: the TNM stages T1a, T1b and T2.
LESION_SIZE_CLASSES: Mapping[str, float] = {
    "under_20_mm": 20.0,
    "20_to_40_mm": 40.0,
    "40_to_70_mm": 70.0,
    "over_70_mm": math.inf,
}

#: The part of a lesion that must overlap for it to count as found (or, of a predicted one, as not false).
LESION_OVERLAP = 0.1

#: Voxels looked at in one go: bounds the memory, whatever the number of slices.
_CHUNK_VOXELS = 1 << 22

Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """The scores of one region in one case.

    Attributes:
        region: a key of `labels.REGIONS`.
        dice, iou: overlap in [0, 1]; both masks empty: 1, one empty: 0.
        surface_dice: part of both surfaces that lies within `SURFACE_TOLERANCE_MM` of the other, in [0, 1]; both
            empty: 1, one empty: 0. NaN where surfaces were not asked for.
        precision: part of the prediction that is right, in [0, 1]; empty prediction: 1 if the reference is empty,
            else 0.
        recall: part of the reference that was predicted, in [0, 1]; empty reference: 1 if the prediction is empty,
            else 0.
        volume_true_ml, volume_pred_ml: volumes in ml.
        volume_error_ml: predicted minus true volume in ml; positive where too much was predicted.
        hd95_mm: 95th percentile of the surface distances, the larger of both directions; NaN where a mask is empty.
        mean_surface_distance_mm: mean over both surfaces, weighted by area; NaN where a mask is empty.
        lesions_true, lesions_found, lesions_false: lesions in the reference, those of them that were found, and
            predicted lesions that are none (see `count_lesions`); None for a region without lesions (kidney).
        lesions_true_by_size, lesions_found_by_size, lesions_false_by_size: the same for each of
            `LESION_SIZE_CLASSES`; empty for a region without lesions.
    """

    region: str
    dice: float
    iou: float
    surface_dice: float = math.nan
    precision: float
    recall: float
    volume_true_ml: float
    volume_pred_ml: float
    volume_error_ml: float
    hd95_mm: float = math.nan
    mean_surface_distance_mm: float = math.nan
    lesions_true: int | None = None
    lesions_found: int | None = None
    lesions_false: int | None = None
    lesions_true_by_size: tuple[int, ...] = ()
    lesions_found_by_size: tuple[int, ...] = ()
    lesions_false_by_size: tuple[int, ...] = ()


def score_case(
    label_map_true: np.ndarray, label_map_pred: np.ndarray, *, spacing_mm: Spacing, surfaces: bool = True
) -> dict[str, RegionScores]:
    """Scores a predicted label map against the reference, region by region.

    Args:
        label_map_true: reference, `(slices, rows, columns)`, integers 0, 1, 2.
        label_map_pred: prediction on the same grid, same shape and values.
        spacing_mm: the reference's distance between slices, rows and columns.
        surfaces: whether to measure surfaces too; without, those scores are NaN.

    Returns:
        The scores by region name.

    Raises:
        InputError: shapes that differ, not three axes, or values other than 0, 1, 2.
    """
    _check_pair(label_map_true, label_map_pred)
    if label_map_true.ndim != 3 or len(spacing_mm) != 3 or not all(0 < size < math.inf for size in spacing_mm):
        raise InputError(
            f"label maps of shape {label_map_true.shape} with spacing {tuple(spacing_mm)} mm: expected three axes "
            "(slices, rows, columns) and a positive spacing for each"
        )
    box = _joint_box(label_map_true, label_map_pred)
    true, pred = np.ascontiguousarray(label_map_true[box]), np.ascontiguousarray(label_map_pred[box])
    matrix = confusion_matrix(true, pred)  # outside the box both are background, which no region counts
    return {
        region: _score_region(true, pred, region=region, matrix=matrix, spacing_mm=spacing_mm, surfaces=surfaces)
        for region in labels.REGIONS
    }


def score_missing(
    label_map_true: np.ndarray, *, spacing_mm: Spacing, surfaces: bool = True
) -> dict[str, RegionScores]:
    """The scores of a case that has no prediction at all: the worst there is.

    Unlike an empty prediction it gets 0 for a region that the reference does not contain either, so that leaving
    out a case never pays. Distances are NaN, and all lesions are missed.

    Args:
        label_map_true: reference, `(slices, rows, columns)`, integers 0, 1, 2.
        spacing_mm: distance between slices, rows and columns.
        surfaces: whether surface scores are asked for; without, they are NaN as for any other case.
    """
    nothing = np.broadcast_to(np.uint8(0), label_map_true.shape)
    scores = score_case(label_map_true, nothing, spacing_mm=spacing_mm, surfaces=False)
    worst = dict.fromkeys(("dice", "iou", "precision", "recall"), 0.0)
    worst["surface_dice"] = 0.0 if surfaces else math.nan
    return {region: RegionScores(**{**vars(found), **worst}) for region, found in scores.items()}


def composite_dice(scores: Mapping[str, RegionScores]) -> float:
    """The KiTS19 score of a case: the mean of kidney and tumour Dice, in [0, 1]."""
    return (scores["kidney"].dice + scores["tumour"].dice) / 2


def confusion_matrix(
    label_map_true: np.ndarray, label_map_pred: np.ndarray, num_classes: int = labels.NUM_CLASSES
) -> np.ndarray:
    """Counts voxels by true and predicted label. Matrices of parts of a volume add up to that of the whole.

    Args:
        label_map_true: integers in [0, num_classes), any shape.
        label_map_pred: the same shape.
        num_classes: number of labels.

    Returns:
        `(num_classes, num_classes)` int64; row = true label, column = predicted label.

    Raises:
        InputError: shapes that differ, or values out of range (which must not vanish silently).
    """
    _check_pair(label_map_true, label_map_pred)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for true, pred in _chunks(label_map_true, label_map_pred):
        for name, values in (("true", true), ("predicted", pred)):
            lowest, highest = values.min(), values.max()
            if lowest < 0 or highest >= num_classes:
                bad = highest if lowest >= 0 else lowest
                raise InputError(f"{name} label map: found label {bad}, expected 0 to {num_classes - 1}")
        pairs = true.astype(np.intp)
        pairs *= num_classes
        pairs += pred
        matrix += np.bincount(pairs.ravel(), minlength=matrix.size).reshape(matrix.shape)
    return matrix


def confusion_of_volumes(label_map_true: np.ndarray, label_map_pred: np.ndarray) -> np.ndarray:
    """`confusion_matrix` of two whole volumes, of which only what one of them labels is looked at twice."""
    _check_pair(label_map_true, label_map_pred)
    box = _joint_box(label_map_true, label_map_pred)
    matrix = confusion_matrix(label_map_true[box], label_map_pred[box])
    matrix[labels.BACKGROUND, labels.BACKGROUND] += label_map_true.size - label_map_true[box].size
    return matrix


def region_counts(matrix: np.ndarray, region: str) -> tuple[int, int, int]:
    """What overlap scores are made of.

    Args:
        matrix: `confusion_matrix` with three classes.
        region: a key of `labels.REGIONS`.

    Returns:
        Voxels of the region in the reference, in the prediction, and in both.
    """
    members = list(labels.REGIONS[region])
    return int(matrix[members].sum()), int(matrix[:, members].sum()), int(matrix[np.ix_(members, members)].sum())


def dice_from_counts(num_true: int, num_pred: int, num_both: int) -> float:
    """Dice, `2 both / (true + pred)`, in [0, 1]; both empty: 1."""
    return 2 * num_both / (num_true + num_pred) if num_true + num_pred else 1.0


def iou_from_counts(num_true: int, num_pred: int, num_both: int) -> float:
    """Intersection over union, `both / (true + pred - both)`, in [0, 1]; both empty: 1."""
    return num_both / (num_true + num_pred - num_both) if num_true + num_pred else 1.0


def precision_from_counts(num_true: int, num_pred: int, num_both: int) -> float:
    """`both / pred`, in [0, 1]; empty prediction: 1 if the reference is empty too, else 0."""
    return num_both / num_pred if num_pred else float(num_true == 0)


def recall_from_counts(num_true: int, num_pred: int, num_both: int) -> float:
    """`both / true`, in [0, 1]; empty reference: 1 if the prediction is empty too, else 0."""
    return num_both / num_true if num_true else float(num_pred == 0)


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """IoU of each label by itself, background included; both empty: 1.

    Args:
        matrix: `confusion_matrix`, `(num_classes, num_classes)`.

    Returns:
        `(num_classes,)` float64 in [0, 1]. Their mean is the mean IoU, done right.
    """
    both, true, pred = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return np.array([iou_from_counts(*counts) for counts in zip(true, pred, both, strict=True)], float)


def count_lesions(mask_true: np.ndarray, mask_pred: np.ndarray, *, spacing_mm: Spacing) -> dict[str, tuple[int, ...]]:
    """Counts lesions: pieces of a mask whose voxels touch, be it at a corner.

    A lesion of the reference is found if at least `LESION_OVERLAP` of it was predicted; a predicted lesion is false
    if less than `LESION_OVERLAP` of it lies on the reference. So swapping the masks swaps missed and false ones,
    and a prediction of tumour everywhere is a false lesion, for all it finds.

    Args:
        mask_true: boolean, `(slices, rows, columns)`.
        mask_pred: boolean, the same shape.
        spacing_mm: distance between slices, rows and columns.

    Returns:
        `"true"`, `"found"` and `"false"`: a count for each of `LESION_SIZE_CLASSES`, by the lesion's own size.
    """
    voxel_mm3 = math.prod(spacing_mm)
    dense = np.ix_(*occupied(mask_true | mask_pred))
    mask_true, mask_pred = mask_true[dense], mask_pred[dense]
    sizes_true, met_true = _lesions(mask_true, mask_pred, voxel_mm3)
    sizes_pred, met_pred = _lesions(mask_pred, mask_true, voxel_mm3)
    num_classes = len(LESION_SIZE_CLASSES)
    by_class = {"true": sizes_true, "found": sizes_true[met_true], "false": sizes_pred[~met_pred]}
    return {name: tuple(np.bincount(sizes, minlength=num_classes).tolist()) for name, sizes in by_class.items()}


def _score_region(
    true: np.ndarray, pred: np.ndarray, *, region: str, matrix: np.ndarray, spacing_mm: Spacing, surfaces: bool
) -> RegionScores:
    counts = region_counts(matrix, region)
    num_true, num_pred, _ = counts
    voxel_ml = math.prod(spacing_mm) / 1000
    measured: dict[str, float | int | tuple[int, ...]] = {}
    mask_true, mask_pred = labels.region_mask(true, region), labels.region_mask(pred, region)
    if region == "tumour":
        for name, by_size in count_lesions(mask_true, mask_pred, spacing_mm=spacing_mm).items():
            measured |= {f"lesions_{name}": sum(by_size), f"lesions_{name}_by_size": by_size}
    if surfaces and num_true and num_pred:
        distances = surface_distances(mask_true, mask_pred, spacing_mm=spacing_mm)
        measured["surface_dice"] = surface_dice(distances, tolerance_mm=SURFACE_TOLERANCE_MM[region])
        measured["hd95_mm"] = hausdorff_mm(distances)
        measured["mean_surface_distance_mm"] = mean_distance_mm(distances)
    elif surfaces:
        measured["surface_dice"] = float(num_true == num_pred)
    return RegionScores(
        region=region,
        dice=dice_from_counts(*counts),
        iou=iou_from_counts(*counts),
        precision=precision_from_counts(*counts),
        recall=recall_from_counts(*counts),
        volume_true_ml=num_true * voxel_ml,
        volume_pred_ml=num_pred * voxel_ml,
        volume_error_ml=(num_pred - num_true) * voxel_ml,
        **measured,
    )


def _check_pair(label_map_true: np.ndarray, label_map_pred: np.ndarray) -> None:
    if label_map_true.shape != label_map_pred.shape:
        raise InputError(
            f"predicted label map: shape {label_map_pred.shape}, expected the reference's {label_map_true.shape}"
        )
    for name, array in (("true", label_map_true), ("predicted", label_map_pred)):
        if array.dtype.kind not in "iu":
            raise InputError(f"{name} label map: found dtype {array.dtype}, expected integers")


def _chunks(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Slabs of arrays of one shape, in the memory order of the first: NIfTI files are read with columns outermost."""
    if arrays[0].size == 0:
        return
    if arrays[0].ndim == 0:
        arrays = tuple(array.reshape(1) for array in arrays)
    axes = np.argsort([-abs(stride) for stride in arrays[0].strides], kind="stable")  # outermost first
    arrays = tuple(array.transpose(axes) for array in arrays)
    step = max(1, _CHUNK_VOXELS * len(arrays[0]) // arrays[0].size)
    for start in range(0, len(arrays[0]), step):
        yield [array[start : start + step] for array in arrays]


def _joint_box(label_map_true: np.ndarray, label_map_pred: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box with all that is not background in either; the corner voxel if there is nothing."""
    axes = np.argsort([-abs(stride) for stride in label_map_true.strides], kind="stable")
    along, across = [], np.zeros([label_map_true.shape[axis] for axis in axes[1:]], bool)
    for true, pred in _chunks(label_map_true, label_map_pred):
        foreground = (true != 0) | (pred != 0)
        along.append(foreground.any(axis=(1, 2)))
        across |= foreground.any(axis=0)
    seen = (np.concatenate(along), across.any(axis=1), across.any(axis=0))
    box = [slice(0, 1)] * 3
    for axis, hits in zip(axes, (np.flatnonzero(line) for line in seen), strict=True):
        if len(hits):
            box[axis] = slice(int(hits[0]), int(hits[-1]) + 1)
    return tuple(box)


def _lesions(mask: np.ndarray, other: np.ndarray, voxel_mm3: float) -> tuple[np.ndarray, np.ndarray]:
    """Each lesion's index in `LESION_SIZE_CLASSES`, and whether enough of it lies on the other mask."""
    pieces, num_pieces = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    num_voxels = np.bincount(pieces[mask], minlength=num_pieces + 1)[1:]
    num_met = np.bincount(pieces[mask & other], minlength=num_pieces + 1)[1:]
    diameters_mm = np.cbrt(6 / math.pi * num_voxels * voxel_mm3)
    size_classes = np.searchsorted(list(LESION_SIZE_CLASSES.values()), diameters_mm, side="right")
    return size_classes, num_met >= LESION_OVERLAP * num_voxels
