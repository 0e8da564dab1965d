"""The report's training as it says it: prepared, trained, and what the run recorded.

The training is `kits-ml train` itself: an MLflow run that goes on after a kill, with the report's own metric beside
the honest ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import readings
from plan import Plan, exact_settings

from kits_ml import figures, runtime
from kits_ml.config import PhantomSettings, PrepareSettings
from kits_ml.data import cases as case_files
from kits_ml.data import phantom
from kits_ml.data.slices import PIXEL_COLUMNS
from kits_ml.inference.predictor import Predictor
from kits_ml.training import batches
from kits_ml.workflows.prepare import Prepared, prepare

log = logging.getLogger(__name__)

#: Slices that the trained model is asked about at once.
READING_BATCH_SIZE = 8

#: What a run recorded of each epoch begins so.
EPOCH_METRICS = ("loss", "val_", "as_reported/", "learning_rate")


def make_phantom(plan: Plan) -> dict[str, Any]:
    """Makes the phantom cases that are not there yet."""
    settings = PhantomSettings(
        output=str(plan.phantom), num_cases=plan.num_phantoms, distribution="small", num_workers=plan.num_workers
    )
    return {"num_cases": len(phantom.write_cases(settings)), "distribution": settings.distribution}


def prepare_exact(plan: Plan) -> dict[str, Any]:
    """Selects, prepares and splits the cases of the report's training."""
    prepared = prepare(exact_settings(plan).select(PrepareSettings))
    return describe_prepared(prepared)


def describe_prepared(prepared: Prepared) -> dict[str, Any]:
    """What a training gets: cases, slices and pixels of each part, and digests of data and split."""
    split = prepared.split.to_dict()
    parts = {}
    for part, names in split.items():
        slices = batches.read_slices(prepared.store, names)
        pixels = slices.pixels_per_class.sum(axis=0)
        parts[part] = {
            **batches.describe(slices),
            **{column: int(count) for column, count in zip(PIXEL_COLUMNS, pixels, strict=True)},
            "foreground_fraction": float(pixels[1:].sum() / pixels.sum()),
        }
    split_digest = hashlib.blake2b(json.dumps(split).encode(), digest_size=8).hexdigest()
    return {
        "digest": f"{prepared.store.digest}-{split_digest}",
        "num_kept": len(prepared.selection.kept),
        "num_left_out": len(prepared.selection.left_out),
        "parts": parts,
    }


def model_folder(plan: Plan) -> Path:
    """Where the trained model is kept."""
    return plan.output / "exact_model"


def train_exact(plan: Plan, *, checkpoints: Path) -> dict[str, Any]:
    """Trains, or goes on with the training that was stopped, and keeps the model in `model_folder`.

    Args:
        plan: where and how large.
        checkpoints: a folder for this training's checkpoints alone.

    Returns:
        The MLflow run, its course epoch by epoch, and the scores on the scans' own grids.
    """
    from kits_ml.tracking import addresses, registry
    from kits_ml.workflows.train import train

    settings = exact_settings(plan)
    trained = train(dataclasses.replace(settings, checkpoints=str(checkpoints), resume=True))
    shutil.rmtree(model_folder(plan), ignore_errors=True)
    shutil.copytree(addresses.local_folder(registry.model_of_run(trained.run_id)), model_folder(plan))
    return {
        "run_id": trained.run_id,
        "images_seen": settings.epochs * settings.steps_per_epoch * settings.batch_size,
        **read_run(trained.run_id),
        "summaries": dict(trained.summaries),
    }


def read_exact(plan: Plan) -> dict[str, Any]:
    """What the report's metric reads on the test patients' prepared slices; see `readings.read_ways`.

    Draws the median and the best of the patients with tumour into `OUTPUT/pictures`.
    """
    runtime.configure(num_threads=plan.num_threads)
    prepared = prepare(exact_settings(plan).select(PrepareSettings))
    slices = batches.read_slices(prepared.store, prepared.split.test)
    predictor = Predictor.load(model_folder(plan), batch_size=READING_BATCH_SIZE)
    predicted = readings.predictions(predictor.network, slices, batch_size=READING_BATCH_SIZE)
    found = readings.read_ways(predicted)
    for rank, case in _shown(found["trained_by_case"], prepared).items():
        draw_prediction(predictor, prepared.cases[case], path=plan.output / "pictures" / f"{rank}.png")
    return found


def draw_prediction(predictor: Predictor, case: case_files.Case, *, path: Path) -> None:
    """Draws a case's telling slices with truth and prediction, on the scan's own grid."""
    image, label_map = case_files.load_case(case)
    segmented = predictor.segment(image.array, spacing_mm=image.spacing_mm)
    figure = figures.overlay_of_case(image.array, label_map.array, segmented, spacing_mm=image.spacing_mm)
    figures.save_figure(path, figure, dpi=80)


def _shown(by_case: Mapping[str, Mapping[str, float]], prepared: Prepared) -> dict[str, str]:
    """The median and the best case, by the mean of both Dice, of those with tumour if any have one."""
    volumes_ml = prepared.store.tumour_volumes_ml()
    names = [name for name in by_case if volumes_ml[name]] or list(by_case)
    ordered = sorted(names, key=lambda name: np.nansum(list(by_case[name].values())))
    ranks = {"median_patient_with_tumour": ordered[(len(ordered) - 1) // 2], "best_patient_with_tumour": ordered[-1]}
    return {rank: case for number, (rank, case) in enumerate(ranks.items()) if len(ordered) > number}


def read_run(run_id: str) -> dict[str, Any]:
    """What an MLflow run recorded: metrics by epoch, metrics of the whole training, and the device."""
    import mlflow

    client = mlflow.MlflowClient()
    data = client.get_run(run_id).data
    names = sorted(name for name in data.metrics if name.startswith(EPOCH_METRICS))
    history = {
        name: [one.value for one in sorted(client.get_metric_history(run_id, name), key=lambda one: one.step)]
        for name in names
    }
    once = {name: data.metrics[name] for name in ("best_epoch", "best_val_foreground_iou", "training_minutes")}
    wanted = ("devices", "cpu_count", "cpu_bfloat16", "precision_used", "keras_backend", "keras_version")
    return {"history": history, **once, "device": {name: data.tags[name] for name in wanted if name in data.tags}}
