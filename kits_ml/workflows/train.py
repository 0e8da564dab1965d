"""Prepare what is missing, train, evaluate, register and put through the gate: one MLflow run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
from mlflow.exceptions import MlflowException

from kits_ml import figures, models, runtime
from kits_ml.config import ArchitectureSettings, TrainSettings
from kits_ml.config.unused import unused_settings
from kits_ml.data import training_range
from kits_ml.errors import CasesFailedError, InputError, StoppedError, first_line
from kits_ml.evaluation import tables
from kits_ml.evaluation.evidence import digest_of
from kits_ml.inference.predictor import Predictor
from kits_ml.models import cost
from kits_ml.tracking import registry, runs
from kits_ml.training import batches
from kits_ml.training.callbacks import BadLossError
from kits_ml.training.checkpoints import Checkpoint, CheckpointFile
from kits_ml.training.fit import Fitted, fit, fitted_before, history_before
from kits_ml.training.interrupts import ended_by_sigterm
from kits_ml.training.warm_start import Parent
from kits_ml.workflows import resume, start
from kits_ml.workflows.evaluate import describe_model, loader_of, score_model
from kits_ml.workflows.packaging import log_and_register, put_through_gate
from kits_ml.workflows.prepare import FINGERPRINTS_JSON, Prepared, prepare
from kits_ml.workflows.promote import Promotion
from kits_ml.workflows.report import Evaluated, log_evaluation, write_evaluation
from kits_ml.workflows.resume import Stopped
from kits_ml.workflows.select import measure_cases
from kits_ml.workflows.training_metrics import check_metrics

log = logging.getLogger(__name__)

#: Fingerprints of slices a case, by which evaluation knows a training scan again under another name.
NUM_SLICES_KEPT = 16

#: Artifact of a run whose loss became no number: the best weights until then, to use or to start from.
BEST_WEIGHTS = "best_weights"

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
        promotion: what the gate said of it; None where `register` or `promote` was off, or no answer came.
        example_case: a test case (else a validation case) to try the model on.
        example_scan: its scan.
    """

    run_id: str
    artifacts: str
    scores: Mapping[str, list[tables.CaseScores]]
    summaries: Mapping[str, Mapping[str, Any]]
    registered: registry.Registered | None
    promotion: Promotion | None
    example_case: str
    example_scan: Path


def train(settings: TrainSettings) -> Trained:
    """Runs the whole training, or what is left of one that was stopped.

    A kill at any moment costs no more than the time since the last checkpoint: what comes after the last epoch
    (scores, logging, registering) is done again with the weights that were kept. A kill between registering and the
    end leaves a version that the resumed training registers a second time.

    Raises:
        InputError: bad settings or data, a tracking server that does not answer, a loss that is no number; the best
            weights are then an artifact of the run.
        CasesFailedError: some cases cannot be used, and `skip_failed_cases` is off.
        MetricMisreadsError: a metric in use does not read what theory says.
        StoppedError: Ctrl-C or SIGTERM.
    """
    for line in unused_settings(settings):
        log.warning("%s", line)
    model = start.new_model(settings)
    stopped = resume.find_stopped(settings)
    parent = stopped.parent if stopped else start.start_from(model, settings)
    opened = runs.run(
        experiment=settings.experiment,
        run_name=settings.run_name or settings.architecture,
        resumed_run=stopped.run_id if stopped else None,
    )
    with ended_by_sigterm(), contextlib.ExitStack() as stack:
        if stopped:
            stack.enter_context(resume.claimed(settings, stopped.run_id))
        active = stack.enter_context(opened)
        run_id = active.info.run_id
        if not stopped:
            stack.enter_context(resume.claimed(settings, run_id))
        with _told(settings, run_id):
            trained = _train(model, settings, active=active, stopped=stopped, parent=parent)
        promotion = put_through_gate(trained.registered, settings)
        return (
            dataclasses.replace(trained, promotion=promotion, registered=promotion.registered)
            if promotion
            else trained
        )


