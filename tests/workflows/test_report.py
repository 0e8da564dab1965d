"""What an evaluation leaves behind, both ways: the files, the report with or without slices, and the MLflow run."""

import csv
import json

import keras
import mlflow
import numpy as np
import pytest

from kits_ml.config import EvaluateSettings, PreprocessingSettings
from kits_ml.data import volumes
from kits_ml.evaluation.tables import read_scores
from kits_ml.inference.predictor import Predictor
from kits_ml.workflows.evaluate import evaluate
from tests.tracking.stores import tracked_in

FILES = {"scores.csv", "cases.csv", "summary.json", "selftest.csv", "report.html", "dice.png"}
#: Of a model: by its digests the gate knows on which files it was scored.
MODEL_FILES = FILES | {"evaluation.json"}
OVERLAYS = {"overlay_worst.png", "overlay_median.png", "overlay_best.png"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One for all tests: making its tables takes seconds."""
    with tracked_in(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"):
        yield


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cases(tmp_path, make_case):
    for number in range(3):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number, size=48)
    return tmp_path / "cases"


@pytest.fixture
def model(tmp_path):
    """Calls bright pixels kidney, and is nearly sure of it."""
    inputs = keras.Input((32, 32, 1))
    network = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Conv2D(3, 1)(inputs)))
    network.layers[1].set_weights([np.array([[[[0.0, 50.0, 0.0]]]]), np.array([0.0, -20.0, -5.0])])
    description = {"architecture": "by hand", "run_id": "f00", "data_digest": "0123456789abcdef"}
    Predictor(network, PreprocessingSettings(image_size=32), description=description).save(tmp_path / "model")
    return tmp_path / "model"


def _only_run(experiment: str):
    (run,) = mlflow.search_runs(experiment_names=[experiment], output_format="list")
    return run, {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


def test_a_model_on_cases(database, in_tmp, model, cases, tmp_path):
    settings = EvaluateSettings(
        model=str(model), data=str(cases), output="out", batch_size=4, num_threads=1, experiment="models"
    )
    evaluated = evaluate(settings)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | OVERLAYS | {
        "predictions",
        "evaluation.json",
    }

    run, artifacts = _only_run("models")
    assert artifacts == MODEL_FILES | OVERLAYS | {"config.json"}
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "4"
    kidney = evaluated.summary["regions"]["kidney"]
    assert run.data.metrics["dice_kidney"] == pytest.approx(kidney["dice"]["mean"])
    assert run.data.metrics["ece_kidney"] == evaluated.summary["calibration"]["kidneys"]["kidney"]["ece"]["mean"]
    assert len(run.data.tags["data_digest"]) == 16
    seconds = [case.prediction_seconds for case in evaluated.cases]
    assert run.data.metrics["prediction_seconds"] == pytest.approx(np.mean(seconds))

    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for said in ("by hand", "f00", "0123456789abcdef", run.data.tags["data_digest"], "model: image_size"):
        assert said in page, said
    assert page.count('<figure class="viewer"') == 3

    # the probabilities that were counted are those of the label maps: of what is called kidney with more than half
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    sure = [bin for bin in summary["calibration"]["scan"]["kidney"]["reliability"] if bin["low"] > 0.5]
    called = np.sum(summary["confusion"]["voxels"], axis=0)[1]
    assert 0.8 * called < sum(bin["num_voxels"] for bin in sure) <= called
    assert np.sum(summary["confusion"]["voxels"]) == 3 * 6 * 48 * 48
    assert set(summary["strata"]["contrast"]) == {"strong"}  # 180 HU
    with (tmp_path / "out/cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["kidney_hu"]) for row in rows] == pytest.approx([180] * 3, abs=2)
    assert [one.case for one in read_scores(tmp_path / "out/scores.csv")] == sorted(row["case"] for row in rows)


def test_folders_with_images_beside_the_references(in_tmp, cases, tmp_path):
    (tmp_path / "pred").mkdir()
    for number in (0, 1):
        read = volumes.read_label_map(cases / f"case_{number:05d}/segmentation.nii.gz")
        volumes.write_label_map(tmp_path / f"pred/case_{number:05d}.nii.gz", read.array, read.geometry)
    (cases / "case_00001/imaging.nii.gz").write_bytes(b"not an image")
    settings = EvaluateSettings(
        predictions=str(tmp_path / "pred"),
        references=str(cases),
        output=str(tmp_path / "out"),
        num_workers=1,
        track=False,
    )
    evaluated = evaluate(settings)
    assert [case.missing_prediction for case in evaluated.cases] == [False, False, True]
    assert [np.isnan(case.kidney_hu) for case in evaluated.cases] == [False, True, False]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert page.count('<figure class="viewer"') == 1  # the other one's image is broken, the third has no prediction
    assert "Without a prediction, and so with the worst scores there are: case_00002." in page
    assert evaluated.summary["calibration"] is None
    assert not list(tmp_path.glob("mlflow*"))


def test_folders_without_images(database, in_tmp, cases, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        (cases / f"case_{number:05d}/segmentation.nii.gz").rename(flat / f"case_{number:05d}.nii.gz")
    folder = str(flat)
    evaluate(
        EvaluateSettings(predictions=folder, references=folder, output="out", num_workers=1, experiment="folders")
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    _, artifacts = _only_run("folders")
    assert artifacts == FILES | {"config.json"}
    assert '<figure class="viewer"' not in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out/summary.json").read_text())["strata"]["contrast"] == {}
