"""The way of a study from `mlflow run` to a registered winner, with real trainings on minuscule phantom cases."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from tests.conftest import copy_project, project_environment, write_phantoms

ARCHITECTURES = ("unet", "attention_unet")
NUM_CASES, NUM_TRIALS, NUM_FOLDS, NUM_SEEDS = 8, 2, 2, 2
STUDY = {
    "name": "minuscule",
    "architectures": list(ARCHITECTURES),
    "trials": NUM_TRIALS,
    "base": {
        **{"data": "cases", "image_size": 32, "depth": 2, "base_filters": 2, "batch_size": 4},
        **{"epochs": 2, "steps_per_epoch": 2, "num_workers": 1, "test_fraction": 0.25},
    },
    "space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    "sampler": "RandomSampler",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000)]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with cases and a study's file."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    write_phantoms(folder / "cases", NUM_CASES, num_slices=6, size=64)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def _run(project: Path, module: str, *arguments: str) -> str:
    command, environment = [sys.executable, "-m", module, *arguments], project_environment()
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def studied(project) -> str:
    return _run(project, "mlflow", "run", ".", "-e", "study", "--env-manager", "local", "-P", "study=study.yaml")


@pytest.fixture(scope="module")
def confirmed(project, studied) -> str:
    options = ("--confirm_folds", str(NUM_FOLDS), "--confirm_seeds", str(NUM_SEEDS))
    return _run(project, "kits_ml", "study", "confirm", "study.yaml", *options)


@pytest.fixture(scope="module")
def client(project, confirmed) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_study_ends_in_its_page(project, studied):
    folder = project / "studies/minuscule"
    rows = _rows(folder / "trials.csv")
    assert Counter(row["architecture"] for row in rows) == dict.fromkeys(ARCHITECTURES, NUM_TRIALS)
    assert {row["state"] for row in rows} == {"COMPLETE"}
    page = (folder / "study.html").read_text()
    assert "Study minuscule" in page
    best = max(float(row["val_foreground_iou"]) for row in rows)
    assert f"The highest val_foreground_iou, {best:.4f}, is trial" in page


def test_each_patient_validates_once_a_seed_and_the_test_patients_are_the_same(project, confirmed):
    folder = project / "studies/minuscule/confirmed"
    validation, test = _rows(folder / "validation.csv"), _rows(folder / "test.csv")
    of_test = {row["case"] for row in test}
    assert len(of_test) == NUM_CASES / 4  # test_fraction
    for architecture in ARCHITECTURES:
        seen = Counter(
            (row["case"], row["seed"])
            for row in validation
            if (row["algorithm"], row["region"], row["metric"]) == (architecture, "kidney", "dice")
        )
        assert set(seen.values()) == {1}
        assert len(seen) == (NUM_CASES - len(of_test)) * NUM_SEEDS
        scored = Counter(
            row["case"]
            for row in test
            if (row["algorithm"], row["region"], row["metric"]) == (architecture, "kidney", "dice")
        )
        assert scored == dict.fromkeys(of_test, NUM_FOLDS * NUM_SEEDS)
    # no trial has looked at them
    assert not of_test & {row["case"] for row in _rows(project / "studies/minuscule/best_cases.csv")}


def test_all_of_it_is_one_tree_of_runs(client):
    (experiment,) = [one for one in client.search_experiments() if client.search_runs([one.experiment_id])]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = {}
    for run in runs:
        children.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run)
    (top,) = children[None]  # the run that `mlflow run` opened
    assert top.data.tags["study"] == "minuscule"
    assert {run.data.tags["architecture"] for run in children[top.info.run_id]} == set(ARCHITECTURES)
    for architecture in children[top.info.run_id]:
        below = children[architecture.info.run_id]
        assert sum("trial" in run.data.tags for run in below) == NUM_TRIALS
        assert sum("confirms" in run.data.tags for run in below) == NUM_FOLDS * NUM_SEEDS
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_winner_is_registered(project, client, confirmed):
    (version,) = client.search_model_versions("name='kits-unet'")
    record = json.loads(
        next(
            path.read_text()
            for path in (project / "studies/minuscule/confirmed/runs").glob("*.json")
            if json.loads(path.read_text())["run_id"] == version.run_id
        )
    )
    best = {
        name: [
            float(row["score"])
            for row in _rows(project / "studies/minuscule/confirmed/validation.csv")
            if row["algorithm"] == name and row["metric"] == "dice"
        ]
        for name in ARCHITECTURES
    }
    means = {name: sum(scores) / len(scores) for name, scores in best.items()}
    assert means[record["algorithm"]] == pytest.approx(max(means.values()), abs=1e-9)
    # and the gate has decided, whatever it says of two test patients, in a run below the training's
    assert version.tags["gate"]
    assert client.get_run(version.tags["gate_run"]).data.tags["mlflow.parentRunId"] == version.run_id


def test_the_page_holds_the_comparison(project, confirmed):
    page = (project / "studies/minuscule/study.html").read_text()
    verdict = json.loads((project / "studies/minuscule/comparison/comparison.json").read_text())["verdict"]
    assert f'<p class="verdict">{verdict["headline"]}' in page
    assert "GFLOPs a slice" in page  # the cost, which the runs tell


def test_the_comparison_takes_the_table(project, confirmed):
    _run(project, "kits_ml", "compare", "--scores", "studies/minuscule/confirmed/test.csv", "--output", "comparison")
    assert "attention_unet" in (project / "comparison/comparison.html").read_text()
