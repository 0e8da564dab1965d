"""The closed forms are what Keras reads."""

import keras
import numpy as np
import pytest

from kits_ml.errors import InputError
from kits_ml.evaluation.misreading import (
    MISREAD_IOU_OF_UNSATURATED,
    misread_iou_of_background,
    misread_iou_of_pixel_error,
    misread_iou_of_softmax,
    pixel_error_of_misread_iou,
    saturated_part_behind_misread_iou,
)

NUM_PIXELS = 10_000


def _read(labels, predicted, probability=1.0) -> float:
    """`keras.metrics.MeanIoU`, given one-hot labels and softmax, as the report most likely did."""
    metric = keras.metrics.MeanIoU(num_classes=3)
    softmax = np.full((len(labels), 3), (1 - probability) / 2, np.float32)
    softmax[np.arange(len(labels)), predicted] = probability
    metric.update_state(np.eye(3, dtype=np.float32)[labels], softmax)
    return float(metric.result())


@pytest.mark.parametrize("num_foreground", [0, 73, 101, 200, 5000, NUM_PIXELS])
def test_all_background(num_foreground):
    labels = np.zeros(NUM_PIXELS, int)
    labels[:num_foreground] = 1
    labels[: num_foreground // 3] = 2
    found = _read(labels, np.zeros(NUM_PIXELS, int))
    assert found == pytest.approx(misread_iou_of_background(num_foreground / NUM_PIXELS), abs=1e-5)


@pytest.mark.parametrize("num_wrong", [0, 50, 1000, 9999])
def test_only_the_number_of_wrong_pixels_counts(num_wrong):
    rng = np.random.default_rng(num_wrong)
    labels = rng.integers(3, size=NUM_PIXELS)
    predicted = labels.copy()
    predicted[:num_wrong] = (labels[:num_wrong] + rng.integers(1, 3, size=num_wrong)) % 3
    found = _read(labels, predicted)
    assert found == pytest.approx(misread_iou_of_pixel_error(num_wrong / NUM_PIXELS), abs=1e-5)


@pytest.mark.parametrize(("num_right", "num_wrong"), [(0, 0), (9_000, 0), (9_000, 600), (9_856, 1), (0, 300)])
def test_some_pixels_wholly_sure(num_right, num_wrong):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, size=NUM_PIXELS)
    softmax = np.full((NUM_PIXELS, 3), 0.2, np.float32)
    softmax[np.arange(NUM_PIXELS), labels] = 0.6  # right, but not wholly sure
    softmax[:num_right] = np.eye(3)[labels[:num_right]]
    softmax[num_right : num_right + num_wrong] = np.eye(3)[(labels[num_right : num_right + num_wrong] + 1) % 3]
    metric = keras.metrics.MeanIoU(num_classes=3)
    metric.update_state(np.eye(3, dtype=np.float32)[labels], softmax)
    expected = misread_iou_of_softmax(saturated_right=num_right / NUM_PIXELS, saturated_wrong=num_wrong / NUM_PIXELS)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-5)


def test_0_989_needs_nearly_all_pixels_wholly_sure():
    # (r + 2 / (3 - r)) / 2: at r = 0.98 it is (0.98 + 0.9901) / 2 = 0.98505, at 0.986 (0.986 + 0.99305) / 2 = 0.98952
    assert misread_iou_of_softmax(saturated_right=0.98, saturated_wrong=0) == pytest.approx(0.98505, abs=1e-5)
    assert misread_iou_of_softmax(saturated_right=0.986, saturated_wrong=0) == pytest.approx(0.98952, abs=1e-5)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.985, 1.0])
def test_the_sure_pixels_behind_a_reading(part):
    reading = misread_iou_of_softmax(saturated_right=part, saturated_wrong=0)
    assert saturated_part_behind_misread_iou(reading) == pytest.approx(part, abs=1e-9)
    with pytest.raises(InputError, match="expected 1/3 to 1"):
        saturated_part_behind_misread_iou(0.3)


def test_the_numbers_of_the_report():
    assert misread_iou_of_background(0.0073) == pytest.approx(0.9891, abs=5e-5)
    assert misread_iou_of_background(0.0101) == pytest.approx(0.985, abs=5e-4)
    assert misread_iou_of_background(0.02) == pytest.approx(0.970, abs=5e-4)
    assert 1 - pixel_error_of_misread_iou(0.989) == pytest.approx(0.9926, abs=5e-5)
    assert 1 - pixel_error_of_misread_iou(0.9891) == pytest.approx(0.9927, abs=5e-5)


def test_without_saturation_perfect_reads_a_third():
    labels = np.repeat([0, 1, 2], 100)
    assert _read(labels, labels, probability=0.987) == pytest.approx(MISREAD_IOU_OF_UNSATURATED, abs=1e-5)
    assert _read(labels, 0 * labels, probability=0.987) == pytest.approx(MISREAD_IOU_OF_UNSATURATED, abs=1e-5)


@pytest.mark.parametrize("error", [0.0, 1e-6, 0.0073, 0.3, 1.0])
def test_the_error_behind_a_reading(error):
    assert pixel_error_of_misread_iou(misread_iou_of_pixel_error(error)) == pytest.approx(error, abs=1e-9)


def test_ends_and_errors():
    assert misread_iou_of_pixel_error(0) == 1
    assert misread_iou_of_pixel_error(1) == pytest.approx(1 / 6)  # (0 + 1/3) / 2
    for function in (misread_iou_of_pixel_error, misread_iou_of_background, pixel_error_of_misread_iou):
        for bad in (-0.1, 1.1, float("nan")):
            with pytest.raises(InputError, match="expected"):
                function(bad)
    with pytest.raises(InputError, match="expected at most 1"):
        misread_iou_of_softmax(saturated_right=0.7, saturated_wrong=0.4)
