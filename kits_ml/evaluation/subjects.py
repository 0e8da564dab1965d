"""What the self-test tests: the package's own metrics as they are used, and anyone's Keras metric.

Those of whole label maps are in `scored_subjects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from kits_ml.evaluation.known_predictions import Scenario
from kits_ml.evaluation.scored_subjects import (
    AVERAGE_OF_REGION,
    calibration_subject,
    case_subject,
    lesion_subject,
    surface_subject,
    volume_subject,
)
from kits_ml.evaluation.selftest import Subject
from kits_ml.evaluation.theory import Convention, Kind, conventions
from kits_ml.labels import LABEL_NAMES, NUM_CLASSES, REGIONS
from kits_ml.training.batches import SliceArrays
from kits_ml.training.imported_metrics import ImportedMetric, LabelForm, label_form
from kits_ml.training.metrics import validation_scores
from kits_ml.trust import as_reported

#: Slices that a metric is given at once: fewer than a patient has, so that no batch is a patient.
BATCH_SIZE = 2


def metrics_in_use() -> list[Subject]:
    """The metrics that choose weights, and those that stand in the tables of evaluation."""
    return [
        validation_subject(),
        case_subject(),
        volume_subject(),
        surface_subject(),
        lesion_subject(),
        calibration_subject(),
    ]


def as_reported_subject() -> Subject:
    """The report's metric as it most likely was used: one-hot labels, softmax, no argmax. It misreads."""
    return keras_subject(keras.metrics.MeanIoU(num_classes=NUM_CLASSES), name=as_reported("mean_iou"), kind="iou")


def imported_subject(path: str, *, name: str) -> Subject:
    """Anyone's metric that is logged as reported. Nobody says what it measures: it is held to what it follows best.

    Args:
        path: see `imported_metrics.load_metric`.
        name: what it is logged as, without `as_reported/`.

    Raises:
        InputError: no such metric, or it cannot be computed in a training.
    """
    form = label_form(path)
    metric = ImportedMetric(path, labels=form, name=name).metric
    return keras_subject(metric, name=as_reported(name), kind=None, labels=form)


def validation_subject() -> Subject:
    """`training.metrics.validation_scores`: means over patients of what a model's probabilities come to."""
    declared: dict[str, Convention] = {}
    for kind in ("dice", "iou"):
        for region in REGIONS:
            declared[f"{kind}_{region}"] = Convention(kind=kind, average=AVERAGE_OF_REGION[region], per_case=True)
        for label, name in LABEL_NAMES.items():
            declared[f"{kind}_label_{label}"] = Convention(kind=kind, average=f"{name}_label", per_case=True)
    declared["foreground_iou"] = Convention(kind="iou", average="regions", per_case=True)
    declared["mean_iou_with_background"] = Convention(kind="iou", average="labels", per_case=True)
    return Subject(
        read=lambda scenario: {f"val_{name}": value for name, value in _validate(scenario).items()},
        conventions={f"val_{name}": [convention] for name, convention in declared.items()},
    )


def keras_subject(
    metric: keras.metrics.Metric,
    *,
    name: str,
    kind: Kind | None,
    labels: LabelForm = "one_hot",
    average: str | None = None,
    per_case: bool = False,
) -> Subject:
    """A Keras metric, fed labels and probabilities as `Model.fit` would.

    Args:
        metric: reset before each scenario.
        name: what the table calls it.
        kind: `iou`, `dice` or `accuracy`; None: whichever it follows best.
        labels: `(batch, rows, columns, classes)` float32, or sparse: `(batch, rows, columns)` int32.
        average: a key of `theory.AVERAGES`; without one, the metric is held to what it follows best.
        per_case: it is given one whole patient an update, and must read the mean over patients. Else it is given
            batches that mix patients, and must read their pixels pooled.
    """
    kinds = ("iou", "dice", "accuracy") if kind is None else (kind,)
    candidates = [found for one in kinds for found in conventions(one, average=average, per_case=per_case)]
    return Subject(
        read=lambda scenario: {name: _update(metric, scenario, labels=labels, per_case=per_case)},
        conventions={name: candidates},
        must_refuse=False,
    )


def _update(metric: keras.metrics.Metric, scenario: Scenario, *, labels: str, per_case: bool) -> float:
    metric.reset_state()
    for labels_true, probabilities in _batches(scenario, per_case):
        given = labels_true.astype(np.int32)
        if labels == "one_hot":
            given = (given[..., None] == np.arange(NUM_CLASSES)).astype(np.float32)
        metric.update_state(given, probabilities)
    return float(metric.result())


def _batches(scenario: Scenario, per_case: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patients, or batches of slices taken in turns from both ends: the first and the last, and so on."""
    if per_case:
        return [(case.labels, case.probabilities) for case in scenario.cases]
    labels = np.concatenate([case.labels for case in scenario.cases])
    probabilities = np.concatenate([case.probabilities for case in scenario.cases])
    order = np.argsort([min(2 * k, 2 * (len(labels) - 1 - k) + 1) for k in range(len(labels))], kind="stable")
    chosen = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    return [(labels[one], probabilities[one]) for one in chosen]


def _validate(scenario: Scenario) -> Mapping[str, float]:
    """Validation with a stand-in for the model, which knows a slice by its grey value."""
    labels = np.concatenate([case.labels for case in scenario.cases])
    probabilities = np.concatenate([case.probabilities for case in scenario.cases])
    grey = np.empty(labels.shape, np.uint8)
    grey[:] = np.arange(len(labels), dtype=np.uint8)[:, None, None]
    cases = tuple(f"case_{number}" for number, case in enumerate(scenario.cases) for _ in case.labels)

    def predict_on_batch(images: Any) -> np.ndarray:
        return probabilities[np.rint(np.asarray(images)[:, 0, 0, 0] * 255).astype(int)]

    model = SimpleNamespace(predict_on_batch=predict_on_batch, input_shape=(None, *labels.shape[1:], 1))
    return validation_scores(model, SliceArrays(grey=grey, labels=labels, cases=cases), batch_size=BATCH_SIZE)
