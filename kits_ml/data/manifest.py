"""Which files of a folder were read to their end and found whole, so that nobody needs to read them again."""

from __future__ import annotations

import json
from pathlib import Path

import filelock

from kits_ml.data.partial import sha256_of, write_atomically


class Manifest:
    """A JSON file: size, modification time and SHA-256 by a file's path below the folder.

    Several threads and processes may share it: each addition reads, changes and replaces it under a lock.

    Args:
        path: where the manifest lies, e.g. `<folder>/.fetch/verified.json`.
        folder: what the paths in it are relative to.
    """

    def __init__(self, path: Path, *, folder: Path):
        self.path = path
        self._folder = folder

    def holds(self, file: Path) -> bool:
        """Whether the file was found whole and has not been touched since, by size and modification time."""
        entry = self._read().get(self._name(file))
        if entry is None or not file.is_file():
            return False
        status = file.stat()
        return (entry.get("size"), entry.get("mtime_ns")) == (status.st_size, status.st_mtime_ns)

    def add(self, file: Path) -> None:
        """Notes a file that has just been found whole."""
        status = file.stat()
        entry = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(file)}
        with filelock.FileLock(self.path.with_name(self.path.name + ".lock")):
            entries = self._read() | {self._name(file): entry}
            write_atomically(self.path, json.dumps(dict(sorted(entries.items())), indent=1) + "\n")

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}  # nothing is lost: the files are read once more
        return entries if isinstance(entries, dict) else {}
