"""Which stopped training goes on: the one with the same settings, unless it still runs."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training import checkpoints
from kits_ml.workflows import resume

#: Holds a lock until it is told to end.
HOLDS = (
    "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
)


@pytest.fixture
def settings(tmp_path) -> TrainSettings:
    return TrainSettings(checkpoints=str(tmp_path), resume=True)


def _stop(settings, run_id, *, age_s=0, **about):
    arrays = {"model": [], "optimizer": [], "metrics": [], "best": []}
    path = resume.Path(settings.checkpoints) / run_id / checkpoints.CHECKPOINT_FILE
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
    with pytest.raises(InputError, match=message):
        resume.find_stopped(settings)


def test_a_run_without_a_checkpoint_gets_one_line(settings):
    with pytest.raises(InputError, match=r"resume_run nobody: found no .*checkpoint\.npz; expected an unfinished"):
        resume.find_stopped(dataclasses.replace(settings, resume=False, resume_run="nobody"))


def test_what_still_runs_is_left_alone(settings):
    _stop(settings, "a")
    lock = resume.Path(settings.checkpoints) / "a" / resume.LOCK_FILE
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
    assert [path.name for path in resume.Path(settings.checkpoints).iterdir()] == ["a"]  # b left no checkpoint


def test_a_damaged_checkpoint_is_left_out(settings, caplog):
    _stop(settings, "a")
    _stop(settings, "b")
    (resume.Path(settings.checkpoints) / "b" / checkpoints.CHECKPOINT_FILE).write_bytes(b"no")
    assert resume.find_stopped(settings).run_id == "a"
    assert "damaged" in caplog.text


def test_resume_and_resume_run_are_one_of_two():
    with pytest.raises(InputError, match="resume: found true with resume_run a, expected one of the two"):
        TrainSettings(resume=True, resume_run="a")
