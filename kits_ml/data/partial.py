"""Files on their way: the bytes so far, which version of the file they are of, and the last atomic step.

The bytes lie in a partial file beside a small record. A process may be killed at any moment: what is left is either
a partial file that its record describes, or one that is thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kits_ml.errors import InputError
from kits_ml.files import is_disk_full


class DamagedError(ValueError):
    """A file came to its end and is not what it should be."""


class DiskFullError(InputError):
    """No room for the download; what has come so far is kept."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a server says about the file it sends; `None` where it says nothing.

    Attributes:
        url: the address asked for, before redirects.
        etag: of the server that sent the bytes; opaque, it only tells versions apart.
        size: in bytes.
        sha256: from Hugging Face's `X-Linked-ETag`, which for stored files is the SHA-256 of the content.
    """

    url: str
    etag: str | None
    size: int | None
    sha256: str | None

    def fits(self, other: Version) -> bool:
        """Whether nothing said here contradicts what is said there."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return all(mine[name] == theirs[name] or None in (mine[name], theirs[name]) for name in mine)


class Partial:
    """A file on its way: the bytes so far at `path`, their version in `path` + `.json`."""

    def __init__(self, path: Path):
        self.path = path
        self._record = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """Which version the bytes are of; `None` where they are not known to be of this address."""
        try:
            version = Version(**json.loads(self._record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.url == url else None

    def restart(self, version: Version) -> None:
        """Forgets the bytes and begins another version; in this order, so that a kill cannot mix two versions."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.discard()
        self.path.touch()
        write_atomically(self._record, json.dumps(dataclasses.asdict(version), indent=1) + "\n")

    def discard(self) -> None:
        """Removes bytes and record."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        """Moves the bytes to where they belong: on disk first, then by one atomic rename."""
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        _sync_folder(target.parent)
        self._record.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a small text file that is there whole or not at all; callers keep to one writer at a time, by a lock."""
    temporary = path.with_name(f".{path.name}.new")  # always the same, so that a kill leaves no growing heap
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in one line what the disk refused.

    Args:
        path: the file or folder written to, for the message.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"{path}: the disk is full; what has come so far is kept, run again") from error
        raise InputError(f"{path}: cannot be read or written ({error})") from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
