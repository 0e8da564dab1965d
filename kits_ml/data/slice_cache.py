"""The slices of a prepared store, decoded once, as memory maps: a training reads from the page cache.

    <store>/cache/<digest>/grey.npy      (slices, image_size, image_size) uint8, in the order of the store's index
                           labels.npy    the same, values 0, 1, 2
                           written.json  size and modification time of the two when they were whole
    <store>/cache/<digest>.partial/      on its way; <case>.done stands for each case that is wholly in the two files

The digest covers the index and size and time of every PNG, so a store that changed is decoded again. A finished
folder appears by one rename. One process decodes at a time, others wait for it; a killed one's cases are taken over.
Removing the store removes the cache.

Each opening compares the two files with `written.json`: one that was written to, cut short, grown or copied without
its time leads to decoding again. Bits that change on the disk while size and time stay are not noticed: that would
take reading all of it (5.9 GB for 45,000 slices) before each training.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from tqdm import tqdm

from kits_ml import files
from kits_ml.data.slices import PIXEL_COLUMNS, PreparedStore, pixels_per_class
from kits_ml.errors import InputError

log = logging.getLogger(__name__)

#: Raised whenever the same store would give other bytes.
FORMAT_VERSION = 1
#: In the order of what `PreparedStore.read_slice` gives.
FILES = ("grey.npy", "labels.npy")
WRITTEN_JSON = "written.json"


def open_cache(store: PreparedStore) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and labels of all slices of a store, decoded where they are not yet.

    Returns:
        Two read-only memory maps of `(slices, image_size, image_size)` uint8, in the order of `store.index`.

    Raises:
        InputError: a PNG is missing, damaged or not what the index says, or the disk is full or refuses.
    """
    folder = store.folder / "cache" / cache_digest(store)
    shape = (len(store.index), store.settings.image_size, store.settings.image_size)
    found = _open(folder, shape)
    if found is None:
        _build(store, folder, shape)
        found = _open(folder, shape)
    if found is None:
        raise InputError(f"{folder}: cannot be read although it was just written; remove it and run again")
    return found


def cache_digest(store: PreparedStore) -> str:
    """The cache's name: 16 hexadecimal digits that change with the index and with any PNG's size or time.

    Raises:
        InputError: a case's folder is missing.
    """
    rows = [list(row.values()) for row in store.index]
    digest = hashlib.blake2b(json.dumps([FORMAT_VERSION, store.settings.image_size, rows]).encode(), digest_size=8)
    for kind, name in itertools.product(("images", "labels"), sorted(store.case_digests)):
        try:
            with os.scandir(store.folder / kind / name) as entries:
                stats = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
        except OSError as error:
            raise InputError(f"{store.folder / kind / name}: cannot be read ({error}); remove the store") from error
        digest.update(json.dumps([kind, name, stats]).encode())
    return digest.hexdigest()


def _open(folder: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """The two memory maps; None where a file is missing, of another shape, or not as it was when it was written."""
    try:
        if json.loads((folder / WRITTEN_JSON).read_text()) != _state(folder):
            return None
    except (OSError, ValueError):
        return None
    return _maps(folder, shape)


def _state(folder: Path) -> dict[str, Any]:
    """Size and modification time of the two files."""
    found = {name: (folder / name).stat() for name in FILES}
    return {name: {"size": one.st_size, "mtime_ns": one.st_mtime_ns} for name, one in found.items()}


def _maps(folder: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """The two memory maps, whatever is in them; None where a file is missing, cut short or of another shape."""
    try:
        grey, labels = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in FILES)
    except (OSError, ValueError, EOFError):
        return None
    if any(one.shape != shape or one.dtype != np.uint8 for one in (grey, labels)):
        return None
    return grey, labels


def _build(store: PreparedStore, folder: Path, shape: tuple[int, ...]) -> None:
    """Makes the cache unless another process does meanwhile; on a full disk nothing half stays."""
    try:
        with _alone(folder.parent):
            if _open(folder, shape) is not None:
                return
            _remove_others(folder)
            try:
                _decode(store, folder, shape)
            except OSError as error:
                if files.is_disk_full(error):
                    shutil.rmtree(_partial(folder), ignore_errors=True)
                raise
    except OSError as error:
        if not files.is_disk_full(error):
            raise InputError(f"{folder}: cannot be written ({error})") from error
        num_gb = 2 * math.prod(shape) / 1e9
        raise InputError(
            f"{folder.parent}: the disk is full; the decoded slices take {num_gb:.1f} GB; nothing of them was kept"
        ) from error


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock of a killed one."""
    cache.mkdir(exist_ok=True)
    lock = filelock.FileLock(cache / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("another process decodes the slices of %s; waiting for it", cache.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _remove_others(folder: Path) -> None:
    """Clears a cache that cannot be read, and those of what the store was before; maps that are open stay valid."""
    for other in folder.parent.iterdir():
        if other.is_dir() and other != _partial(folder):
            shutil.rmtree(other, ignore_errors=True)


def _decode(store: PreparedStore, folder: Path, shape: tuple[int, ...]) -> None:
    """Decodes all cases that a killed process did not, in threads: Pillow lets them run side by side."""
    partial = _partial(folder)
    if _maps(partial, shape) is None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in FILES:
            _reserve(partial / name, shape)
    bar = tqdm(total=len(store.index), desc="decode", unit="slice")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {}
        first = 0
        for name, group in itertools.groupby(store.index, key=lambda row: row["case"]):
            rows = list(group)
            if (partial / f"{name}.done").exists():
                bar.update(len(rows))
            else:
                futures[pool.submit(_decode_case, store, partial, first=first, rows=rows)] = len(rows)
            first += len(rows)
        try:
            for future in as_completed(futures):
                future.result()
                bar.update(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for done in partial.glob("*.done"):
        done.unlink()
    files.write_json(partial / WRITTEN_JSON, _state(partial))
    partial.rename(folder)


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Makes a file of zeros that holds its room on the disk, where the file system can promise it."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as stream:
        files.reserve(stream.fileno(), 0, path.stat().st_size)


def _decode_case(store: PreparedStore, partial: Path, *, first: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a case's slices where they belong: by plain writes, for a full disk kills who writes to a memory map.

    Args:
        store: the PNGs.
        partial: the folder of the two files.
        first: number of the case's first slice.
        rows: of the index, all of the case, in order.
    """
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context((partial / name).open("r+b")) for name in FILES]
        for stream, name in zip(streams, FILES, strict=True):
            header = np.load(partial / name, mmap_mode="r").offset
            stream.seek(header + first * store.settings.image_size**2)
        for row in rows:
            for stream, pixels in zip(streams, _read_checked(store, row), strict=True):
                stream.write(np.ascontiguousarray(pixels))
        for stream in streams:
            stream.flush()
            os.fsync(stream.fileno())  # before the case counts as done
    (partial / f"{rows[0]['case']}.done").touch()


def _read_checked(store: PreparedStore, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A slice whose labels are what the index says of them: sampling goes by the index."""
    grey, labels = store.read_slice(row)
    found, expected = pixels_per_class(labels[None])[0], [row[column] for column in PIXEL_COLUMNS]
    if found != expected:
        raise InputError(
            f"{store.folder / 'labels' / row['case']}: slice {row['slice']}: found {found} pixels of the classes, "
            f"expected {expected} by index.csv; remove the store and prepare again"
        )
    return grey, labels
