"""What is in files that were read to their end, so that nobody needs to read them again.

A file counts as unchanged while its size and its modification time, to the nanosecond, are what they were: whoever
changes content and keeps both is not noticed. Everything else is: a file that was only touched is read again and
found to be the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from kits_ml.data.partial import sha256_of, write_atomically

#: After so long what was read is noted, so that little is lost when the process is killed.
_NOTE_EVERY_S = 5.0


class Manifest:
    """A JSON file: size, modification time and SHA-256 by a file's path below the folder.

    Several threads and processes may share it: each addition reads, changes and replaces it under a lock.

    Args:
        path: where the manifest lies, e.g. `<folder>/.fetch/verified.json`.
        folder: what the paths in it are relative to; None for absolute paths.
    """

    def __init__(self, path: Path, *, folder: Path | None = None):
        self.path = path
        self._folder = folder

    def holds(self, file: Path) -> bool:
        """Whether the file was found whole and has not been touched since, by size and modification time."""
        return file.is_file() and _sha256_in(self._read().get(self._name(file)), file.stat()) is not None

    def add(self, file: Path) -> None:
        """Notes a file that has just been found whole."""
        self._note({self._name(file): _entry(file)})

    def sha256(self, files: Iterable[Path], *, num_threads: int = 1) -> dict[Path, str]:
        """SHA-256 of files' content, hexadecimal; only files that are not noted as they are now are read.

        Args:
            files: that exist.
            num_threads: files that are read at the same time.
        """
        noted = self._read()
        found = {file: _sha256_in(noted.get(self._name(file)), file.stat()) for file in files}
        missing = [file for file, sha256 in found.items() if sha256 is None]
        fresh: dict[str, dict[str, Any]] = {}
        noted_at = time.monotonic()
        with ThreadPoolExecutor(max(num_threads, 1)) as threads:  # hashing lets other threads run
            try:
                entries = zip(missing, threads.map(_entry, missing), strict=True)
                for file, entry in tqdm(entries, total=len(missing), desc="digest", unit="file", disable=not missing):
                    found[file] = entry["sha256"]
                    fresh[self._name(file)] = entry
                    if time.monotonic() > noted_at + _NOTE_EVERY_S:
                        self._note(fresh)
                        noted_at = time.monotonic()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                if fresh:
                    self._note(fresh)
        return found

    def _note(self, entries: Mapping[str, dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.path.with_name(self.path.name + ".lock")):
            merged = self._read() | dict(entries)
            write_atomically(self.path, json.dumps(dict(sorted(merged.items())), indent=1) + "\n")

    def _name(self, file: Path) -> str:
        return (file.absolute() if self._folder is None else file.relative_to(self._folder)).as_posix()

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # nothing is lost: the files are read once more
        return entries if isinstance(entries, dict) else {}


def _entry(file: Path) -> dict[str, Any]:
    status = file.stat()  # before reading: a file that changes meanwhile will not be as noted
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(file)}


def _sha256_in(entry: Any, status: os.stat_result) -> str | None:
    """What an entry says of a file in this state; None where it says nothing or is none."""
    if not isinstance(entry, dict):
        return None
    if (entry.get("size"), entry.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
        return None
    sha256 = entry.get("sha256")
    return sha256 if isinstance(sha256, str) and len(sha256) == 64 else None
