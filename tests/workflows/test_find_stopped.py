"""Which stopped training goes on: the one with the same settings, unless it still runs."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError, OtherTrainingError
from kits_ml.tracking import runs
from kits_ml.training import checkpoints
from kits_ml.workflows import resume
from tests.tracking.stores import tracked_in

#: Holds a lock until it is told to end.
HOLDS = (
    "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
)


@pytest.fixture
def settings(tmp_path) -> TrainSettings:
    return TrainSettings(checkpoints=str(tmp_path), resume=True)


def _stop(settings, run_id, *, age_s=0, **about):
    arrays = {"model": [], "optimizer": [], "metrics": [], "best": []}
    path = Path(settings.checkpoints) / run_id / checkpoints.CHECKPOINT_FILE
    about = {
        "run_id": run_id,
        "settings": resume._fixed(settings),
        "parent": None,
        "data_digest": "d",
        "split_digest": "s",
        **about,
    }
    checkpoints.write(path, checkpoints.Checkpoint(epoch=1, step=2, arrays=arrays, callbacks={}, about=about))
    os.utime(path, (time.time() - age_s,) * 2)


def test_nothing_to_go_on_with_starts_anew(settings, caplog):
    caplog.set_level("INFO", logger="kits_ml")
    assert resume.find_stopped(settings) is None
    assert "starting anew" in caplog.text


def test_without_resume_nothing_is_looked_for(settings):
    _stop(settings, "a")
    assert resume.find_stopped(dataclasses.replace(settings, resume=False)) is None


def test_the_newest_of_the_same_settings_goes_on(settings):
    _stop(settings, "old", age_s=60)
    _stop(settings, "new", age_s=30)
    _stop(dataclasses.replace(settings, epochs=7), "other")
    found = resume.find_stopped(dataclasses.replace(settings, num_workers=1, register=False))
    assert (found.run_id, found.where, found.parent) == ("new", "in epoch 2, after step 2", None)
    assert resume.find_stopped(dataclasses.replace(settings, resume=False, resume_run="old")).run_id == "old"


def test_other_settings_are_named(settings):
    _stop(dataclasses.replace(settings, epochs=7, loss="categorical_crossentropy"), "far")
    _stop(dataclasses.replace(settings, epochs=7), "near", age_s=60)
    message = (
        "resume: run near, stopped in epoch 2, after step 2, has other settings: epochs 7 there, None here; give"
    )
    with pytest.raises(OtherTrainingError, match=message):
        resume.find_stopped(settings)


def test_other_cases_are_named(settings):
    _stop(settings, "r", data_digest="before")
    prepared = SimpleNamespace(store=SimpleNamespace(digest="now"), split_path=Path("s.json"))
    with pytest.raises(OtherTrainingError, match=r"^resume: data_digest is now, but run r was stopped at before: "):
        resume.find_stopped(settings).check_data(prepared)


def test_a_run_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow, "enable_system_metrics_logging", lambda: None)  # it would stay on
    with (
        tracked_in(f"sqlite:///{tmp_path}/mlflow.db"),
        pytest.raises(OtherTrainingError, match=r"^run nobody: cannot be gone on with "),
        runs.run(experiment="e", run_name=None, resumed_run="nobody"),
    ):
        pass


def test_a_run_without_a_checkpoint_gets_one_line(settings):
    with pytest.raises(InputError, match=r"resume_run nobody: found no .*checkpoint\.npz; expected an unfinished"):
        resume.find_stopped(dataclasses.replace(settings, resume=False, resume_run="nobody"))


def test_what_still_runs_is_left_alone(settings):
    _stop(settings, "a")
    lock = Path(settings.checkpoints) / "a" / resume.LOCK_FILE
    command = [sys.executable, "-c", HOLDS, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert resume.find_stopped(settings) is None
        with pytest.raises(InputError, match="resume_run a: still runs, in another process"):
            resume.find_stopped(dataclasses.replace(settings, resume=False, resume_run="a"))
        with pytest.raises(InputError, match="run a still runs, in another process"), resume.claimed(settings, "a"):
            pass
        process.kill()
    assert resume.find_stopped(settings).run_id == "a"


def test_what_runs_here_runs_for_others_too(settings):
    _stop(settings, "a")
    with resume.claimed(settings, "a"):
        assert resume.find_stopped(settings) is None
    assert resume.find_stopped(settings).run_id == "a"
    with resume.claimed(settings, "b"):
        pass
    assert [path.name for path in Path(settings.checkpoints).iterdir()] == ["a"]  # b left no checkpoint


def test_a_damaged_checkpoint_is_left_out(settings, caplog):
    _stop(settings, "a")
    _stop(settings, "b")
    (Path(settings.checkpoints) / "b" / checkpoints.CHECKPOINT_FILE).write_bytes(b"no")
    assert resume.find_stopped(settings).run_id == "a"
    assert "damaged" in caplog.text


def test_resume_and_resume_run_are_one_of_two():
    with pytest.raises(InputError, match="resume: found true with resume_run a, expected one of the two"):
        TrainSettings(resume=True, resume_run="a")
