"""Before a training: the metrics in use must read right; those as reported are shown to misread, and stop nothing."""

from __future__ import annotations

import logging

import mlflow

from kits_ml.config import TrainSettings
from kits_ml.evaluation import selftest, subjects
from kits_ml.evaluation.selftest import Subject
from kits_ml.training.imported_metrics import named_paths

log = logging.getLogger(__name__)


def check_metrics(settings: TrainSettings) -> None:
    """Logs the self-test of all metrics to the active run, and stops a run whose numbers could not be believed.

    Raises:
        MetricMisreadsError: a metric in use does not read what theory says.
    """
    rows = selftest.readings(subjects.metrics_in_use())
    reported = selftest.readings(_as_reported(settings))
    mlflow.log_text(selftest.to_csv([*rows, *reported]), selftest.SELFTEST_CSV)
    selftest.stop_on_misreading(rows)
    wrong = selftest.misread(reported)
    if wrong:
        log.warning(
            "logged as reported, not to be believed: %d of %d known predictions misread\n%s",
            *(len(wrong), len(reported), selftest.table(wrong)),
        )


def _as_reported(settings: TrainSettings) -> list[Subject]:
    own = [subjects.as_reported_subject()] if settings.as_reported else []
    paths = named_paths(settings.as_reported_metrics)
    return own + [subjects.imported_subject(path, name=name) for name, path in paths.items()]
