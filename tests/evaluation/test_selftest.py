"""Our own metrics pass at once, wrong ones are caught, and so are those of anyone."""

import csv
import io
import time

import keras
import numpy as np
import pytest

from kits_ml import scores
from kits_ml.errors import InputError, MetricMisreadsError
from kits_ml.evaluation import scored_subjects, selftest, subjects
from kits_ml.evaluation.known_predictions import SCENARIOS
from kits_ml.training import metrics as training_metrics

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def test_our_own_metrics_read_what_theory_says_at_once():
    started = time.process_time()
    rows = selftest.run_selftest(subjects.metrics_in_use())
    assert time.process_time() - started < 2  # it stands before every training
    assert all(row.ok for row in rows)
    metrics = {row.metric for row in rows}
    assert {"val_foreground_iou", "val_mean_iou_with_background", "val_dice_label_2"} <= metrics
    assert {"case_dice_tumour", "case_recall_kidney", "case_composite_dice", "case_hd95_mm_tumour"} <= metrics
    refused = [row for row in rows if row.scenario == "labels 127 and 255" and "InputError" in row.found]
    assert {row.metric for row in refused} == metrics


def test_every_validation_score_is_tested():
    (scored,) = {frozenset(subjects._validate(BY_NAME["two patients"]))}
    assert {f"val_{name}" for name in scored} == set(subjects.validation_subject().conventions)


# ---- wrong metrics in our own places


def _misread(subject) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in selftest.misread(selftest.readings([subject])):
        found.setdefault(row.metric, set()).add(row.scenario)
    return found


def test_caught_a_validation_with_swapped_classes(monkeypatch):
    monkeypatch.setattr(training_metrics, "REGIONS", {"kidney": (1,), "tumour": (1, 2)})
    monkeypatch.setattr(scores.labels, "REGIONS", {"kidney": (2,), "tumour": (1,)})
    found = _misread(subjects.validation_subject())
    assert "tumour taken for kidney" in found["val_dice_tumour"]
    assert "val_dice_label_1" not in found  # that one never knew of regions


def test_caught_a_validation_that_pools_patients(monkeypatch):
    monkeypatch.setattr(subjects.SliceArrays, "ranges", lambda slices: {"all": slice(0, len(slices.cases))})
    found = _misread(subjects.validation_subject())
    assert found["val_foreground_iou"] == {"two patients"}


def test_caught_labels_that_vanish(monkeypatch):
    def forgiving(true, pred, num_classes=3):
        known = true < num_classes
        return np.bincount(true[known] * 3 + pred[known], minlength=9).reshape(3, 3)

    monkeypatch.setattr(scores, "confusion_matrix", forgiving)
    found = _misread(subjects.validation_subject())
    assert set.union(*found.values()) == {"labels 127 and 255"}
    assert set(found) == set(subjects.validation_subject().conventions)


# ---- anyone's Keras metric


def _one_hot(probabilities):
    return np.eye(3)[np.asarray(probabilities).argmax(axis=-1)]


class Overlap(keras.metrics.Metric):
    """A pooled IoU of the foreground labels, right as it stands; subclasses spoil it."""

    classes = (1, 2)

    def __init__(self, name="overlap"):
        super().__init__(name=name)
        self.reset_state()

    def reset_state(self):
        self.counts = np.zeros((3, 3))  # true, predicted, both; a column a class

    def masks(self, y_true, y_pred):
        return np.asarray(y_true), _one_hot(y_pred)

    def update_state(self, y_true, y_pred, sample_weight=None):
        true, pred = self.masks(y_true, y_pred)
        self.counts += [np.sum(one, axis=(0, 1, 2)) for one in (true, pred, true * pred)]

    def result(self):
        true, pred, both = self.counts[:, list(self.classes)]
        union = true + pred - both
        return np.mean(np.where(union > 0, both / np.maximum(union, 1), 1))


class Dice(Overlap):
    def result(self):
        true, pred, both = self.counts[:, list(self.classes)]
        return np.mean(np.where(true + pred > 0, 2 * both / np.maximum(true + pred, 1), 1))


class WithBackground(Overlap):
    classes = (0, 1, 2)


class SwappedClasses(Overlap):
    def masks(self, y_true, y_pred):
        true, pred = super().masks(y_true, y_pred)
        return true, pred[..., [0, 2, 1]]


class ThresholdAtHalf(Overlap):
    def masks(self, y_true, y_pred):
        return np.asarray(y_true), np.asarray(y_pred) > 0.5


class Soft(Overlap):
    def masks(self, y_true, y_pred):
        return np.asarray(y_true), np.asarray(y_pred)


class NothingIsZero(Overlap):
    def result(self):
        true, pred, both = self.counts[:, list(self.classes)]
        return np.mean(both / np.maximum(true + pred - both, 1))


class MeanOfUpdates(Overlap):
    def reset_state(self):
        super().reset_state()
        self.readings = []

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.counts[:] = 0
        super().update_state(y_true, y_pred)
        self.readings.append(super().result())

    def result(self):
        return np.mean(self.readings)


class MeanOfSlices(MeanOfUpdates):
    def update_state(self, y_true, y_pred, sample_weight=None):
        for true, pred in zip(y_true, y_pred, strict=True):
            super().update_state(true[None], pred[None])


def _keras_rows(metric, **options):
    options = {"kind": "iou", "average": "foreground_labels", **options}
    return {row.scenario: row for row in selftest.readings([subjects.keras_subject(metric, name="m", **options)])}


def _keras_misread(metric, **options):
    return {name for name, row in _keras_rows(metric, **options).items() if not row.ok}


