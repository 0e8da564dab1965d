"""A registry in SQLite, made once and copied for each test, with versions that hold no network."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import mlflow

from kits_ml.evaluation.evidence import Evidence, write_evaluation_json
from kits_ml.evaluation.tables import write_scores
from tests.tracking.stores import tracked_in

NAME = "kits-unet"


@contextmanager
def registry_in(folder: Path, template: Path) -> Iterator[mlflow.MlflowClient]:
    """Uses a copy of an empty registry in a folder; gives everything back afterwards."""
    shutil.copy(template, folder / "mlflow.db")
    with tracked_in(f"sqlite:///{folder / 'mlflow.db'}") as client:
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("gate", (folder / "artifacts").as_uri()))
        yield client


def make_template(folder: Path) -> Path:
    """An empty registry. Making its tables takes seconds, so it stays there for other processes and later runs."""
    path = folder / f"kits_ml-empty-mlflow-{mlflow.__version__}.db"
    with filelock.FileLock(f"{path}.lock"):
        if not path.exists():
            unfinished = path.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{unfinished}").search_registered_models()
            unfinished.rename(path)
    return path


def add_version(folder: Path, *, evidence: Evidence | None = None, **description) -> str:
    """Registers a version whose run scored some cases, and whose model is a folder with a description."""
    client = mlflow.MlflowClient()
    if not any(model.name == NAME for model in client.search_registered_models()):
        client.create_registered_model(NAME)
    with mlflow.start_run() as run:
        if evidence is not None:
            place = folder / f"scores-{run.info.run_id}"
            write_scores(place / "scores.csv", evidence.cases)
            write_evaluation_json(place, evidence.case_digests)
            mlflow.log_artifacts(str(place), "test")
    model = folder / f"model-{run.info.run_id}"
    inside = model / "artifacts" / "model"
    inside.mkdir(parents=True)
    (inside / "model.keras").touch()
    (inside / "model.json").write_text(json.dumps({"preprocessing": {}, "seen_cases": {}, **description}))
    version = str(client.create_model_version(NAME, model.as_uri(), run.info.run_id).version)
    client.set_registered_model_alias(NAME, "challenger", version)
    return version
