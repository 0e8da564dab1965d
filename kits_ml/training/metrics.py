"""Validation scores while training: per patient, from the most probable class, on the prepared grid.

Not Keras metrics: those pool all pixels of all patients of a batch, and average over weights that change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np

from kits_ml import scores
from kits_ml.data.preprocessing import network_input
from kits_ml.labels import LABEL_NAMES, REGIONS
from kits_ml.training.batches import SliceArrays

#: Takes the labels and the probabilities of a batch.
Observer = Callable[[np.ndarray, np.ndarray], None]


def validation_scores(
    model: keras.Model, slices: SliceArrays, *, batch_size: int, observe: Observer | None = None
) -> dict[str, float]:
    """Scores a model on whole patients.

    Args:
        model: from `(batch, rows, columns, input_slices)` to probabilities `(batch, rows, columns, classes)`.
        slices: all slices of the validation patients.
        batch_size: slices the network takes at once.
        observe: sees each batch too, so that nobody needs to predict a second time.

    Returns:
        Means over the patients, each in [0, 1]:
        `dice_<region>` and `iou_<region>` for the regions `kidney` (tumour included) and `tumour`;
        `dice_label_<n>` and `iou_label_<n>` for each label by itself;
        `foreground_iou`, the mean of the regions' IoU;
        `mean_iou_with_background`, the mean of the labels' IoU: flattering, because background is nearly everything.
        A region that neither reference nor prediction shows in a patient counts as 1, as KiTS does.
    """
    per_case = list(scores_by_case(model, slices, batch_size=batch_size, observe=observe).values())
    return {name: float(np.mean([case[name] for case in per_case])) for name in per_case[0]}


def scores_by_case(
    model: keras.Model, slices: SliceArrays, *, batch_size: int, observe: Observer | None = None
) -> dict[str, dict[str, float]]:
    """The scores of each patient, by case name; arguments and names of scores as of `validation_scores`."""
    names = [name for name, where in slices.ranges().items() for _ in range(where.start, where.stop)]
    matrices: dict[str, np.ndarray] = {}
    for name, (labels, predicted) in zip(names, _predictions(model, slices, batch_size, observe), strict=True):
        matrices[name] = matrices.get(name, 0) + scores.confusion_matrix(labels, predicted)
    return {name: case_scores(matrix) for name, matrix in matrices.items()}


def case_scores(matrix: np.ndarray) -> dict[str, float]:
    """The validation scores of one patient.

    Args:
        matrix: `(classes, classes)` counts; row = true label, column = predicted label.
    """
    found: dict[str, float] = {}
    for region in REGIONS:
        counts = scores.region_counts(matrix, region)
        found[f"dice_{region}"] = scores.dice_from_counts(*counts)
        found[f"iou_{region}"] = scores.iou_from_counts(*counts)
    label_ious = scores.class_ious(matrix)
    for label in LABEL_NAMES:
        counts = (int(matrix[label].sum()), int(matrix[:, label].sum()), int(matrix[label, label]))
        found[f"dice_label_{label}"] = scores.dice_from_counts(*counts)
        found[f"iou_label_{label}"] = float(label_ious[label])
    found["foreground_iou"] = float(np.mean([found[f"iou_{region}"] for region in REGIONS]))
    found["mean_iou_with_background"] = float(np.mean(label_ious))
    return found


def _predictions(
    model: keras.Model, slices: SliceArrays, batch_size: int, observe: Observer | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels and most probable classes of each slice, in order.

    Batches are all as large, whatever the cases' lengths: XLA compiles a network for each size that it is given. The
    last is filled up with slices that are there already.
    """
    input_slices = model.input_shape[-1]
    for start in range(0, len(slices), batch_size):
        positions = np.arange(start, min(start + batch_size, len(slices)))
        labels = slices.labels_of(positions)
        grey = slices.with_neighbours(np.resize(positions, batch_size), input_slices)
        probabilities = np.asarray(model.predict_on_batch(network_input(grey)))[: len(positions)]
        if observe:
            observe(labels, probabilities)
        yield from zip(labels, probabilities.argmax(axis=-1).astype(np.uint8), strict=True)
