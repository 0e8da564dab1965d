"""Anyone's Keras metrics by import path: for the self-test, and to be logged as reported in a training."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kits_ml import runtime
from kits_ml.errors import InputError, first_line
from kits_ml.labels import NUM_CLASSES

#: How a metric is given labels: `(batch, rows, columns, classes)` float32, or `(batch, rows, columns)` int32.
LabelForm = Literal["one_hot", "sparse"]

#: Rows and columns of what a metric is tried on; more than classes, so that a wrong form of labels fits no shape.
_TRIED_SIZE = 8


def load_metric(path: str, arguments: Mapping[str, Any]) -> keras.metrics.Metric:
    """A Keras metric by its import path.

    Args:
        path: `package.module:Name` of a metric's class, of an instance, or of a function of labels and probabilities
            (averaged over what it returns, as `Model.compile` does). Modules in the working directory are found.
        arguments: of the class. `num_classes` is 3 where it is asked for and not given.

    Raises:
        InputError: no such thing, or it cannot be made.
    """
    found = _import(path)
    if isinstance(found, keras.metrics.Metric) and not arguments:
        return found
    try:
        if inspect.isclass(found) and issubclass(found, keras.metrics.Metric):
            if "num_classes" in inspect.signature(found).parameters:
                arguments = {"num_classes": NUM_CLASSES, **arguments}
            return found(**arguments)
        if inspect.isfunction(found):
            return keras.metrics.MeanMetricWrapper(found, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be made ({error}); expected other arguments, or one that needs none"
        ) from error
    raise InputError(f"{path}: found {found!r}, expected a class of Keras metric, an instance or a function")


@keras.saving.register_keras_serializable(package="kits_ml")
class ImportedMetric(keras.metrics.Metric):
    """A metric of one's own with no state of anybody else's, given labels in its form.

    Args:
        path: as for `load_metric`.
        labels: the form.
        name: in the logs.
    """

    def __init__(self, path: str, *, labels: LabelForm, name: str, **options):
        super().__init__(name=name, **options)
        self.path, self.labels = path, labels
        self.metric = _load_unshared(path)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Takes labels `(batch, rows, columns)` and probabilities with the classes as a last axis."""
        labels = ops.cast(y_true, "int32")
        if self.labels == "one_hot":
            labels = ops.one_hot(labels, NUM_CLASSES, dtype="float32")
        weights = () if sample_weight is None else (sample_weight,)  # not every metric takes some
        return self.metric.update_state(labels, y_pred, *weights)

    def result(self):
        return self.metric.result()

    def reset_state(self):
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "path": self.path, "labels": self.labels}


def named_paths(text: str | None) -> dict[str, str]:
    """Import paths by the names that their metrics are logged under: what comes after the last colon or dot.

    Args:
        text: paths divided by commas; nothing gives nothing.

    Raises:
        InputError: an empty path, or two of one name.
    """
    found: dict[str, str] = {}
    for path in (one.strip() for one in text.split(",")) if text is not None else ():
        name = path.rpartition(":")[2].rpartition(".")[2]
        if not name:
            raise InputError(f"as_reported_metrics: found {text!r}, expected import paths divided by single commas")
        if name in found:
            raise InputError(
                f"as_reported_metrics: found {found[name]} and {path}, both logged as {name}; expected each name once"
            )
        found[name] = path
    return found


@functools.cache  # a training asks before it starts, in the self-test, and when it begins
def label_form(path: str) -> LabelForm:
    """The form in which a metric takes labels in a training, by trying: one-hot if it can, else sparse.

    Raises:
        InputError: no such metric, or it can be computed with neither.
    """
    failures = []
    for form in ("one_hot", "sparse"):
        try:
            metric = ImportedMetric(path, labels=form, name="tried")
        except InputError as error:
            raise InputError(f"as_reported_metrics: {error}") from error
        try:
            _try(metric)
        except Exception as error:  # a metric that anyone wrote
            failures.append(error)
        else:
            return form
    raise InputError(
        f"as_reported_metrics: {path}: cannot be computed in a training ({first_line(failures[0])}); expected one "
        "number from labels, one-hot or not, and probabilities"
    ) from failures[0]


def _try(metric: keras.metrics.Metric) -> None:
    """Computes a metric as a training does and as its validation does, on a scan of nothing."""
    inputs = keras.Input((_TRIED_SIZE, _TRIED_SIZE, NUM_CLASSES), dtype="float32")
    model = keras.Model(inputs, keras.layers.Softmax(dtype="float32")(inputs))
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(), metrics=[metric], jit_compile=runtime.jit_compile()
    )
    labels = np.zeros((2, _TRIED_SIZE, _TRIED_SIZE), np.uint8)
    logs = model.test_on_batch(np.zeros((*labels.shape, NUM_CLASSES), np.float32), labels, return_dict=True)
    float(logs[metric.name])
    metric.reset_state()
    metric.update_state(labels, np.full((*labels.shape, NUM_CLASSES), 1 / NUM_CLASSES, np.float32))
    float(metric.result())


def _load_unshared(path: str) -> keras.metrics.Metric:
    metric = load_metric(path, {})
    if metric is not load_metric(path, {}):
        return metric
    try:
        return type(metric).from_config(metric.get_config())  # a module's own instance
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be made a second time ({error}); expected a class") from error


def _import(path: str) -> Any:
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InputError(f"{path}: expected an import path such as 'keras.metrics:MeanIoU'")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{path}: cannot be imported ({error})") from error
    return found
