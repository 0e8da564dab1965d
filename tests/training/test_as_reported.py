"""The report's metric is logged as the report computed it, changes nothing, and chooses nothing."""

import dataclasses

import keras
import numpy as np
import pytest

from kits_ml.config import TrainSettings
from kits_ml.evaluation.misreading import misread_iou_of_background
from kits_ml.training import fit as training
from kits_ml.training.as_reported import TRAINING_METRIC, VALIDATION_METRIC, AsReported, ReportMeanIoU
from kits_ml.training.metrics import validation_scores
from tests.training.conftest import fit_two_patients, two_patients

SETTINGS = TrainSettings(
    image_size=32, base_filters=4, depth=2, epochs=2, steps_per_epoch=3, batch_size=4, as_reported=True
)


@pytest.fixture(scope="module")
def fitted():
    return fit_two_patients(SETTINGS)


def test_it_is_logged_each_epoch_under_its_own_names(fitted):
    _, found = fitted
    assert (TRAINING_METRIC, VALIDATION_METRIC) == ("as_reported/mean_iou", "as_reported/val_mean_iou")
    for name in (TRAINING_METRIC, VALIDATION_METRIC):
        assert len(found.history[name]) == 2
        assert all(0 <= value <= 1 for value in found.history[name])
    assert "as_reported_mean_iou" not in found.history


def test_the_validation_reading_is_that_of_keras_on_one_hot_labels_and_softmax(fitted):
    model, found = fitted
    slices, reported = two_patients(1), AsReported()
    validation_scores(model, slices, batch_size=4, observe=reported.observe)
    plain = keras.metrics.MeanIoU(num_classes=3)
    softmax = model.predict_on_batch(slices.grey[..., None].astype(np.float32) / 255)
    plain.update_state(np.eye(3, dtype=np.float32)[slices.labels], softmax)
    assert float(reported.validation.result()) == pytest.approx(float(plain.result()), abs=1e-6)
    assert found.history[VALIDATION_METRIC][found.best_epoch] == pytest.approx(float(plain.result()), abs=1e-6)


def test_a_model_of_nothing_reads_high():
    labels = two_patients(0).labels  # 64 of 1024 pixels are foreground: 1/16
    nothing = np.eye(3, dtype=np.float32)[0 * labels]
    metric = ReportMeanIoU()
    metric.update_state(labels, nothing)
    assert float(metric.result()) == pytest.approx(misread_iou_of_background(1 / 16), abs=1e-5)
    assert float(metric.result()) > 0.9


def test_the_training_does_not_change(fitted):
    _, without = fit_two_patients(dataclasses.replace(SETTINGS, as_reported=False))
    reported = {TRAINING_METRIC, VALIDATION_METRIC}
    assert set(fitted[1].history) - set(without.history) == reported
    for name, values in without.history.items():
        assert fitted[1].history[name] == values, name


@pytest.mark.parametrize("name", [TRAINING_METRIC, VALIDATION_METRIC])
def test_it_can_never_choose_weights(name):
    with pytest.raises(ValueError, match="found a metric as reported, which misreads"):
        training.BestWeights(name)
    assert training.BestWeights(training.SELECTION_METRIC).metric == "val_foreground_iou"
