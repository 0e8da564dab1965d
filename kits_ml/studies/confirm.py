"""Tuning found a configuration for each architecture; here they are trained anew, and only these are compared."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from kits_ml import files
from kits_ml.config import ConfirmSettings, RegisterSettings, StudySettings, TrainSettings
from kits_ml.errors import InputError, first_line
from kits_ml.evaluation.tables import CaseScores
from kits_ml.studies.crew import crew
from kits_ml.studies.spec import StudySpec
from kits_ml.studies.study import StudyResult, results_of
from kits_ml.tracking import studies as tracking
from kits_ml.workflows.register import register
from kits_ml.workflows.train import Trained, train

log = logging.getLogger(__name__)

#: What the tables hold of each case and region.
METRICS = ("dice", "iou", "surface_dice")
COLUMNS = ("case", "algorithm", "fold", "seed", "region", "metric", "score")
PARTS = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the confirming trainings gave.

    Attributes:
        folder: with `validation.csv` and `test.csv`, a row a case, region, metric, fold and seed.
        mean_dice: by architecture, over validation patients, regions and seeds; best first.
        failures: messages of trainings that came to nothing, by name.
        run_id: the registered training's MLflow run: of the first architecture the one with the best validation
            score.
        registered: the version in the registry; None where `register` was off.
    """

    folder: Path
    mean_dice: Mapping[str, float]
    failures: Mapping[str, str]
    run_id: str
    registered: Any


def confirm(settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained] = train) -> Confirmed:
    """Trains the best configuration of each architecture over folds and seeds, and scores validation and test cases.

    Each patient that is not for test validates in one fold; the test patients are the same in all. The winner is
    chosen by validation scores. A training that is there already, with the same settings, is not repeated, and one
    that another process is at is left to it: several processes share the work (those of
    other commands with `register` off).

    Args:
        settings: study, folds, seeds.
        run: does one training.

    Raises:
        InputError: no such study, no complete trial, or not one training that came to something.
    """
    study = results_of(settings.select(StudySettings))
    name = study.spec.search.name
    folder = _folder(study, settings)
    with crew(functools.partial(_help, run=run), settings, name=name):
        planned, found, failures = _train_all(study, settings, run=run)
    records = [found[one] for one in planned if one in found]
    if not records:
        raise InputError(f"study {name}: no training came to something: {failures}")
    for part in PARTS:
        rows = [row for record in records for row in record["rows"][part]]
        files.write_bytes(folder / f"{part}.csv", _to_csv(rows).encode())
    mean_dice = rank(records)
    winner = max(
        (record for record in records if record["algorithm"] == next(iter(mean_dice))),
        key=lambda record: _mean_dice(record["rows"]["validation"]),
    )
    chosen = RegisterSettings(run_id=winner["run_id"], model_name=settings.model_name)
    tracking.attempt(
        lambda: tracking.log_results(study.run_id, folder=folder, metrics={}, place="confirmed"), what="confirmed"
    )
    return Confirmed(
        folder=folder,
        mean_dice=mean_dice,
        failures=failures,
        run_id=winner["run_id"],
        registered=register(chosen) if settings.register else None,
    )


def rank(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean validation Dice by architecture, best first; a patient counts once, seeds are averaged within it."""
    by_patient: dict[str, dict[str, list[float]]] = {}
    for record in records:
        patients = by_patient.setdefault(record["algorithm"], {})
        for row in record["rows"]["validation"]:
            if row["metric"] == "dice" and np.isfinite(row["score"]):
                patients.setdefault(row["case"], []).append(row["score"])
    means = {
        name: float(np.mean([np.mean(scores) for scores in patients.values()]))
        for name, patients in by_patient.items()
    }
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _help(settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained]) -> None:
    """What the other processes do: trainings, and nothing with them."""
    _train_all(results_of(settings.select(StudySettings)), settings, run=run)


def _train_all(
    study: StudyResult, settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained]
) -> tuple[dict[str, TrainSettings], dict[str, dict[str, Any]], dict[str, str]]:
    """The planned trainings, the records of those that are done, and the messages of those that failed, by name."""
    folder = _folder(study, settings)
    found: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    planned = _plan(study.spec, study.best, settings, experiment=tracking.experiment_of(study.run_id))
    for name in _not_at_work(planned, folder / "locks"):
        one = planned[name]
        try:
            found[name] = _train_once(name, one, folder=folder, parent_id=study.run_ids[one.architecture], run=run)
        except InputError as error:
            failures[name] = first_line(error)
            log.warning("%s: %s", name, failures[name])
    return planned, found, failures


def _folder(study: StudyResult, settings: ConfirmSettings) -> Path:
    return Path(settings.output) / study.spec.search.name / "confirmed"


def _plan(
    spec: StudySpec, best: Mapping[str, Any], settings: ConfirmSettings, *, experiment: str
) -> dict[str, TrainSettings]:
    """The trainings by name: a fold and seed of all architectures before the next, so that a stop costs all alike."""
    planned = {}
    for seed in range(settings.confirm_seeds):
        for fold in range(settings.confirm_folds):
            for architecture, trial in best.items():
                name = f"{architecture}_fold{fold}_seed{seed}"
                changes = {
                    **{"num_folds": settings.confirm_folds, "fold": fold, "seed": seed},
                    **{"experiment": experiment, "run_name": name},
                }
                planned[name] = spec.training(architecture, trial.params, changes)
    return planned


def _not_at_work(names: Iterable[str], locks: Path) -> Iterator[str]:
    """Yields each name while its lock is held; those that another process holds come last, when it is done."""
    locks.mkdir(parents=True, exist_ok=True)
    left = list(names)
    for blocking in (False, True):
        for name in tuple(left):
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(locks / name, blocking=blocking):
                left.remove(name)
                yield name


def _train_once(
    name: str, settings: TrainSettings, *, folder: Path, parent_id: str, run: Callable[[TrainSettings], Trained]
) -> dict[str, Any]:
    path = folder / "runs" / f"{name}.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["settings"] == settings.to_dict():
            return record
    trained = run(settings)
    tags = {"architecture": settings.architecture, "confirms": name}
    tracking.attempt(lambda: tracking.put_below(trained.run_id, parent_id, tags=tags), what=name)
    record = {
        "algorithm": settings.architecture,
        "run_id": trained.run_id,
        "settings": settings.to_dict(),
        "rows": {part: _rows(trained.scores.get(part, ()), settings) for part in PARTS},
    }
    files.write_json(path, record)
    return record


def _rows(cases: Iterable[CaseScores], settings: TrainSettings) -> list[dict[str, Any]]:
    """Of each case, region and metric its score; what is not defined there is left out."""
    return [
        {
            **{"case": case.case, "algorithm": settings.architecture, "fold": settings.fold, "seed": settings.seed},
            **{"region": region, "metric": metric, "score": float(getattr(scores, metric))},
        }
        for case in cases
        for region, scores in case.regions.items()
        for metric in METRICS
        if np.isfinite(getattr(scores, metric))
    ]


def _mean_dice(rows: Iterable[Mapping[str, Any]]) -> float:
    return float(np.mean([row["score"] for row in rows if row["metric"] == "dice"]))


def _to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
