"""Put the metrics in use to the test, or a Keras metric of anyone's."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import yaml

from kits_ml.config import SelftestSettings
from kits_ml.errors import InputError
from kits_ml.evaluation.selftest import Row, run_selftest
from kits_ml.evaluation.subjects import keras_subject, metrics_in_use
from kits_ml.labels import NUM_CLASSES


def selftest(settings: SelftestSettings) -> list[Row]:
    """Runs the self-test that the settings ask for.

    Raises:
        InputError: no such metric, or arguments that it does not take.
        MetricMisreadsError: a metric misreads; the message is the table.
    """
    if settings.metric is None:
        if settings.arguments is not None:
            raise InputError("arguments: found without --metric, expected both or none")
        return run_selftest(metrics_in_use())
    subject = keras_subject(
        load_metric(settings.metric, _arguments(settings.arguments)),
        name=settings.metric,
        kind=settings.kind,
        labels=settings.labels,
        average=settings.average,
        per_case=settings.pooling == "per_case",
    )
    return run_selftest([subject])


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
        raise InputError(f"{path}: cannot be made ({error}); give --arguments") from error
    raise InputError(f"{path}: found {found!r}, expected a class of Keras metric, an instance or a function")


def _import(path: str) -> Any:
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InputError(f"metric: found {path!r}, expected an import path such as 'keras.metrics:MeanIoU'")
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


def _arguments(text: str | None) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise InputError(f"arguments: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InputError(f"arguments: found {text!r}, expected a mapping such as '{{\"num_classes\": 3}}'")
    return found
