"""A study from its file to its results: begun, gone on with, helped, looked at, reported."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from kits_ml.config import StudySettings
from kits_ml.errors import InputError
from kits_ml.studies import plots, results, search
from kits_ml.studies.compared import compared_before
from kits_ml.studies.crew import crew
from kits_ml.studies.objective import Train
from kits_ml.studies.report import write_page
from kits_ml.studies.spec import StudySpec, check_data, parse_spec, read_spec
from kits_ml.studies.storage import opened_storage, shown, would_be_made
from kits_ml.studies.strategies import SeededByTrial, make_pruner
from kits_ml.tracking import studies as tracking
from kits_ml.workflows.compare import Compared
from kits_ml.workflows.trial import train_trial

log = logging.getLogger(__name__)

#: User attributes of an Optuna study: what its file says, and the MLflow runs of the architecture and the study.
_DOCUMENT, _RUN, _STUDY_RUN = "document", "mlflow_run_id", "mlflow_study_run_id"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is open.

    Attributes:
        spec: what its file says.
        studies: Optuna's studies, by architecture.
        run_ids: their MLflow runs, by architecture.
        run_id: the MLflow run above them.
    """

    spec: StudySpec
    studies: Mapping[str, optuna.Study]
    run_ids: Mapping[str, str]
    run_id: str


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study found.

    Attributes:
        spec: what its file says.
        progress: how far each architecture is.
        best: the best trial of each architecture that has one, best score first.
        folder: with `study.html`, `best.yaml`, tables and plots.
        run_id: the MLflow run.
        run_ids: those of the architectures below it.
    """

    spec: StudySpec
    progress: Mapping[str, search.Progress]
    best: Mapping[str, FrozenTrial]
    folder: Path
    run_id: str
    run_ids: Mapping[str, str]


def run_study(settings: StudySettings, *, train: Train = train_trial) -> StudyResult:
    """Begins a study, or goes on with one of the same settings, and reports it when the budget is spent.

    Raises:
        InputError: a bad file, no cases, a storage or tracking server that does not answer, a study of that name with
            other settings, no trial that came to something.
    """
    spec = read_spec(settings.study)
    check_data(spec)
    with opened_storage(settings) as storage:
        there = _names(storage, spec.search.name)
        if there:
            log.info("study %s: goes on; %d architectures are there", spec.search.name, len(there))
        return _search(_open(spec, storage, settings), settings, train=train, report=True)


def resume_study(settings: StudySettings, *, train: Train = train_trial) -> StudyResult:
    """Goes on with a study that the storage holds, and reports it when the budget is spent.

    Raises:
        InputError: as `run_study`, or no such study.
    """
    with _storage_of(settings) as storage:
        return _search(_find(settings, storage), settings, train=train, report=True)


def join_study(settings: StudySettings, *, train: Train = train_trial) -> StudyResult:
    """Helps with a study until its budget is spent, and leaves the report to whoever began it.

    Raises:
        InputError: as `resume_study`.
    """
    with _storage_of(settings) as storage:
        return _search(_find(settings, storage, join=True), settings, train=train, report=False)


def report_study(settings: StudySettings, *, compared: Compared | None = None) -> StudyResult:
    """Writes what a study found so far and logs what MLflow lacks.

    Args:
        settings: which study.
        compared: the comparison of the confirming trainings; without it the one that is there, if any, made again.

    Raises:
        InputError: as `resume_study`.
    """
    with _storage_of(settings) as storage:
        study = _find(settings, storage)
        found = _report(study, settings, compared=compared)
        if all(search.is_spent(one, study.spec.search) for one in found.progress.values()):
            _close(study, status="FINISHED")  # else somebody may be at it, or was stopped
        return found


def study_status(settings: StudySettings) -> tuple[StudySpec, dict[str, search.Progress], dict[str, FrozenTrial]]:
    """How far a study is, and its best trials so far; changes nothing.

    Raises:
        InputError: no such study, a storage that does not answer.
    """
    with _storage_of(settings) as storage:
        spec = _spec_of(settings, storage)
        there = _there(spec, storage)
        if not there:
            raise _no_study(spec.search.name, optuna.get_all_study_names(storage), settings)
        studies = {name: optuna.load_study(study_name=_name(spec, name), storage=storage) for name in there}
        return spec, {name: search.progress(one) for name, one in studies.items()}, results.best_trials(studies)


def results_of(settings: StudySettings) -> StudyResult:
    """What a study found, as `study run` left it; changes nothing.

    Raises:
        InputError: no such study, no complete trial, or a tracking server that does not know it.
    """
    with _storage_of(settings) as storage:
        study = _find(settings, storage, join=True)
        results.require_results(study.studies, name=study.spec.search.name)
        return _result(study, settings)


def _search(study: Study, settings: StudySettings, *, train: Train, report: bool) -> StudyResult:
    def on_trial(architecture: str, trial: FrozenTrial) -> None:
        def log_trial() -> None:
            tracking.log_trial(study.run_ids[architecture], results.record(architecture, trial, study.spec))

        tracking.attempt(log_trial, what=f"{architecture}, trial {trial.number}")

    name, help_with_it = study.spec.search.name, functools.partial(join_study, train=train)
    if report:
        tracking.mark_running([study.run_id, *study.run_ids.values()])
    try:
        check_data(study.spec)
        with crew(help_with_it, replace(settings, study=name), name=name):
            search.work(study.studies, study.spec, train=train, on_trial=on_trial, poll_s=settings.poll_s)
        found = _report(study, settings) if report else _result(study, settings)
    except BaseException as error:
        if report:
            _close(study, status="FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    if report:
        _close(study, status="FINISHED")
    return found


def _close(study: Study, *, status: str) -> None:
    run_ids = [*study.run_ids.values(), study.run_id]
    tracking.attempt(lambda: tracking.close(run_ids, status=status), what="the end of the study")


def _report(study: Study, settings: StudySettings, *, compared: Compared | None = None) -> StudyResult:
    name = study.spec.search.name
    results.require_results(study.studies, name=name)
    folder = Path(settings.output) / name
    best = results.write_results(folder, study.studies, study.spec)
    curves = plots.write_tuning_curves(folder / "plots", study.studies, study.spec)
    drawn = plots.write_plots(folder / "plots", study.studies, study.spec)
    compared = compared or compared_before(folder)
    write_page(folder, study.studies, study.spec, pictures=[curves, *drawn], compared=compared)
    tracking.attempt(lambda: _log_report(study, best, folder), what=f"the report of study {name}")
    return _result(study, settings)


def _log_report(study: Study, best: Mapping[str, FrozenTrial], folder: Path) -> None:
    """Logs the trials that MLflow lacks and the results."""
    best_score = f"best_{study.spec.objectives[0]}"
    for architecture, run_id in study.run_ids.items():
        _log_missing(architecture, study)
        if architecture in best:
            trial = best[architecture]
            tracking.log_results(run_id, metrics={best_score: trial.values[0], "best_trial": trial.number})
    tracking.log_results(study.run_id, metrics={best_score: next(iter(best.values())).values[0]}, folder=folder)


def _result(study: Study, settings: StudySettings) -> StudyResult:
    return StudyResult(
        spec=study.spec,
        progress={name: search.progress(one) for name, one in study.studies.items()},
        best=results.best_trials(study.studies),
        folder=Path(settings.output) / study.spec.search.name,
        run_id=study.run_id,
        run_ids=study.run_ids,
    )


def _log_missing(architecture: str, study: Study) -> None:
    """Logs the trials that MLflow does not have: of killed workers, and of times when it was away."""
    there = tracking.logged_trials(study.run_ids[architecture])
    for trial in results.ended_trials(study.studies[architecture]):
        if trial.number not in there:
            tracking.log_trial(study.run_ids[architecture], results.record(architecture, trial, study.spec))


def _open(spec: StudySpec, storage: BaseStorage, settings: StudySettings) -> Study:
    """Opens or creates Optuna's studies and their MLflow runs."""
    studies = _open_studies(spec, storage)
    run_id, run_ids = _open_runs(spec, studies, settings)
    for name, study in studies.items():
        attributes = {_DOCUMENT: dict(spec.document), _RUN: run_ids[name], _STUDY_RUN: run_id}
        for key, value in attributes.items():
            if study.user_attrs.get(key) != value:
                study.set_user_attr(key, value)
    return Study(spec=spec, studies=studies, run_ids=run_ids, run_id=run_id)


