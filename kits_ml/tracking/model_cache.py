"""Models of a remote store, in a folder of the user's: fetched once, there whole or not at all, and not for ever.

The folder is `kits_ml/models` in `XDG_CACHE_HOME`, by default `~/.cache`; where that cannot be written, one of the
process's own, which goes when the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

#: After so many days without use a model is removed, when another one is fetched.
KEPT_DAYS = 30

_PARTIAL = ".partial-"
_ABANDONED_DAYS = 1  # what a process that was killed left
_DAY_S = 24 * 3600
_making = threading.Lock()


def fetch(name: str, download: Callable[[Path], Path]) -> Path:
    """A model's folder, downloaded unless it is there.

    Processes and threads that fetch the same model at once each download it, and use the first that is whole.

    Args:
        name: of a content that never changes, usable as a file name.
        download: puts the model into an empty folder and returns where in it.

    Raises:
        OSError: there is no room, or there was nothing to download; and what `download` raises.
    """
    return _fetch_into(_user_folder() or _process_folder(), name, download)


def fetch_for_now(download: Callable[[Path], Path]) -> Path:
    """As `fetch`, for what may change: downloaded anew, and removed when the process ends."""
    return _fetch_into(_process_folder(), uuid.uuid4().hex, download)


def _fetch_into(root: Path, name: str, download: Callable[[Path], Path]) -> Path:
    target = root / name
    if target.is_dir():
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(target)
        return target
    _remove_old(root)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
    try:
        found = download(partial)
        if not any(found.iterdir()):
            raise FileNotFoundError("no files at the model's place in the store")
        try:
            found.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _user_folder() -> Path | None:
    """None where it cannot be made or written."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # the standard says to pass over a relative one
        root = (given if given.is_absolute() else Path.home() / ".cache") / "kits_ml" / "models"
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: nobody's home
        return None
    return root if os.access(root, os.W_OK | os.X_OK) else None


def _process_folder() -> Path:
    with _making:
        return _make_process_folder()


@functools.cache
def _make_process_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kits_ml-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_old(root: Path) -> None:
    now = time.time()
    for one in root.iterdir():
        partial = one.name.startswith(_PARTIAL)
        with contextlib.suppress(OSError):  # another process removes it too
            if now - one.stat().st_mtime < (_ABANDONED_DAYS if partial else KEPT_DAYS) * _DAY_S:
                continue
            if not partial:  # so that no process ever finds half of it
                one = one.rename(one.with_name(f"{_PARTIAL}{uuid.uuid4().hex}"))
            shutil.rmtree(one, ignore_errors=True)
