"""The whole path through the real `mlflow run`, on tiny phantom cases, and what it leaves behind."""

import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
from mlflow import MlflowClient

from kits_ml.config import MainSettings
from kits_ml.data import volumes
from kits_ml.data.images import read_image
from kits_ml.evaluation import gate_checks
from tests.conftest import copy_project, project_environment, write_phantoms
from tests.data.dicom_series import ct_slice

NUM_CASES = 6
OPTIONS = {
    "image_size": 64,
    "epochs": 2,
    "steps_per_epoch": 6,
    "batch_size": 4,
    "base_filters": 4,
    "depth": 2,
    "learning_rate": "1e-2",
    "num_workers": 1,
    "onnx": "false",  # has its own test; takes long
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project, so that runs leave nothing in the checkout, with tiny phantom cases in `cases`."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    write_phantoms(folder / "cases", NUM_CASES, num_slices=10, size=96)
    return folder


def _mlflow_run(project: Path, *arguments: str, env: dict[str, str] | None = None, **options):
    command = [sys.executable, "-m", "mlflow", "run", ".", *arguments]
    command += [part for name, value in options.items() for part in ("-P", f"{name}={value}")]
    return subprocess.run(
        command,
        cwd=project,
        env=env or project_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _kits_ml(
    project: Path, *arguments, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kits_ml", *map(str, arguments)]
    environment = env or project_environment()
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def finished(project) -> subprocess.CompletedProcess:
    done = _mlflow_run(project, "-e", "main", "--env-manager", "local", data="cases", output="out", **OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def client(project, finished) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


@pytest.fixture(scope="module")
def run(client):
    (experiment,) = [one for one in client.search_experiments() if client.search_runs([one.experiment_id])]
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def _artifact(project: Path, run, name: str) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://").removeprefix(f"{project}/")).joinpath(name)


def test_it_says_what_comes_next(finished):
    for text in (
        "test cases, on the scans' own grids:",
        "registered model kits-unet, version 1",
        "champion",
        "next:",
    ):
        assert text in finished.stdout
    assert "-m mlflow ui" in finished.stdout
    assert "-m kits_ml predict --model models:/kits-unet@champion" in finished.stdout


def test_one_run_holds_every_setting(run, project):
    assert run.info.status == "FINISHED"
    parsed = {"learning_rate": 0.01, "onnx": False, "data": "cases", "output": "out"}
    settings = MainSettings.from_mapping({**OPTIONS, **parsed})
    for name, value in settings.to_dict().items():
        if name == "output":  # of `main`, not of the training
            continue
        expected = OPTIONS.get(name, value)  # `mlflow run` logs what the user typed
        assert run.data.params[name] == str(expected), name
    recorded = json.loads((project / _artifact(project, run, "config.json")).read_text())
    assert recorded["learning_rate"] == 0.01
    assert recorded["loss"] == settings.loss


def test_one_run_holds_curves_scores_and_pictures(run, client, project):
    for name in ("loss", "val_dice_kidney", "val_iou_tumour", "val_foreground_iou", "val_mean_iou_with_background"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [entry.step for entry in history] == [0, 1]
    for name in ("test_dice_kidney", "validation_iou_tumour", "test_composite_dice", "best_val_foreground_iou"):
        assert 0 <= run.data.metrics[name] <= 1
    for name in (
        *("config.json", "selftest.csv", "split.json", "case_digests.json", "curves.png"),
        *("test/scores.csv", "test/cases.csv", "test/summary.json", "test/report.html", "test/dice.png"),
        *("test/overlay_best.png", "test/overlay_median.png", "test/overlay_worst.png"),
    ):
        assert (project / _artifact(project, run, name)).stat().st_size > 0, name
    assert len(run.data.tags["data_digest"]) == 16


def test_the_split_is_by_case_and_the_scores_are_of_its_cases(run, project):
    split = json.loads((project / _artifact(project, run, "split.json")).read_text())
    names = [name for part in ("train", "validation", "test") for name in split[part]]
    assert sorted(names) == [f"case_{number:05d}" for number in range(NUM_CASES)]
    with (project / _artifact(project, run, "test/scores.csv")).open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted({row["case"] for row in rows}) == split["test"]
    assert {row["region"] for row in rows} == {"kidney", "tumour"}


def test_the_version_is_challenger_and_through_the_gate_champion(client, run, project, finished):
    model = client.get_registered_model("kits-unet")
    assert {name: str(version) for name, version in model.aliases.items()} == {"challenger": "1", "champion": "1"}
    version = client.get_model_version("kits-unet", "1")
    assert (version.tags["gate"], version.tags["gate_run"]) == ("passed", run.info.run_id)
    assert "the gate: kits-unet, version 1 becomes champion as the first, through the gate" in finished.stdout
    assert "Not a medical device" in version.description
    found = json.loads((project / _artifact(project, run, "gate/gate.json")).read_text())
    evaluation = json.loads((project / _artifact(project, run, "test/evaluation.json")).read_text())
    assert found["evaluation_digest"] == evaluation["digest"]
    assert {one["name"]: one["passed"] for one in found["checks"]} == dict.fromkeys(gate_checks.CHECKS, True)
    assert max(found["clean_process"]["differences"].values()) == 0


def test_the_model_carries_its_card_and_its_evaluation(project, client, run):
    (folder,) = (project / "mlruns").rglob("artifacts/model")
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"MLflow run `{run.info.run_id}`" in card
    assert f"`{run.data.tags['data_digest']}`" in card
    assert (folder / "evaluation/test/scores.csv").read_bytes() == (
        project / _artifact(project, run, "test/scores.csv")
    ).read_bytes()
    root = folder.parents[1]
    assert (root / "MLmodel").is_file()
    assert not [path for path in root.rglob("*") if "pkl" in path.name or "pickle" in path.name]
    with warnings.catch_warnings(action="ignore"):
        network = keras.saving.load_model(folder / "model.keras", compile=False)
    assert network.input_shape == (None, 64, 64, 1)


def test_the_same_model_again_is_no_worse_but_has_too_few_patients(project, finished, client, run):
    """One test patient says nothing: the gate keeps the champion, and the command says so and fails."""
    registered = _kits_ml(project, "register", "--run_id", run.info.run_id)
    assert "version 2, alias: challenger" in registered.stdout
    first, second = (client.get_model_version("kits-unet", number).description for number in ("1", "2"))
    assert second == first
    done = _kits_ml(project, "promote", "--model", "kits-unet", "--version", "2")
    assert done.returncode == 1
    assert "min_patients: found 1 test cases, expected 10 or more" in done.stderr
    assert str(client.get_model_version_by_alias("kits-unet", "champion").version) == "1"


def test_the_model_says_what_it_was_trained_on(project, finished, run):
    (described,) = {path.read_text() for path in project.rglob("model.json")}
    training = json.loads(described)["training"]
    train_cases = json.loads((project / _artifact(project, run, "split.json")).read_text())["train"]
    assert training["num_cases"] == len(train_cases)
    geometries = [volumes.read_geometry(project / "cases" / name / "imaging.nii.gz") for name in train_cases]
    spacings_mm = np.array([geometry.spacing_mm for geometry in geometries])
    np.testing.assert_allclose(training["spacing_mm"]["low"], spacings_mm.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(training["spacing_mm"]["high"], spacings_mm.max(axis=0), atol=1e-4)
    assert training["kidney_hu"]["low"] <= training["kidney_hu"]["high"]


def test_the_prediction_lies_on_the_scans_grid(project, finished):
    (output,) = (project / "out").glob("*.nii.gz")
    scan, found = (
        nib.load(project / "cases" / output.name.removesuffix(".nii.gz") / "imaging.nii.gz"),
        nib.load(output),
    )
    assert found.shape == scan.shape
    np.testing.assert_array_equal(found.affine, scan.affine)
    assert found.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2}
    assert output.with_name(output.name.replace(".nii.gz", ".png")).stat().st_size > 0


PYFUNC = """
import sys, mlflow, numpy as np, nibabel as nib
assert not any(name.split(".")[0] == "kits_ml" for name in sys.modules)
model = mlflow.pyfunc.load_model("models:/kits-unet@champion")
import kits_ml
assert "/artifacts/code/" in kits_ml.__file__, kits_ml.__file__
scan = nib.load(sys.argv[1])
label_map = model.predict(np.asarray(scan.dataobj, np.float32))
turned = nib.as_closest_canonical(scan)
turned_map = model.predict(
    np.asarray(turned.dataobj, np.float32),
    params={"orientation": "RAS", "spacing_mm": [float(size) for size in turned.header.get_zooms()]},
)
np.save("pyfunc.npy", label_map)
np.save("turned.npy", np.asarray(nib.Nifti1Image(turned_map, turned.affine).as_reoriented(
    nib.orientations.ornt_transform(nib.io_orientation(turned.affine), nib.io_orientation(scan.affine))).dataobj))
"""


def test_pyfunc_gives_the_same_without_kits_ml(project, finished, tmp_path):
    """The working directory is elsewhere and an installed kits_ml is hidden: the code comes with the model."""
    (output,) = (project / "out").glob("*.nii.gz")
    scan = project / "cases" / output.name.removesuffix(".nii.gz") / "imaging.nii.gz"
    hide = "import sys\nsys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in str(one).lower()]\n"
    environment = project_environment(MLFLOW_TRACKING_URI=f"sqlite:///{project / 'mlflow.db'}")
    subprocess.run(
        [sys.executable, "-c", hide + PYFUNC, str(scan)],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )
    expected = np.asarray(nib.load(output).dataobj)
    np.testing.assert_array_equal(np.load(tmp_path / "pyfunc.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "turned.npy"), expected)


LOADED = """
import sys, numpy as np, kits_ml
segmenter = kits_ml.load("models:/kits-unet@champion")
for path in sys.argv[2:]:
    found = segmenter.segment_scan(path)
    np.save(f"{sys.argv[1]}/{path.rpartition('/')[2]}.npy", found.label_map)
found.save(f"{sys.argv[1]}/seg.nii.gz")
"""


def test_the_champion_in_python_segments_a_file_and_a_dicom_folder_alike(project, finished, tmp_path):
    (output,) = (project / "out").glob("*.nii.gz")
    path = project / "cases" / output.name.removesuffix(".nii.gz") / "imaging.nii.gz"
    scan = read_image(path)
    (tmp_path / "series").mkdir()
    for index, one in enumerate(scan.array[::-1]):  # the house goes down, the series' normal up
        ds = ct_slice((one + 1024).astype(np.int16), index, spacing_mm=scan.spacing_mm)
        ds.save_as(tmp_path / "series" / f"IM{index}", enforce_file_format=True)
    command = [sys.executable, "-c", LOADED, *map(str, (tmp_path, tmp_path / "series", path))]
    done = subprocess.run(command, cwd=project, env=project_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = read_image(output).array
    assert expected.any()
    np.testing.assert_array_equal(np.load(tmp_path / "imaging.nii.gz.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "series.npy"), expected)
    np.testing.assert_array_equal(nib.load(tmp_path / "seg.nii.gz").dataobj, nib.load(output).dataobj)


def test_predict_gives_the_same_for_any_orientation(project, finished, tmp_path):
    (output,) = (project / "out").glob("*.nii.gz")
    scan = nib.load(project / "cases" / output.name.removesuffix(".nii.gz") / "imaging.nii.gz")
    expected = np.asarray(nib.load(output).dataobj)
    for codes in ("RAS", "LPS", "SAL"):
        transform = nib.orientations.ornt_transform(
            nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes)
        )
        turned = scan.as_reoriented(transform)
        nib.save(turned, tmp_path / f"{codes}.nii.gz")
        _predict(project, "--image", tmp_path / f"{codes}.nii.gz", "--output", tmp_path / f"{codes}_seg.nii.gz")
        found = nib.load(tmp_path / f"{codes}_seg.nii.gz")
        assert found.shape == turned.shape
        np.testing.assert_array_equal(found.affine, nib.load(tmp_path / f"{codes}.nii.gz").affine)
        back = found.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(turned.affine), nib.io_orientation(scan.affine))
        )
        np.testing.assert_array_equal(np.asarray(back.dataobj), expected)


def _predict(project: Path, *arguments, code: int = 0) -> str:
    done = _kits_ml(project, "predict", *arguments)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/kits-unet@nobody", "not found"),
        ("models:/kits-unet/77", "not found"),
        ("models:/nothing@champion", "not found"),
        ("nowhere", "no such folder"),
    ],
)
def test_an_unknown_model_gets_one_line(model, message, project, finished, tmp_path):
    scan = project / "cases/case_00000/imaging.nii.gz"
    said = _predict(project, "--model", model, "--image", scan, "--output", tmp_path / "seg.nii.gz", code=1)
    assert model in said
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_left_alone(project, finished, tmp_path):
    scan = project / "cases/case_00000/imaging.nii.gz"
    (tmp_path / "seg.nii.gz").write_text("mine")
    said = _predict(project, "--image", scan, "--output", tmp_path / "seg.nii.gz", code=1)
    assert "seg.nii.gz: exists; expected a new name, or --overwrite true" in said
    assert (tmp_path / "seg.nii.gz").read_text() == "mine"


def test_evaluating_the_registered_model_leaves_out_what_it_has_seen(project, finished, run, tmp_path):
    done = _mlflow_run(
        project,
        *("-e", "evaluate", "--env-manager", "local"),
        model="models:/kits-unet@champion",
        data="cases",
        output=tmp_path / "evaluation",
    )
    assert done.returncode == 0, done.stderr
    assert "kits-unet, version 1" in (tmp_path / "evaluation/report.html").read_text(encoding="utf-8")
    split = json.loads((project / _artifact(project, run, "split.json")).read_text())
    with (tmp_path / "evaluation/scores.csv").open() as stream:
        found = list(csv.DictReader(stream))
    assert sorted({row["case"] for row in found}) == split["test"]
    with (project / _artifact(project, run, "test/scores.csv")).open() as stream:
        assert list(csv.DictReader(stream)) == found


def test_a_tracking_server_that_does_not_answer_gets_one_line(project):
    environment = project_environment(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    done = _kits_ml(project, "train", "--data", "cases", env=environment, timeout=120)
    assert done.returncode == 1
    assert "tracking server http://127.0.0.1:9: does not answer" in done.stderr
    assert "Traceback" not in done.stderr
