"""Put the metrics in use to the test, or a Keras metric of anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from kits_ml.config import SelftestSettings
from kits_ml.errors import InputError
from kits_ml.evaluation.selftest import Row, run_selftest
from kits_ml.evaluation.subjects import keras_subject, metrics_in_use
from kits_ml.training.imported_metrics import load_metric


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


def _arguments(text: str | None) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise InputError(f"arguments: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InputError(f"arguments: found {text!r}, expected a mapping such as '{{\"num_classes\": 3}}'")
    return found