def _join(spec: StudySpec, storage: BaseStorage) -> Study:
    """Opens what `study run` made."""
    studies = _open_studies(spec, storage)
    run_ids = {
        name: tracking.require_run(study.user_attrs.get(_RUN), what=_name(spec, name))
        for name, study in studies.items()
    }
    run_id = next(iter(studies.values())).user_attrs[_STUDY_RUN]
    return Study(spec=spec, studies=studies, run_ids=run_ids, run_id=run_id)


def _open_studies(spec: StudySpec, storage: BaseStorage) -> dict[str, optuna.Study]:
    for name in _there(spec, storage):
        _check_same(spec, optuna.load_study(study_name=_name(spec, name), storage=storage))
    return {
        name: optuna.create_study(
            study_name=_name(spec, name),
            storage=storage,
            sampler=SeededByTrial(spec.sampler, seed=spec.search.seed),
            pruner=make_pruner(spec.pruner, where=f"{spec.source}: pruner"),
            directions=spec.directions,
            load_if_exists=True,
        )
        for name in spec.architectures
    }


def _open_runs(
    spec: StudySpec, studies: Mapping[str, optuna.Study], settings: StudySettings
) -> tuple[str, dict[str, str]]:
    """The runs that the storage remembers, where the tracking server has them; else new ones."""
    known = {name: study.user_attrs.get(_RUN) for name, study in studies.items()}
    above = {study.user_attrs.get(_STUDY_RUN) for study in studies.values()} - {None}
    run_id = next((one for one in above if tracking.run_exists(one)), None)
    if run_id is None:
        run_id = tracking.open_study(spec.search.name, experiment=settings.experiment, document=spec.document)
        known = {}
    run_ids = {}
    for name in studies:
        if known.get(name) and tracking.run_exists(known[name]):
            run_ids[name] = known[name]
        else:
            run_ids[name] = tracking.open_child(run_id, name=name, tags={"architecture": name})
    return run_id, run_ids


