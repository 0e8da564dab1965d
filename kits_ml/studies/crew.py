"""Several processes of one machine at the same study: with a thread each they do more than one with all cores."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil

from kits_ml import runtime
from kits_ml.config import StudySettings

log = logging.getLogger(__name__)

#: What a process has taken after some trainings of 128x128; larger slices take more.
MEMORY_BYTES = 3 * 2**30
#: How long a process may take to stop when it is told to, in seconds.
STOP_S = 60

S = TypeVar("S", bound=StudySettings)


def num_processes(wanted: int) -> int:
    """How many processes share the trials.

    Args:
        wanted: so many; 0: one a core as far as the memory that is free goes, and one where there is a GPU, which
            one training fills.
    """
    if wanted:
        return wanted
    if runtime.accelerator().kind != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // MEMORY_BYTES))


@contextlib.contextmanager
def crew(work: Callable[[S], Any], settings: S, *, name: str) -> Iterator[None]:
    """While it is open, other processes do the same work as this one; in the end it waits for them.

    When this process ends by an error, or is killed, they stop too. What they say stands in `NAME.logs` beside the
    study's folder, a file a process.

    Args:
        work: importable (a module's top level); gets the settings with `num_processes` 1.
        settings: their `num_processes` says how many there are, this one counted.
        name: of the study.
    """
    folder = Path(settings.output) / f"{name}.logs"
    numbers = range(2, num_processes(settings.num_processes) + 1)
    context = multiprocessing.get_context("spawn")
    alone = replace(settings, num_processes=1)
    members = []
    for number in numbers:
        path = folder / f"process_{number}.log"
        members.append((context.Process(target=_member, args=(work, alone, path), name=path.stem), path))
    if members:
        folder.mkdir(parents=True, exist_ok=True)
        log.info("%d processes share the work; the others write to %s", len(members) + 1, folder / "process_*.log")
    try:
        for member, _ in members:
            member.start()
        yield
        for member, path in members:
            member.join()
            if member.exitcode:
                log.warning("a process of the study ended with %d, see %s", member.exitcode, path)
    finally:
        _stop([member for member, _ in members if member.is_alive()])


def _stop(members: list[multiprocessing.process.BaseProcess]) -> None:
    for member in members:
        member.terminate()
    for member in members:
        member.join(STOP_S)
        if member.is_alive():
            member.kill()


def _member(work: Callable[[S], Any], settings: S, path: Path) -> None:
    """What another process does: the work, told of in a file, and not a step longer than the process that asked."""
    threading.Thread(target=_follow, daemon=True).start()
    with path.open("ab", buffering=0) as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("kits_ml").setLevel(logging.INFO)
    work(settings)


def _follow() -> None:
    """Stops this process, as SIGTERM does, when the one that started it is gone."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
