"""Files that appear whole or not at all."""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def open_to_write(path: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place in the end, so that a reader never sees half a file.

    Raises:
        OSError: as the block; of a full disk it always says where.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("wb") as stream:
            yield stream
        temporary.replace(path)
    except OSError as error:
        if is_disk_full(error):
            error.filename = error.filename or str(path)  # a failed write names no file
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _beside(path: Path) -> Path:
    """A hidden name beside a file that nobody else takes: in two containers process numbers may be equal."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")


def is_disk_full(error: BaseException) -> bool:
    """Whether there is no room left, or none for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def naming_full_disk(place: Path) -> Iterator[None]:
    """Lets the error of a full disk name a place: the command line says it in a line then."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise OSError(error.errno, error.strerror, str(place)) from error
        raise


def reserve(descriptor: int, start: int, end: int) -> None:
    """Makes room in an open file, so that a full disk is an error here and not when a page of a mapping is written.

    Args:
        descriptor: of the file.
        start, end: bytes.

    Raises:
        OSError: no room. A file system that cannot promise any is passed over, and so is macOS, which has no such
            call.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, start, end - start)
    except OSError as error:
        if is_disk_full(error):
            raise


def write_bytes(path: Path, payload: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    with open_to_write(path) as stream:
        stream.write(payload)


def write_part(path: Path, name: str, text: str) -> None:
    """Replaces the part of a UTF-8 file between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, each on a line."""
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    write_bytes(path, f"{before}{begin}\n{text.rstrip()}\n{end}{after}".encode())


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name, or a copy where the file system has no links; whole or not at all.

    Raises:
        OSError: of a full disk it names the target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # a link to a link would depend on where it lies
    temporary = _beside(target)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            with naming_full_disk(target):  # the error would name the source
                shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON; equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Writes rows as CSV with a header; a missing value is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