def test_an_honest_metric_passes():
    assert _keras_misread(Overlap()) == set()
    assert _keras_misread(Overlap(), average=None) == set()  # what it averages is found out
    assert _keras_misread(MeanOfUpdates(), per_case=True) == set()
    assert _keras_misread(Dice(), kind="dice") == set()
    assert _keras_misread(Dice(), kind="dice", average=None) == set()


def test_dice_is_no_iou():
    # kidney 10 and tumour 2 pixels in both, of 20 and 20, 4 and 4
    rows = _keras_rows(Dice())
    assert rows["shifted by a pixel"].found == f"{(20 / 40 + 4 / 8) / 2:.4f}"
    assert rows["shifted by a pixel"].expected == f"{(10 / 30 + 2 / 6) / 2:.4f}"
    assert "shifted by a pixel" in _keras_misread(Overlap(), kind="dice", average=None)


@pytest.mark.parametrize(
    ("metric", "caught_by"),
    [
        (WithBackground, "shifted by a pixel"),
        (SwappedClasses, "perfect, saturated"),
        (ThresholdAtHalf, "perfect, p = 0.4/0.35/0.25"),
        (Soft, "perfect, p = 0.987"),
        (NothingIsZero, "patient without tumour"),
        (MeanOfUpdates, "shifted by a pixel"),
        (MeanOfSlices, "shifted by a pixel"),
    ],
)
def test_wrong_metrics_are_caught(metric, caught_by):
    assert caught_by in _keras_misread(metric())
    if metric is not WithBackground:  # which is honest if one says so
        assert _keras_misread(metric(), average=None)


def test_a_mean_over_slices_is_no_mean_over_patients():
    assert "shifted by a pixel" in _keras_misread(MeanOfSlices(), per_case=True)
    # and pooled is none: kidney (20 + 12) / (24 + 16) of the labels pooled, 20 / 24 and 12 / 16 by patient
    assert _keras_misread(Overlap(), per_case=True) == {"two patients"}


def test_the_reports_metric_fails_as_measured():
    rows = _keras_rows(keras.metrics.MeanIoU(num_classes=3), average=None)
    # a part 24 / 192 = 1/8 of the pixels is foreground: ((7/8)/(9/8) + (15/8)/(17/8)) / 2 = (7/9 + 15/17) / 2
    assert rows["all background, saturated"].found == f"{(7 / 9 + 15 / 17) / 2:.4f}" == "0.8301"
    assert rows["all background, saturated"].expected == f"{7 / 8 / 3:.4f}"
    assert rows["perfect, p = 0.987"].found == "0.3333"
    assert not rows["perfect, p = 0.987"].ok
    assert rows["perfect, saturated"].ok
    assert rows["scan without kidneys"].found == "1.0000"


@pytest.mark.parametrize(
    ("metric", "options", "convention"),
    [
        (keras.metrics.OneHotMeanIoU(num_classes=3), {}, "iou, mean of labels 0, 1, 2, absent ones left out, pooled"),
        (keras.metrics.OneHotIoU(num_classes=3, target_class_ids=[2]), {}, "iou, label 2, absent ones left out"),
        (keras.metrics.CategoricalAccuracy(), {"kind": "accuracy"}, "accuracy, pooled over patients"),
        (keras.metrics.SparseCategoricalAccuracy(), {"kind": "accuracy", "labels": "sparse"}, "accuracy"),
    ],
)
def test_keras_metrics_that_pass(metric, options, convention):
    rows = _keras_rows(metric, average=None, **options)
    assert [row for row in rows.values() if not row.ok] == []
    assert rows["shifted by a pixel"].convention.startswith(convention)


def test_keras_lets_labels_out_of_range_vanish():
    metric = keras.metrics.MeanIoU(num_classes=3, sparse_y_pred=False)
    rows = _keras_rows(metric, average=None, labels="sparse")
    assert {name for name, row in rows.items() if not row.ok} == {"labels 127 and 255"}
    assert rows["labels 127 and 255"].found == "1.0000"
    assert rows["labels 127 and 255"].expected == "an error or at most 0.3333"


def test_an_error_of_the_metric_is_a_misreading():
    rows = _keras_rows(keras.metrics.F1Score(average="macro"), kind="dice")
    assert not any(row.ok for name, row in rows.items() if name != "labels 127 and 255")
    assert rows["perfect, saturated"].found.startswith("ValueError: ")


# ---- what is said


def test_the_error_carries_the_table():
    honest = subjects.keras_subject(keras.metrics.OneHotMeanIoU(num_classes=3), name="honest", kind="iou")
    report = subjects.keras_subject(keras.metrics.MeanIoU(num_classes=3), name="report", kind="iou")
    with pytest.raises(MetricMisreadsError, match=r"report: 15 of 17 known predictions misread") as caught:
        selftest.run_selftest([honest, report])
    assert not isinstance(caught.value, InputError)
    assert len(caught.value.rows) == 34
    assert "MISREAD  all background, saturated " in str(caught.value)
    assert "expected 0.2917" in str(caught.value)
    assert "honest" not in str(caught.value)
    selftest.stop_on_misreading(caught.value.rows[:17])


def test_the_csv_is_the_table():
    rows = selftest.run_selftest([scored_subjects.surface_subject()])
    read = list(csv.DictReader(io.StringIO(selftest.to_csv(rows))))
    assert len(read) == len(rows)
    assert {row["ok"] for row in read} == {"true"}
    assert {"metric", "convention", "scenario", "expected", "found", "ok"} == set(read[0])
    empty = [row for row in read if row["scenario"] == "all background, saturated" and "hd95" in row["metric"]]
    assert [row["found"] for row in empty] == ["undefined"] * 2
