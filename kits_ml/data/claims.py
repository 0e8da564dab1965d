"""One process at a time works on a case of a folder; what is not whole yet lies in a hidden folder.

    <prepared>/<digest>/, or the folder of phantom cases
        .locks/case_00000.lock          held by whoever works on the case; the system lets go of a killed one's
        .case_00000.<random>.partial/   what is not whole yet

Process numbers say nothing here: two containers that share a folder may have equal ones, and neither sees the other's
processes. What is hidden for a case whose lock is free was left by a killed process.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from kits_ml import files


@contextlib.contextmanager
def claim(store: Path, name: str) -> Iterator[Path]:
    """Waits until nobody else works on a case; it may be finished then, so look again.

    Args:
        store: the folder of the cases, made where it is missing.
        name: of the case, or of a file of the store.

    Yields:
        A new folder inside the store, for what is not whole yet; it goes away in the end. Only this user can read
        it: move what is made in it, not itself.

    Raises:
        OSError: as the block; of a full disk it names the store.
    """
    with files.naming_full_disk(store), _lock(store, name):
        for left in _hidden(store):
            if _claimed_as(left) == name:
                _remove(left)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=store))
        try:
            yield scratch
        finally:
            _remove(scratch)


def remove_leftovers(store: Path, names: str = "*") -> None:
    """Clears what killed processes left, also of finished cases; what somebody works on now stays.

    Args:
        store: the folder of the cases; it may be missing.
        names: a pattern of the names that are claimed in it, where it may hold hidden files of others.
    """
    for left in _hidden(store, names):
        with contextlib.suppress(filelock.Timeout), _lock(store, _claimed_as(left), timeout=0):
            _remove(left)


def _lock(store: Path, name: str, *, timeout: float = -1) -> filelock.BaseFileLock:
    path = store / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, timeout=timeout)


def _hidden(store: Path, names: str = "*") -> list[Path]:
    return list(store.glob(f".{names}.partial"))


def _claimed_as(hidden: Path) -> str:
    """The name of the claim that a hidden folder, or an older version's file, belongs to."""
    return hidden.name[1:].rsplit(".", 2)[0]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
