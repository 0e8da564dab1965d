"""What the report's metric reads, for a model of nothing, for the trained one, and for a perfect one.

All are asked of the same test patients, on the prepared slices: `keras.metrics.MeanIoU` as the report most likely
used it, its closed form, and the honest scores beside it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kits_ml import scores
from kits_ml.config import SelectionSettings
from kits_ml.data.preprocessing import network_input
from kits_ml.data.selection import Facts, select
from kits_ml.evaluation.aggregates import summarise_values
from kits_ml.evaluation.known_predictions import SOFTMAX
from kits_ml.evaluation.misreading import (
    MISREAD_IOU_OF_UNSATURATED,
    misread_iou_of_background,
    misread_iou_of_pixel_error,
    misread_iou_of_softmax,
    pixel_error_of_misread_iou,
    saturated_part_behind_misread_iou,
)
from kits_ml.labels import NUM_CLASSES, REGIONS
from kits_ml.training.as_reported import ReportMeanIoU
from kits_ml.training.batches import SliceArrays

#: What the student report says its mean IoU was.
REPORTED = 0.989

#: The softmax of a prediction that is sure, but not wholly; a key of `SOFTMAX`.
SURE = "0.987"

#: The honest scores of a patient.
DICE = tuple(f"dice_{region}" for region in REGIONS)

#: What is asked about, in order: whose prediction, and how sure it is of it.
WAYS = ("nothing", f"nothing, p = {SURE}", "trained", "trained, hardened", "perfect", f"perfect, p = {SURE}")


class Reading:
    """The report's metric and the honest scores of one way to predict, over all patients that it is shown."""

    def __init__(self) -> None:
        self.metric = ReportMeanIoU()
        self.matrices: dict[str, np.ndarray] = {}
        self.num_pixels = self.num_right = self.num_wrong = 0

    def add(self, case: str, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Takes slices of a patient: `(batch, rows, columns)` labels and probabilities of the classes behind."""
        self.metric.update_state(labels, probabilities)
        predicted, saturated = probabilities.argmax(axis=-1).astype(np.uint8), probabilities.max(axis=-1) == 1
        found = scores.confusion_matrix(labels, predicted)
        self.matrices[case] = self.matrices.get(case, 0) + found
        self.num_pixels += labels.size
        self.num_right += int((saturated & (predicted == labels)).sum())
        self.num_wrong += int((saturated & (predicted != labels)).sum())

    def dice_by_case(self) -> dict[str, dict[str, float]]:
        """Dice of each region, by case; NaN where the case's slices do not show it."""
        return {case: dice_where_shown(matrix) for case, matrix in self.matrices.items()}

    def result(self) -> dict[str, Any]:
        """All that was read; see `read_ways`."""
        pooled = sum(self.matrices.values())
        per_case = self.dice_by_case().values()
        error = float(1 - np.trace(pooled) / pooled.sum())
        right, wrong = self.num_right / self.num_pixels, self.num_wrong / self.num_pixels
        return {
            "as_reported": float(self.metric.result()),
            "by_theory": misread_iou_of_softmax(saturated_right=right, saturated_wrong=wrong),
            "saturated_fraction": right + wrong,
            "pixel_error": error,
            "by_theory_if_saturated": misread_iou_of_pixel_error(error),
            "mean_iou_pooled": float(scores.class_ious(pooled).mean()),
            **{name: summarise_values([case[name] for case in per_case]) for name in DICE},
        }


def dice_where_shown(matrix: np.ndarray) -> dict[str, float]:
    """Dice by name in `DICE`; NaN for a region that the reference does not show, which nothing would get right.

    Args:
        matrix: `(classes, classes)` counts; row = true label, column = predicted label.
    """
    counts = {f"dice_{region}": scores.region_counts(matrix, region) for region in REGIONS}
    return {name: scores.dice_from_counts(*found) if found[0] else math.nan for name, found in counts.items()}


def predictions(model: Any, slices: SliceArrays, *, batch_size: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Case, labels and the model's probabilities, a few slices at a time, each of one patient."""
    for case, where in slices.ranges().items():
        for start in range(where.start, where.stop, batch_size):
            positions = np.arange(start, min(start + batch_size, where.stop))
            grey = slices.with_neighbours(positions, 1)
            yield case, slices.labels_of(positions), np.asarray(model.predict_on_batch(network_input(grey)))


def read_ways(predicted: Iterator[tuple[str, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Reads each of `WAYS`.

    Args:
        predicted: case, labels `(batch, rows, columns)` and a model's probabilities, classes last.

    Returns:
        The foreground fraction f of all pixels, and by way: `as_reported`, what the report's metric reads, and
        `by_theory`, its closed form; `saturated_fraction`, pixels of which one class has a probability of exactly 1;
        `pixel_error`, the part of pixels whose most probable class is wrong, and `by_theory_if_saturated`, what the
        metric would read of it with all pixels saturated;
        `mean_iou_pooled` over the three labels; Dice, means with intervals over the patients who show the region. And
        the trained model's Dice of each patient, `trained_by_case`.
    """
    ways = {name: Reading() for name in WAYS}
    num_foreground = num_pixels = 0
    for case, labels, probabilities in predicted:
        num_foreground, num_pixels = num_foreground + int((labels > 0).sum()), num_pixels + labels.size
        for name, given in _ways(labels, probabilities).items():
            ways[name].add(case, labels, given)
    fraction = num_foreground / num_pixels
    return {
        "num_cases": len(ways["trained"].matrices),
        "foreground_fraction": fraction,
        "theory": {
            "nothing": misread_iou_of_background(fraction),
            "unsaturated": MISREAD_IOU_OF_UNSATURATED,
            "reported": REPORTED,
            "pixel_error_of_reported": pixel_error_of_misread_iou(REPORTED),
            "saturated_of_reported": saturated_part_behind_misread_iou(REPORTED),
        },
        "ways": {name: reading.result() for name, reading in ways.items()},
        "trained_by_case": ways["trained"].dice_by_case(),
    }


def _ways(labels: np.ndarray, probabilities: np.ndarray) -> Mapping[str, np.ndarray]:
    nothing, hard = np.zeros_like(labels), probabilities.argmax(axis=-1)
    given = [
        *(soften(nothing, "saturated"), soften(nothing, SURE)),
        *(probabilities, soften(hard, "saturated")),
        *(soften(labels, "saturated"), soften(labels, SURE)),
    ]
    return dict(zip(WAYS, given, strict=True))


def soften(label_map: np.ndarray, softmax: str) -> np.ndarray:
    """Probabilities whose most probable class is that of a label map: `label_map.shape` and classes, float32.

    Args:
        label_map: whole numbers below the number of classes.
        softmax: a key of `SOFTMAX`; the next class, cyclically, gets most of the rest.
    """
    rows = np.array([np.roll(SOFTMAX[softmax], label) for label in range(NUM_CLASSES)], np.float32)
    return rows[label_map]


def read_rule(fingerprint: Path) -> dict[str, Any]:
    """The report's rule over a table of all KiTS19 cases: how many it keeps, and what a model of nothing reads there.

    Args:
        fingerprint: CSV with `case, slices, rows, cols, hu_min, hu_max, kidney_voxels, tumour_voxels`.
    """
    with fingerprint.open(newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    facts = [
        Facts(case=case, slices=int(row["slices"]), hu_min=float(row["hu_min"]), hu_max=float(row["hu_max"]))
        for case, row in rows.items()
    ]
    kept = [rows[case] for case in select(facts, SelectionSettings(selection="report")).kept]
    voxels = sum(int(row["slices"]) * int(row["rows"]) * int(row["cols"]) for row in kept)
    foreground = sum(int(row["kidney_voxels"]) + int(row["tumour_voxels"]) for row in kept)
    return {
        "num_cases": len(rows),
        "num_kept": len(kept),
        "num_slices": sum(int(row["slices"]) for row in kept),
        "foreground_fraction": foreground / voxels,
        "nothing_reads": misread_iou_of_background(foreground / voxels),
        "nothing_is_worth": (1 - foreground / voxels) / 3,
    }
