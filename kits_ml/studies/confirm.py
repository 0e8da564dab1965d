"""Tuning found a configuration for each architecture; here they are trained anew, and only these are compared."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from kits_ml import files, runtime
from kits_ml.config import ConfirmSettings, StudySettings, TrainSettings
from kits_ml.data.split_files import read_split_file
from kits_ml.errors import InputError, OtherTrainingError, StoppedError, first_line
from kits_ml.evaluation.comparison import costs
from kits_ml.evaluation.tables import CaseScores
from kits_ml.settings import suggestion
from kits_ml.studies.compared import CONFIRMED, COSTS_CSV, TEST_CSV, compare_confirmed
from kits_ml.studies.crew import crew
from kits_ml.studies.study import StudyResult, report_study, results_of
from kits_ml.studies.winner import register_winner
from kits_ml.tracking import run_scores
from kits_ml.tracking import studies as tracking
from kits_ml.tracking.runs import check_tracking_server
from kits_ml.workflows.compare import Compared
from kits_ml.workflows.promote import Promotion
from kits_ml.workflows.train import Trained, train

log = logging.getLogger(__name__)

#: What the tables hold of each case and region.
METRICS = ("dice", "iou", "surface_dice")
COLUMNS = ["case", "algorithm", "fold", "seed", "region", "metric", "score"]
#: Ending of a note beside the records: why a training of this call came to nothing.
_FAILED = ".failed"
_AGAIN = "the same command does it when it is started again"
TABLES = {"validation": "validation.csv", "test": TEST_CSV}


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the confirming trainings gave.

    Attributes:
        folder: with `validation.csv` and `test.csv`, a row a case, region, metric, fold and seed, and `costs.csv`.
        mean_dice: by architecture, over validation patients that all have, regions and seeds; best first.
        failures: messages of trainings that came to nothing, by name.
        run_id: the registered training's MLflow run: of the first architecture the one with the best validation
            score.
        compared: the comparison on test patients; None where there is nothing to compare.
        registered: the version in the registry; None where `register` was off.
        promotion: what the gate said of it; None where `register` or `promote` was off, or no answer came.
    """

    folder: Path
    mean_dice: Mapping[str, float]
    failures: Mapping[str, str]
    run_id: str
    compared: Compared | None
    registered: Any
    promotion: Promotion | None


def confirm(settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained] = train) -> Confirmed:
    """Trains the best configuration of each architecture over folds and seeds, and compares them on test patients.

    Each patient that is not for test validates in one fold; the test patients are the same in all. A study with a
    `split_file` is confirmed over its folds, or over seeds alone where it has none. The winner is chosen by
    validation scores. A training that is there already, with the same settings, is not repeated, one that was stopped
    goes on, and one that another process is at is left to it: several processes share the work, also those of other
    commands with `register` off.

    Args:
        settings: study, folds, seeds, control and margin.
        run: does one training.

    Raises:
        InputError: no such study, no complete trial, a control that is not there, more folds than the `split_file`
            has, a tracking server that does not answer, not one training that came to something, or no patient whom
            all architectures validate on.
        StoppedError: Ctrl-C or SIGTERM.
    """
    study = results_of(settings.select(StudySettings))
    name = study.spec.search.name
    if len(study.best) > 1 and settings.control not in study.best:
        known = suggestion(settings.control, list(study.best))
        raise InputError(f"control: {settings.control!r} has no complete trial in study {name}{known}")
    _plan(study, settings)  # what is wrong with it is told before other processes begin
    folder = _folder(study, settings)
    for note in (folder / "runs").glob(f"*{_FAILED}"):
        note.unlink(missing_ok=True)  # what failed in an earlier call is tried again
    with crew(functools.partial(_help, run=run), settings, name=name):
        records, failures = _train_all(study, settings, run=run)
    if not records:
        raise InputError(f"study {name}: no training came to something: {failures}")
    for part, table in TABLES.items():
        rows = [row for record in records for row in record["rows"][part]]
        files.write_csv(folder / table, rows, COLUMNS)
    tracking.attempt(lambda: _write_costs(folder / COSTS_CSV, records), what="the cost", later=_AGAIN)
    compared = compare_confirmed(
        folder.parent, control=settings.control, equivalence_margin=settings.equivalence_margin
    )
    try:
        report_study(settings.select(StudySettings), compared=compared)
    except InputError as error:
        log.warning("the study's page does not show it yet (%s); try `kits-ml study report`", first_line(error))
    mean_dice = rank(records)
    winner = max(
        (record for record in records if record["algorithm"] == next(iter(mean_dice))),
        key=lambda record: _mean_dice(record["rows"]["validation"]),
    )
    registered, promotion = register_winner(winner, settings) if settings.register else (None, None)
    return Confirmed(
        folder=folder,
        mean_dice=mean_dice,
        failures=failures,
        run_id=winner["run_id"],
        compared=compared,
        registered=registered,
        promotion=promotion,
    )


