"""A training goes on after Ctrl-C and kill -9, in the same MLflow run, and ends as if it had not been stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from mlflow import MlflowClient

from kits_ml.data import phantom, volumes
from kits_ml.errors import InputError
from kits_ml.training import checkpoints

ROOT = Path(__file__).parents[2]
NUM_EPOCHS, NUM_STEPS = 3, 150
OPTIONS = {
    "data": "cases",
    "image_size": 32,
    "epochs": NUM_EPOCHS,
    "steps_per_epoch": NUM_STEPS,
    "batch_size": 2,
    "base_filters": 2,
    "depth": 1,
    "learning_rate": 1e-2,
    "num_workers": 1,
    "register": "false",
    "onnx": "false",
    "checkpoint_minutes": 0,
    "deterministic": "true",
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with tiny phantom cases."""
    folder = tmp_path_factory.mktemp("resume")
    for index in range(5):
        case = phantom.generate_case(seed=3, index=index, distribution="small", num_slices=6, shape=(64, 64))
        geometry = volumes.kits_geometry(case.image.shape, case.spacing_mm)
        volumes.write_image(folder / f"cases/case_{index:05d}/imaging.nii.gz", case.image, geometry)
        volumes.write_label_map(folder / f"cases/case_{index:05d}/segmentation.nii.gz", case.label_map, geometry)
    return folder


def _start(project: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "kits_ml", "train"]
    command += [f"--{name}={value}" for name, value in {**OPTIONS, **options}.items()]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        command,
        cwd=project,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen, *, code: int = 0) -> tuple[str, str]:
    output, said = process.communicate(timeout=600)
    assert process.returncode == code, said
    return output, said


def _wait_for(process: subprocess.Popen, project: Path, *, epoch: int) -> None:
    """Until the checkpoint is in the midst of an epoch."""
    while process.poll() is None:
        for path in project.glob("data/checkpoints/*/checkpoint.npz"):
            try:
                found = checkpoints.read(path, only_record=True)
            except InputError:  # gone in this moment
                continue
            if found.epoch == epoch and found.step:
                return
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


def _client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def _runs(project: Path) -> list:
    client = _client(project)
    return client.search_runs([one.experiment_id for one in client.search_experiments()])


def _weights(project: Path, run_id: str) -> list[np.ndarray]:
    (saved,) = [
        path
        for path in project.glob("mlruns/**/model.keras")
        if json.loads(path.with_name("model.json").read_text())["run_id"] == run_id
    ]
    return keras.saving.load_model(saved, compile=False).get_weights()


@pytest.fixture(scope="module")
def uninterrupted(project):
    before = {run.info.run_id for run in _runs(project)}
    _finish(_start(project))
    (run,) = [run for run in _runs(project) if run.info.run_id not in before]
    assert run.info.status == "FINISHED"
    assert not list(project.glob("data/checkpoints/*"))
    return run


@pytest.mark.slow
def test_ctrl_c_then_kill_9_then_the_end(project, uninterrupted):
    before = {run.info.run_id for run in _runs(project)}
    process = _start(project)
    _wait_for(process, project, epoch=0)
    process.send_signal(signal.SIGINT)
    _, said = _finish(process, code=130)
    (run,) = [run for run in _runs(project) if run.info.run_id not in before]
    run_id = run.info.run_id
    assert run.info.status == "KILLED"
    assert run.data.tags["end_reason"].startswith("stopped by Ctrl-C in epoch 1, after step ")
    assert f"to go on: the same command with --resume true, or --resume_run {run_id}" in said
    assert "Traceback" not in said

    _, said = _finish(_start(project, resume="true", learning_rate=1e-3), code=1)
    assert "learning_rate 0.01 there, 0.001 here" in said

    process = _start(project, resume="true")
    _wait_for(process, project, epoch=1)
    process.kill()
    process.communicate()
    (checkpoint,) = project.glob(f"data/checkpoints/{run_id}/checkpoint.npz")
    assert (checkpoints.read(checkpoint, only_record=True).epoch, _client(project).get_run(run_id).info.status) == (
        1,
        "RUNNING",
    )
    _, said = _finish(_start(project, resume_run=run_id))
    assert f"going on with run {run_id}, stopped in epoch 2, after step " in said

    run = _client(project).get_run(run_id)
    assert {run.info.run_id for run in _runs(project)} == {*before, run_id}  # the same run went on
    assert run.info.status == "FINISHED"
    assert "end_reason" not in run.data.tags
    assert run.data.tags["num_resumes"] == "2"
    for name in ("loss", "val_dice_kidney", "val_foreground_iou"):
        first, second = (_client(project).get_metric_history(one.info.run_id, name) for one in (uninterrupted, run))
        assert [one.step for one in second] == list(range(NUM_EPOCHS))  # each epoch once
        assert [one.value for one in second] == [one.value for one in first]
    for first, second in zip(_weights(project, uninterrupted.info.run_id), _weights(project, run_id), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not list(project.glob("data/checkpoints/*"))


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_the_run(project):
    before = {run.info.run_id for run in _runs(project)}
    _, said = _finish(_start(project, learning_rate=1e30, learning_rate_schedule="constant"), code=1)
    (run,) = [run for run in _runs(project) if run.info.run_id not in before]
    assert run.info.status == "FAILED"
    assert "in epoch 1, step" in run.data.tags["end_reason"]
    assert "try a smaller learning_rate. No epoch was finished, so no weights are kept" in said
    assert not list(project.glob("data/checkpoints/*"))


@pytest.mark.slow
def test_resume_with_mlflow_run_goes_on_with_the_stopped_run(project):
    for name in ("MLproject", "conda.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, project)
    process = _start(project, epochs=2)
    _wait_for(process, project, epoch=0)
    process.terminate()
    _finish(process, code=128 + signal.SIGTERM)
    before = {run.info.run_id: run for run in _runs(project)}
    (stopped,) = [one for one in before.values() if one.info.status == "KILLED"]
    command = [sys.executable, "-m", "mlflow", "run", ".", "-e", "train", "--env-manager", "local"]
    command += [
        part
        for name, value in {**OPTIONS, "epochs": 2, "resume": "true"}.items()
        for part in ("-P", f"{name}={value}")
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "PATH": path}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _client(project).get_run(stopped.info.run_id).info.status == "FINISHED"
    (pointer,) = [run for run in _runs(project) if run.info.run_id not in before]
    assert pointer.data.tags["resumed_run"] == stopped.info.run_id
    assert pointer.info.status == "FINISHED"
