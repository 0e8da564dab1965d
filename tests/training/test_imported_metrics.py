"""Anyone's metrics are logged as reported, as they are computed in Keras, and change nothing."""

import dataclasses
import sys

import keras
import numpy as np
import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training import fit as training
from kits_ml.training.as_reported import make_as_reported
from kits_ml.training.imported_metrics import ImportedMetric, label_form, named_paths
from tests.training.conftest import fit_two_patients, two_patients

SETTINGS = TrainSettings(image_size=32, base_filters=4, depth=2, epochs=2, steps_per_epoch=3, batch_size=4)
MODULE = "anyones_metrics"
OWN_METRICS = """
import keras

ready = keras.metrics.OneHotMeanIoU(num_classes=3)

def accuracy(y_true, y_pred):
    return keras.metrics.categorical_accuracy(y_true, y_pred)

class NoWeights(keras.metrics.Sum):
    def update_state(self, y_true, y_pred):
        return super().update_state(y_true[..., 2])

def broken(y_true, y_pred):
    raise RuntimeError("no scores today\\nnor tomorrow")

class Vector(keras.metrics.Sum):
    def result(self):
        return keras.ops.stack([self.total, self.total])
"""


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{MODULE}.py").write_text(OWN_METRICS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, MODULE, raising=False)
        yield


PATHS = ("keras.metrics:SparseCategoricalAccuracy", f"{MODULE}:ready", f"{MODULE}:accuracy", f"{MODULE}:NoWeights")
NAMES = ("SparseCategoricalAccuracy", "ready", "accuracy", "NoWeights")


@pytest.fixture(scope="module")
def fitted():
    return fit_two_patients(dataclasses.replace(SETTINGS, as_reported=True, as_reported_metrics=", ".join(PATHS)))


def test_they_are_logged_each_epoch_as_keras_computes_them(fitted):
    model, found = fitted
    slices = two_patients(1)
    softmax = model.predict_on_batch(slices.grey[..., None].astype(np.float32) / 255)
    iou = keras.metrics.OneHotMeanIoU(num_classes=3)
    iou.update_state(np.eye(3, dtype=np.float32)[slices.labels], softmax)
    accuracy = np.mean(softmax.argmax(-1) == slices.labels)
    # 8 slices of 2 x 2 tumour pixels
    expected = dict(zip(NAMES, (accuracy, float(iou.result()), accuracy, 8 * 4), strict=True))
    for name, value in expected.items():
        assert len(found.history[f"as_reported/{name}"]) == len(found.history[f"as_reported/val_{name}"]) == 2
        assert found.history[f"as_reported/val_{name}"][found.best_epoch] == pytest.approx(value, abs=1e-6), name
    # an epoch has 3 batches of 4 slices with 2 x 2 pixels: 48, a little more or less when they are turned and scaled
    assert found.history["as_reported/NoWeights"] == pytest.approx([48, 48], abs=12)
    assert found.history["as_reported/accuracy"] == found.history["as_reported/SparseCategoricalAccuracy"]
    own = sys.modules[MODULE].ready
    assert np.sum(keras.ops.convert_to_numpy(own.total_cm)) == 0  # a module's own instance is not counted in


def test_the_training_does_not_change(fitted):
    _, without = fit_two_patients(SETTINGS)
    reported = {f"as_reported/{prefix}{name}" for name in (*NAMES, "mean_iou") for prefix in ("", "val_")}
    assert set(fitted[1].history) - set(without.history) == reported
    for name, values in without.history.items():
        assert fitted[1].history[name] == values, name


@pytest.mark.parametrize("name", NAMES)
def test_they_can_never_choose_weights(name):
    for prefix in ("", "val_"):
        with pytest.raises(InputError, match="found a metric as reported, which misreads"):
            training.BestWeights(f"as_reported/{prefix}{name}")


def test_labels_come_as_a_metric_takes_them():
    assert [label_form(path) for path in PATHS] == ["sparse", "one_hot", "one_hot", "one_hot"]


@pytest.mark.parametrize("name", ["broken", "Vector"])
def test_what_gives_no_number_is_said_in_a_line(name):
    with pytest.raises(InputError, match=f"{MODULE}:{name}: cannot be computed in a training") as caught:
        label_form(f"{MODULE}:{name}")
    assert len(str(caught.value).splitlines()) == 1


def test_names_are_what_comes_last():
    assert named_paths(None) == {}
    assert named_paths("a.b:C, d:E.F") == {"C": "a.b:C", "F": "d:E.F"}
    for wrong in ("", "a:B,,c:D", "a:"):
        with pytest.raises(InputError, match="expected import paths divided by single commas"):
            named_paths(wrong)
    with pytest.raises(InputError, match="with as_reported, which is logged as mean_iou too"):
        make_as_reported(dataclasses.replace(SETTINGS, as_reported=True, as_reported_metrics="a:mean_iou"))


def test_not_with_several_outputs():
    with pytest.raises(InputError, match="as_reported_metrics: found a:B with deep_supervision"):
        TrainSettings(architecture="nnunet", deep_supervision=True, as_reported_metrics="a:B")


def test_it_is_made_again_from_its_configuration():
    metric = ImportedMetric(f"{MODULE}:accuracy", labels="one_hot", name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert (again.path, again.labels, again.name) == (metric.path, "one_hot", "mine")
