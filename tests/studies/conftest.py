"""A small study whose trainings are arithmetic, so that the machinery can be watched."""

import copy
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from kits_ml.config import StudySettings, TrainSettings
from kits_ml.studies import search
from kits_ml.studies.spec import StudySpec, parse_spec
from kits_ml.studies.storage import close_storage, open_storage
from kits_ml.studies.strategies import SeededByTrial, make_pruner
from kits_ml.training.budget import num_epochs
from kits_ml.workflows.trial import Trialled
from tests.tracking.stores import tracked_in

DOCUMENT = {
    "name": "small",
    "architectures": ["unet", "attention_unet"],
    "trials": 4,
    "seed": 5,
    "base": {"image_size": 32, "depth": 2, "base_filters": 4, "epochs": 3, "steps_per_epoch": 2},
    "space": {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "batch_size": {"low": 2, "high": 8, "step": 2},
    },
    "sampler": "RandomSampler",
    "pruner": "NopPruner",
}


@pytest.fixture
def document() -> dict:
    return copy.deepcopy(DOCUMENT)


@pytest.fixture
def make_spec(document):
    """The small study, with changes: `make_spec(trials=2)`; None takes a key out."""

    def make(**changes):
        content = {**document, **changes}
        return parse_spec({key: value for key, value in content.items() if value is not None}, source="s.yaml")

    return make


@pytest.fixture(scope="session")
def empty_databases(tmp_path_factory):
    """MLflow's and Optuna's databases with their tables, which take seconds to make."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}").remove_session()
    return folder


@pytest.fixture
def settings(tmp_path, monkeypatch, empty_databases) -> Iterator[StudySettings]:
    """Storage, MLflow and output in a folder of the test's own."""
    for name in ("mlflow.db", "optuna.db"):
        shutil.copy(empty_databases / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with tracked_in(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        yield StudySettings(
            study=str(tmp_path / "s.yaml"),
            storage=f"sqlite:///{tmp_path / 'optuna.db'}",
            output=str(tmp_path / "studies"),
            poll_s=0.05,
            num_processes=1,
        )


@pytest.fixture
def write(document):
    """Writes the small study's file, with changes: `write(settings, trials=2)`."""

    def write(settings, **changes) -> None:
        content = {**document, **changes}
        Path(settings.study).write_text(yaml.safe_dump(content, sort_keys=False))

    return write


@pytest.fixture
def rdb_study(settings) -> Iterator[optuna.Study]:
    """A study of Optuna's in a database, with heartbeats."""
    storage = open_storage(settings)
    yield optuna.create_study(study_name="s", storage=storage, direction="maximize")
    close_storage(storage)


def an_hour_passes(study: optuna.Study) -> None:
    """Makes the signs of life in a study's database an hour older than now."""
    with study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))


def studies_of(spec: StudySpec) -> dict[str, optuna.Study]:
    """Optuna's studies of a study, in memory."""
    return {
        name: optuna.create_study(
            study_name=name,
            sampler=SeededByTrial(spec.sampler, seed=spec.search.seed),
            pruner=make_pruner(spec.pruner, where="pruner"),
            directions=spec.directions,
        )
        for name in spec.architectures
    }


def work(spec: StudySpec, *, train=None, studies=None, told=None) -> dict[str, optuna.Study]:
    """Works until the budget is spent; `told` gets architecture and number of each trial."""
    studies = studies or studies_of(spec)
    tell = (lambda name, trial: told.append((name, trial.number))) if told is not None else (lambda *_: None)
    search.work(studies, spec, train=train or pretend, on_trial=tell, poll_s=0.01)
    return studies


def states(study: optuna.Study) -> list[TrialState]:
    """Of its trials, in order."""
    return [trial.state for trial in study.trials]


def score_of(settings: TrainSettings) -> float:
    """What `pretend` makes of settings: 1 at a learning rate of 0.01, less with distance in decades."""
    return 1 - abs(math.log10(settings.learning_rate) + 2) / 4


def pretend(settings: TrainSettings, *, on_epoch) -> Trialled:
    """A training without a network: the score of epoch `e` of `n` is `(e + 1) / n` of `score_of`."""
    epochs = num_epochs(settings)
    for epoch in range(epochs):
        value = score_of(settings) * (epoch + 1) / epochs
        on_epoch(epoch, {"loss": 1 - value, "val_foreground_iou": value})
    cases = {f"case_{settings.fold}{number}": {"foreground_iou": score_of(settings)} for number in range(3)}
    return Trialled(
        score=score_of(settings),
        best_epoch=epochs - 1,
        cases=cases,
        num_parameters=100 * settings.batch_size,
        gflops=0.5,
        training_minutes=0.25,
    )