def rank(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean validation Dice by architecture, best first; a patient counts once, seeds are averaged within it.

    Where a training failed, its patients are left out for all: hard ones would weigh on the others alone.

    Raises:
        InputError: no patient that all architectures have.
    """
    by_patient: dict[str, dict[str, list[float]]] = {}
    for record in records:
        patients = by_patient.setdefault(record["algorithm"], {})
        for row in record["rows"]["validation"]:
            if row["metric"] == "dice" and np.isfinite(row["score"]):
                patients.setdefault(row["case"], []).append(row["score"])
    common = sorted(set.intersection(*map(set, by_patient.values())))
    if not common:
        raise InputError(
            f"validation: found no patient that all of {', '.join(by_patient)} have, as trainings failed; no winner"
        )
    means = {
        name: float(np.mean([np.mean(patients[case]) for case in common])) for name, patients in by_patient.items()
    }
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _help(settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained]) -> None:
    """What the other processes do: trainings, and nothing with them."""
    _train_all(results_of(settings.select(StudySettings)), settings, run=run)


def _train_all(
    study: StudyResult, settings: ConfirmSettings, *, run: Callable[[TrainSettings], Trained]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The records of the trainings, in the plan's order, and why others came to nothing, by name."""
    folder = _folder(study, settings)
    found: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    planned = _plan(study, settings)
    for name in _not_at_work(planned, folder / "locks"):
        one, note = planned[name], folder / "runs" / f"{name}{_FAILED}"
        if note.exists():  # another process of this call has tried it
            failures[name] = note.read_text()
            continue
        try:
            found[name] = _train_once(name, one, folder=folder, parent_id=study.run_ids[one.architecture], run=run)
        except Exception as error:
            if not isinstance(error, InputError) and not runtime.is_out_of_memory(error):
                raise
            check_tracking_server()  # where that is why, all others would fail alike
            failures[name] = first_line(error)
            files.write_bytes(note, failures[name].encode())
            log.warning("%s: %s", name, failures[name])
    return [found[name] for name in planned if name in found], failures


def _folder(study: StudyResult, settings: ConfirmSettings) -> Path:
    return Path(settings.output) / study.spec.search.name / CONFIRMED


def _plan(study: StudyResult, settings: ConfirmSettings) -> dict[str, TrainSettings]:
    """The trainings by name: a fold and seed of all architectures before the next, so that a stop costs all alike.

    Raises:
        InputError: more folds than the study's `split_file` has, or one that cannot be read.
    """
    planned = {}
    experiment = tracking.experiment_of(study.run_id)
    folds = {architecture: _folds(study.spec.fixed[architecture], settings) for architecture in study.best}
    for seed, number in itertools.product(range(settings.confirm_seeds), range(settings.confirm_folds)):
        for architecture, trial in study.best.items():
            for fold in folds[architecture][number : number + 1]:
                name = f"{architecture}_fold{number}_seed{seed}"
                changes = {**fold, "seed": seed, "experiment": experiment, "run_name": name}
                planned[name] = study.spec.training(architecture, trial.params, changes)
    return planned


def _folds(fixed: Mapping[str, Any], settings: ConfirmSettings) -> list[dict[str, int]]:
    """The settings of each fold: of patients that are drawn, or of the study's `split_file`."""
    path = fixed.get("split_file")
    if path is None:
        return [{"num_folds": settings.confirm_folds, "fold": fold} for fold in range(settings.confirm_folds)]
    num_folds = len(read_split_file(path))
    if 1 < num_folds < settings.confirm_folds:
        raise InputError(
            f"confirm_folds: found {settings.confirm_folds}, expected at most the {num_folds} of split_file {path}"
        )
    return [{"fold": fold} for fold in range(min(num_folds, settings.confirm_folds))]


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
    path, record = folder / "runs" / f"{name}.json", None
    if path.exists():
        record = json.loads(path.read_text())
    if record is None or record["settings"] != settings.to_dict():
        trained = _go_on(name, settings, folder=folder, run=run)
        record = {
            "algorithm": settings.architecture,
            "run_id": trained.run_id,
            "settings": settings.to_dict(),
            "rows": {part: _rows(trained.scores.get(part, ()), settings) for part in TABLES},
        }
        files.write_json(path, record)
    tags = {"architecture": settings.architecture, "confirms": name}
    tracking.attempt(  # again where it was done before: the tracking server may have been away then
        lambda: tracking.put_below(record["run_id"], parent_id, tags=tags), what=f"the place of {name}", later=_AGAIN
    )
    return record


def _go_on(name: str, settings: TrainSettings, *, folder: Path, run: Callable[[TrainSettings], Trained]) -> Trained:
    """Trains, from where an earlier call was stopped if it was at the same.

    Each training has a folder of checkpoints, beside the study's own folder, which goes to MLflow as a whole.
    """
    checkpoints = folder.parent.with_name(f"{folder.parent.name}.checkpoints") / name
    kept = replace(settings, resume=checkpoints.exists(), checkpoints=str(checkpoints))
    try:
        trained = run(kept)
    except StoppedError as error:
        what = first_line(error).partition(";")[0]
        raise StoppedError(
            f"{what} in {name}; the same command goes on", signal_number=error.exit_code - 128
        ) from error
    except OtherTrainingError as error:
        log.warning("%s starts anew: %s", name, first_line(error))
        shutil.rmtree(checkpoints)
        return _go_on(name, settings, folder=folder, run=run)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return trained


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


def _write_costs(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes what the trainings cost, as their runs say: the mean of each architecture."""
    by_architecture: dict[str, list[costs.Cost]] = {}
    for record in records:
        by_architecture.setdefault(record["algorithm"], []).append(run_scores.cost_of(record["run_id"]))
    rows = [{"algorithm": name, **asdict(costs.mean_cost(found))} for name, found in by_architecture.items()]
    files.write_csv(path, rows, ["algorithm", *costs.NAMES])