@contextlib.contextmanager
def _told(settings: TrainSettings, run_id: str) -> Iterator[None]:
    """Makes what ends a training early one line that says how to go on."""
    try:
        yield
    except (StoppedError, KeyboardInterrupt) as error:
        raise resume.stopped_with(error, resume.way_on(settings, run_id)) from error
    except MlflowException as error:
        raise InputError(f"MLflow: {first_line(error)}; {resume.way_on(settings, run_id)}") from error
    except Exception as error:
        if not runtime.is_out_of_memory(error):
            raise
        raise InputError(
            f"batch_size: found {settings.batch_size} slices of {settings.image_size}x{settings.image_size} for "
            f"{settings.architecture} with {settings.base_filters} filters, more than the memory holds; expected "
            "fewer (accumulation_steps makes up for it), or a smaller network"
        ) from error


def _train(
    model: keras.Model,
    settings: TrainSettings,
    *,
    active: mlflow.ActiveRun,
    stopped: Stopped | None,
    parent: Parent | None,
) -> Trained:
    run_id = active.info.run_id
    runs.log_settings(settings)
    check_metrics(settings)
    prepared = prepare(settings)
    if stopped:
        stopped.check_data(prepared)
    to_score = {part: start.unseen_by_parent(prepared, part, parent) for part in ("validation", "test")}
    _log_data(prepared)
    training = _training_range(prepared, settings)
    file = resume.checkpoint_file(settings, prepared, run_id=run_id, parent=parent)
    try:
        fitted = _fit(model, prepared, settings, file=file, stopped=stopped)
    except BadLossError as error:
        raise _with_best_weights(error, prepared, settings, file=file, parent=parent, training=training) from error
    predictor = _predictor(fitted, prepared, settings, run_id=run_id, parent=parent, training=training)
    evaluated = {
        part: _evaluate(predictor, prepared, settings, part=part, names=names)
        for part, names in to_score.items()
        if names
    }
    example_case = (prepared.split.test or prepared.split.validation)[0]
    example_scan = prepared.cases[example_case].image_path
    registered = log_and_register(predictor, prepared, settings, evaluated=evaluated, example_scan=example_scan)
    resume.forget(file)
    return Trained(
        run_id=run_id,
        artifacts=active.info.artifact_uri.removeprefix("file://"),
        scores={part: found.cases for part, found in evaluated.items()},
        summaries={part: found.summary for part, found in evaluated.items()},
        registered=registered,
        promotion=None,
        example_case=example_case,
        example_scan=example_scan,
    )


def _with_best_weights(
    error: BadLossError,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    file: CheckpointFile,
    parent: Parent | None,
    training: Mapping[str, Any],
) -> InputError:
    """Logs the best weights until the loss became no number, and says where they are."""
    run_id = mlflow.active_run().info.run_id
    if error.fitted is None:
        resume.forget(file)  # going on would end in the same step
        return InputError(f"{error}. No epoch was finished, so no weights are kept")
    with tempfile.TemporaryDirectory() as folder:
        predictor = _predictor(error.fitted, prepared, settings, run_id=run_id, parent=parent, training=training)
        predictor.save(Path(folder))
        mlflow.log_artifacts(folder, BEST_WEIGHTS)
    resume.forget(file)  # not before: it holds the best weights too
    return InputError(
        f"{error}. The best weights until then, of epoch {error.fitted.best_epoch + 1} with val_foreground_iou "
        f"{error.fitted.best_score:.3f}, are kept: runs:/{run_id}/{BEST_WEIGHTS}, for --init_from or --model"
    )


def _log_data(prepared: Prepared) -> None:
    mlflow.log_dict(json.loads(prepared.split_path.read_text()), "split.json")
    mlflow.log_dict(prepared.selection.to_dict(), "selection.json")
    mlflow.log_dict(dict(prepared.store.case_digests), "case_digests.json")
    mlflow.set_tags({"data_digest": prepared.store.digest, "split_digest": prepared.split_path.stem})


