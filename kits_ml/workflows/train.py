"""Prepare what is missing, train, evaluate and register: one MLflow run."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np

from kits_ml import figures, models, runtime
from kits_ml.config import TrainSettings
from kits_ml.data import images
from kits_ml.errors import CasesFailedError
from kits_ml.evaluation import selftest, subjects, tables
from kits_ml.inference.predictor import Predictor
from kits_ml.tracking import registry, runs
from kits_ml.training import batches
from kits_ml.training.fit import Fitted, fit
from kits_ml.workflows.evaluate import describe_model, loader_of, score_model
from kits_ml.workflows.prepare import Prepared, prepare
from kits_ml.workflows.report import Evaluated, digest_of, log_evaluation, write_evaluation

log = logging.getLogger(__name__)

#: Slices and pixels of the input example that is logged with the model.
EXAMPLE_SHAPE = (2, 64, 64)
#: Fingerprints of slices a case, by which evaluation knows a training scan again under another name.
NUM_SLICES_KEPT = 16

#: What the picture of the learning curves shows; the run holds the others too.
CURVES = ("loss", "val_dice_kidney", "val_dice_tumour", "val_foreground_iou", "val_mean_iou_with_background")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training.

    Attributes:
        run_id: the MLflow run that holds it all.
        artifacts: where the run's pictures and tables are, a folder or an address.
        scores: of the validation and the test cases, on the scans' own grids.
        summaries: means, medians and intervals of the same; see `aggregates.summarise`.
        registered: the version in the registry; None where `register` was off.
        example_case: a test case (else a validation case) to try the model on.
        example_scan: its scan.
    """

    run_id: str
    artifacts: str
    scores: Mapping[str, list[tables.CaseScores]]
    summaries: Mapping[str, Mapping[str, Any]]
    registered: registry.Registered | None
    example_case: str
    example_scan: Path


def train(settings: TrainSettings) -> Trained:
    """Runs the whole training.

    Raises:
        InputError: bad settings or data, a tracking server that does not answer, a loss that is no number.
        CasesFailedError: some cases cannot be used, and `skip_failed_cases` is off.
        MetricMisreadsError: a metric in use does not read what theory says.
    """
    runtime.configure(num_threads=settings.num_threads, precision=settings.precision)
    runtime.seed_everything(settings.seed)
    model = models.build(settings)
    with runs.run(experiment=settings.experiment, run_name=settings.run_name or settings.architecture) as active:
        runs.log_settings(settings)
        _check_metrics(settings)
        prepared = prepare(settings)
        _log_data(prepared)
        fitted = _fit(model, prepared, settings)
        predictor = Predictor(
            fitted.model,
            prepared.store.settings,
            description=_describe(prepared, fitted, settings, active.info.run_id),
            batch_size=settings.batch_size,
        )
        evaluated = {
            part: _evaluate(predictor, prepared, settings, part)
            for part in ("validation", "test")
            if getattr(prepared.split, part)
        }
        example_case = (prepared.split.test or prepared.split.validation)[0]
        example_scan = prepared.cases[example_case].image_path
        input_example, spacing_mm = _input_example(example_scan)
        model_uri = registry.log_model(predictor, input_example=input_example, spacing_mm=spacing_mm)
        registered = registry.register(model_uri, settings.model_name) if settings.register else None
        return Trained(
            run_id=active.info.run_id,
            artifacts=active.info.artifact_uri.removeprefix("file://"),
            scores={part: found.cases for part, found in evaluated.items()},
            summaries={part: found.summary for part, found in evaluated.items()},
            registered=registered,
            example_case=example_case,
            example_scan=example_scan,
        )


def _check_metrics(settings: TrainSettings) -> None:
    """Stops a run whose numbers could not be believed; the report's own metric is only shown to misread."""
    rows = selftest.readings(subjects.metrics_in_use())
    reported = selftest.readings([subjects.as_reported_subject()] if settings.as_reported else [])
    mlflow.log_text(selftest.to_csv([*rows, *reported]), selftest.SELFTEST_CSV)
    selftest.stop_on_misreading(rows)
    wrong = selftest.misread(reported)
    if wrong:
        log.warning(
            "logged as reported, not to be believed: %d of %d known predictions misread\n%s",
            *(len(wrong), len(reported), selftest.table(wrong)),
        )