def _find(settings: StudySettings, storage: BaseStorage, *, join: bool = False) -> Study:
    spec = _spec_of(settings, storage)
    if len(_there(spec, storage)) < len(spec.architectures):
        raise _no_study(spec.search.name, optuna.get_all_study_names(storage), settings)
    return _join(spec, storage) if join else _open(spec, storage, settings)


def _spec_of(settings: StudySettings, storage: BaseStorage) -> StudySpec:
    """What the file says, or for a name, what the storage holds of it."""
    if _is_file(settings.study):
        return read_spec(settings.study)
    names = _names(storage, settings.study)
    if not names:
        raise _no_study(settings.study, optuna.get_all_study_names(storage), settings)
    document = optuna.load_study(study_name=names[0], storage=storage).user_attrs.get(_DOCUMENT)
    if document is None:
        raise InputError(f"study {settings.study}: was not made by `kits-ml study run`, expected one that was")
    return parse_spec(document, source=settings.study)


def _is_file(study: str) -> bool:
    """Whether a study is given as its file, and not by its name."""
    return Path(study).suffix in (".yaml", ".yml") or Path(study).is_file()


def _no_study(name: str, there: Iterable[str], settings: StudySettings) -> InputError:
    known = sorted({one.split("/")[0] for one in there})
    return InputError(
        f"study {name}: not in {shown(settings.storage)}, expected one of: {', '.join(known) or 'none is there'}"
    )


def _check_same(spec: StudySpec, study: optuna.Study) -> None:
    document = study.user_attrs.get(_DOCUMENT, spec.document)
    other = spec.differences(document)
    if other:
        raise InputError(
            f"{spec.source}: study {spec.search.name} exists with other settings ({', '.join(other)}); "
            "expected another name, or the same settings (the budget may grow)"
        )


def _name(spec: StudySpec, architecture: str) -> str:
    return f"{spec.search.name}/{architecture}"


def _names(storage: BaseStorage, name: str) -> list[str]:
    return [one for one in optuna.get_all_study_names(storage) if one.startswith(f"{name}/")]


def _there(spec: StudySpec, storage: BaseStorage) -> list[str]:
    there = set(_names(storage, spec.search.name))
    return [name for name in spec.architectures if _name(spec, name) in there]


@contextlib.contextmanager
def _storage_of(settings: StudySettings) -> Iterator[BaseStorage]:
    """The storage of a study that must be there: looking for it makes none."""
    if would_be_made(settings):
        name = read_spec(settings.study).search.name if _is_file(settings.study) else settings.study
        raise _no_study(name, (), settings)
    with opened_storage(settings) as storage:
        yield storage
