"""The service's folder for scans; what a service that was killed left behind, the next one removes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

_PREFIX = "kits-ml-serve-"
_LOCK_NAME = "lock"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder that only this user can read, held by a lock and removed in the end."""
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with filelock.FileLock(folder / _LOCK_NAME):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Removes folders of services that live no more: nobody holds their lock."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK_NAME}"):
        with contextlib.suppress(filelock.Timeout, OSError), filelock.FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