def _log_data(prepared: Prepared) -> None:
    mlflow.log_dict(json.loads(prepared.split_path.read_text()), "split.json")
    mlflow.log_dict(prepared.selection.to_dict(), "selection.json")
    mlflow.log_dict(dict(prepared.store.case_digests), "case_digests.json")
    mlflow.set_tags({"data_digest": prepared.store.digest, "split_digest": prepared.split_path.stem})


def _fit(model: keras.Model, prepared: Prepared, settings: TrainSettings) -> Fitted:
    train_slices = batches.read_slices(
        prepared.store,
        prepared.split.train,
        margin_mm=settings.training_margin_mm,
        description="read training slices",
    )
    validation_slices = batches.read_slices(
        prepared.store, prepared.split.validation, description="read validation slices"
    )
    mlflow.log_dict(
        {"train": batches.describe(train_slices), "validation": batches.describe(validation_slices)}, "slices.json"
    )
    mlflow.set_tags({name: str(value) for name, value in runtime.describe().items()})
    mlflow.log_metric("num_parameters", model.count_params())
    callback = keras.callbacks.LambdaCallback(on_epoch_end=runs.log_epoch)
    fitted = fit(model, train_slices, validation_slices, settings, callbacks=[callback])
    mlflow.log_metrics({"best_epoch": fitted.best_epoch, "best_val_foreground_iou": fitted.best_score})
    curves = {name: fitted.history[name] for name in CURVES}
    mlflow.log_figure(figures.learning_curves(curves), "curves.png")
    return fitted


def _evaluate(predictor: Predictor, prepared: Prepared, settings: TrainSettings, part: str) -> Evaluated:
    """Scores the cases of a part of the split and logs table, summary and pictures under its name."""
    cases = {name: prepared.cases[name] for name in getattr(prepared.split, part)}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        scored, failures = score_model(predictor, cases, output=output, description=f"evaluate {part}")
        if failures:
            raise CasesFailedError(failures, len(cases))
        digests = {name: prepared.store.case_digests[name] for name in cases}
        evaluated = write_evaluation(
            scored,
            output=output,
            facts={
                "model": f"{settings.architecture}, in training",
                "data": f"{settings.data}, {part} cases of the split",
                "data digest": digest_of(digests),
                **describe_model(predictor),
            },
            settings=settings.to_dict(),
            load=loader_of(cases, output=output),
        )
        log_evaluation(evaluated, part=part)
    return evaluated


def _describe(prepared: Prepared, fitted: Fitted, settings: TrainSettings, run_id: str) -> dict:
    seen = (*prepared.split.train, *prepared.split.validation)
    slice_digests = prepared.store.slice_digests()
    return {
        "run_id": run_id,
        "architecture": settings.architecture,
        "input_slices": settings.input_slices,
        "data_digest": prepared.store.digest,
        "seen_cases": {name: prepared.store.case_digests[name] for name in seen},
        "seen_slices": {name: slice_digests[name][:NUM_SLICES_KEPT] for name in seen},
        "best_epoch": fitted.best_epoch,
        "best_val_foreground_iou": fitted.best_score,
    }


def _input_example(scan: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The middle of a scan and its spacing in mm, coarse: small enough to store beside the model."""
    volume = images.read_image(scan)
    image = volume.array
    middle = len(image) // 2
    num_slices, num_rows, num_columns = EXAMPLE_SHAPE
    step_rows, step_columns = max(1, image.shape[1] // num_rows), max(1, image.shape[2] // num_columns)
    example = image[middle : middle + num_slices, ::step_rows, ::step_columns]
    slices_mm, rows_mm, columns_mm = volume.spacing_mm
    return np.ascontiguousarray(example, np.float32), (slices_mm, rows_mm * step_rows, columns_mm * step_columns)