def _fit(
    model: keras.Model,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    file: CheckpointFile,
    stopped: Stopped | None,
) -> Fitted:
    checkpoint = stopped.load() if stopped else None
    if checkpoint and checkpoint.fitted:
        fitted = fitted_before(model, checkpoint)
        runs.EpochLog(fitted.history).flush()
    else:
        fitted = _fit_slices(model, prepared, settings, file=file, resumed=checkpoint)
    mlflow.log_metrics(
        {
            "best_epoch": fitted.best_epoch,
            "best_val_foreground_iou": fitted.best_score,
            "training_minutes": fitted.training_minutes,
        }
    )
    curves = {name: fitted.history[name] for name in CURVES}
    mlflow.log_figure(figures.learning_curves(curves), "curves.png")
    return fitted


def _fit_slices(
    model: keras.Model,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    file: CheckpointFile,
    resumed: Checkpoint | None,
) -> Fitted:
    train_slices = batches.read_slices(prepared.store, prepared.split.train, margin_mm=settings.training_margin_mm)
    validation_slices = batches.read_slices(prepared.store, prepared.split.validation)
    mlflow.log_dict(
        {"train": batches.describe(train_slices), "validation": batches.describe(validation_slices)}, "slices.json"
    )
    mlflow.set_tags({name: str(value) for name, value in runtime.describe().items()})
    single = models.without_supervision(model)
    mlflow.log_metrics({"num_parameters": single.count_params(), "gflops": cost.gflops(single)})
    epoch_log = runs.EpochLog(history_before(resumed) if resumed else None)
    fitted = fit(
        model,
        train_slices,
        validation_slices,
        settings,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=epoch_log)],
        checkpoint_file=file,
        resumed=resumed,
    )
    epoch_log.flush()
    return fitted


def _predictor(
    fitted: Fitted,
    prepared: Prepared,
    settings: TrainSettings,
    *,
    run_id: str,
    parent: Parent | None,
    training: Mapping[str, Any],
) -> Predictor:
    described = {**_describe(prepared, fitted, settings, run_id=run_id, parent=parent), "training": training}
    return Predictor(fitted.model, prepared.store.settings, description=described, batch_size=settings.batch_size)


def _evaluate(
    predictor: Predictor, prepared: Prepared, settings: TrainSettings, *, part: str, names: Sequence[str]
) -> Evaluated:
    """Scores cases of a part of the split and logs table, summary and pictures under its name."""
    cases = {name: prepared.cases[name] for name in names}
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
            case_digests=digests,
        )
        log_evaluation(evaluated, part=part)
    return evaluated


def _training_range(prepared: Prepared, settings: TrainSettings) -> dict[str, Any]:
    """Spacing, field of view and HU of the training cases: what a prediction's quality report compares with."""
    cases = {name: prepared.cases[name] for name in prepared.split.train}
    cache = Path(settings.prepared) / FINGERPRINTS_JSON
    measured, _ = measure_cases(cases, prepared.store.case_digests, cache=cache, num_workers=settings.num_workers)
    return training_range.describe_training(list(measured.values()))


def _describe(
    prepared: Prepared, fitted: Fitted, settings: TrainSettings, *, run_id: str, parent: Parent | None
) -> dict:
    names = (*prepared.split.train, *prepared.split.validation)
    slice_digests = prepared.store.slice_digests()
    seen_cases = {name: prepared.store.case_digests[name] for name in names}
    seen_slices = {name: slice_digests[name][:NUM_SLICES_KEPT] for name in names}
    return {
        "run_id": run_id,
        "architecture": settings.architecture,
        "input_slices": settings.input_slices,
        "network": settings.select(ArchitectureSettings).to_dict(),
        "init_from": parent.describe() if parent else None,
        "data_digest": prepared.store.digest,
        "seen_cases": parent.seen("seen_cases", seen_cases) if parent else seen_cases,
        "seen_slices": parent.seen("seen_slices", seen_slices) if parent else seen_slices,
        # of those seen: fit for choosing settings, since no weight was ever fitted to them
        "validation_cases": [
            name
            for name in prepared.split.validation
            if parent is None or not parent.has_seen(seen_cases[name], slice_digests[name])
        ],
        "best_epoch": fitted.best_epoch,
        "best_val_foreground_iou": fitted.best_score,
    }
