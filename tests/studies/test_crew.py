"""Processes of one machine at a study: they work, they are waited for, they stop with the one that asked."""

import logging
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kits_ml import runtime
from kits_ml.config import StudySettings
from kits_ml.studies import crew as crews
from kits_ml.studies.crew import crew, num_processes
from tests.waiting import wait_until


@pytest.fixture
def settings(tmp_path) -> StudySettings:
    return StudySettings(study="s.yaml", output=str(tmp_path), num_processes=3)


def say(settings: StudySettings) -> None:
    print("works")
    Path(settings.output, f"{os.getpid()}.done").write_text(str(settings.num_processes))


def fail(settings: StudySettings) -> None:
    raise OSError("no such luck")


def take_long(settings: StudySettings) -> None:
    Path(settings.output, f"{os.getpid()}.begun").touch()
    time.sleep(600)


def lead(settings: StudySettings) -> None:
    with crew(take_long, settings, name="s"):
        time.sleep(600)


def _members(settings: StudySettings, number: int) -> list[int]:
    """Their process numbers, when so many have begun."""
    folder = Path(settings.output)
    wait_until(lambda: len(list(folder.glob("*.begun"))) == number, seconds=120, pause=0.1)
    return [int(path.stem) for path in folder.glob("*.begun")]


def test_the_others_do_the_same_work_and_are_waited_for(settings):
    with crew(say, settings, name="s"):
        pass
    done = list(Path(settings.output).glob("*.done"))
    assert [path.read_text() for path in done] == ["1", "1"]  # three with this one; each is alone in its own eyes
    logs = Path(settings.output, "s.logs")
    assert {path.name: path.read_text() for path in logs.iterdir()} == {
        "process_2.log": "works\n",
        "process_3.log": "works\n",
    }


def test_one_process_starts_no_other(settings):
    with crew(say, replace(settings, num_processes=1), name="s"):
        pass
    assert not list(Path(settings.output).iterdir())


def test_a_process_that_fails_is_told_of(settings, caplog):
    with caplog.at_level(logging.WARNING), crew(fail, replace(settings, num_processes=2), name="s"):
        pass
    assert "a process of the study ended with 1" in caplog.text
    assert "no such luck" in Path(settings.output, "s.logs", "process_2.log").read_text()


def test_an_error_here_stops_the_others(settings):
    members = []

    def end_badly() -> None:
        with crew(take_long, settings, name="s"):
            members.extend(_members(settings, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        end_badly()
    assert not any(psutil.pid_exists(one) for one in members)


def test_the_others_stop_when_this_process_is_killed(settings):
    leader = multiprocessing.get_context("spawn").Process(target=lead, args=(settings,))
    leader.start()
    members = _members(settings, 2)
    os.kill(leader.pid, signal.SIGKILL)
    leader.join()
    wait_until(lambda: not any(map(_works, members)))


def _works(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("kind", "cores", "free_gib", "expected"),
    [
        ("cpu", 16, 64, 16),
        ("cpu", 16, 13, 4),  # three GiB each
        ("cpu", 2, 0.5, 1),
        ("gpu", 16, 64, 1),
    ],
)
def test_how_many(kind, cores, free_gib, expected, monkeypatch):
    monkeypatch.setattr(runtime, "accelerator", lambda: runtime.Accelerator(kind, (kind,)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    memory = type("Memory", (), {"available": int(free_gib * 2**30)})
    monkeypatch.setattr(crews.psutil, "virtual_memory", lambda: memory)
    assert num_processes(0) == expected
    assert num_processes(5) == 5
