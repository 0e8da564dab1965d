"""The decoded slices are the PNGs' own, appear whole or not at all, and never stand for another store."""

import errno
import json
import os
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits_ml.data import png, slice_cache
from kits_ml.data.slices import PreparedStore
from kits_ml.errors import InputError
from tests.waiting import wait_until

LOADER = Path(__file__).parents[2] / "experiments/benchmarks/loader.py"
synthetic_store = runpy.run_path(str(LOADER))["synthetic_store"]

#: Opens the cache of a store and prints a digest of what it holds.
OPEN = """
import hashlib, sys
from kits_ml.data import slice_cache
from kits_ml.data.slices import PreparedStore
for one in slice_cache.open_cache(PreparedStore.open(sys.argv[1])):
    print(hashlib.sha256(one).hexdigest())
"""

#: The same, but it never comes to the end of the last case.
NEVER_DONE = f"""
import time
from kits_ml.data.slices import PreparedStore
read = PreparedStore.read_slice
PreparedStore.read_slice = lambda one, row: time.sleep(600 * (row["case"] == "case_00039")) or read(one, row)
{OPEN}
"""


@pytest.fixture
def store(tmp_path):
    return synthetic_store(tmp_path / "store", num_cases=3, slices_per_case=5, image_size=32)


def _content(store) -> list[np.ndarray]:
    return [np.stack(one) for one in zip(*(store.read_slice(row) for row in store.index), strict=True)]


def _folders(store) -> list[Path]:
    return [path for path in (store.folder / "cache").iterdir() if path.is_dir()]


def _replace(path: Path, pixels: np.ndarray) -> None:
    path.unlink()  # it is a hard link to a file that others are too
    path.write_bytes(png.encode(pixels))


def _count_reads(monkeypatch) -> list[str]:
    """The cases that slices are read of from now on."""
    read, real = [], PreparedStore.read_slice
    monkeypatch.setattr(PreparedStore, "read_slice", lambda one, row: read.append(row["case"]) or real(one, row))
    return read


def test_it_holds_what_the_pngs_hold(store, monkeypatch):
    expected = _content(store)
    read = _count_reads(monkeypatch)
    for _ in range(2):
        found = slice_cache.open_cache(store)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert isinstance(one, np.memmap)
            with pytest.raises(ValueError, match="read-only"):
                one[0, 0, 0] = 1
    assert len(read) == 15  # the first time alone
    assert found[0][:, 0, 0].tolist() == list(range(15))  # the store's slices in order
    (folder,) = _folders(store)
    assert sorted(path.name for path in folder.iterdir()) == ["grey.npy", "labels.npy", "written.json"]


def test_a_changed_picture_is_seen(store):
    slice_cache.open_cache(store)
    path = store.folder / "images/case_00001/0002.png"
    _replace(path, np.full((32, 32), 77, np.uint8))
    grey, _ = slice_cache.open_cache(store)
    assert (grey[7] == 77).all()  # the third slice of the second case of five slices
    assert len(_folders(store)) == 1


def test_a_store_of_fewer_cases_does_not_take_the_cache_of_all(store):
    slice_cache.open_cache(store)
    path = store.folder / "index.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("case_00000")))
    path = store.folder / "store.json"
    content = json.loads(path.read_text())
    del content["cases"]["case_00000"]
    path.write_text(json.dumps(content))
    grey, _ = slice_cache.open_cache(PreparedStore.open(store.folder))
    assert grey[:, 0, 0].tolist() == list(range(5, 15))


def test_a_label_that_the_index_does_not_know(store):
    _replace(store.folder / "labels/case_00001/0000.png", np.full((32, 32), 2, np.uint8))  # 32 x 32 = 1024 pixels
    with pytest.raises(InputError, match=r"case_00001: slice 0: found \[0, 0, 1024\] pixels of the classes"):
        slice_cache.open_cache(store)
    assert all(folder.suffix == ".partial" for folder in _folders(store))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "cannot be read"),
        (lambda path: path.write_text("no picture"), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
        (
            lambda path: Image.new("RGB", (32, 32)).save(path),
            "found 32 x 32 x 3 pixels of mode RGB, expected",
        ),
        (lambda path: Image.new("P", (32, 32)).save(path), "found 32 x 32 pixels of mode P, expected"),
        (lambda path: Image.new("I;16", (32, 32)).save(path), "found 32 x 32 pixels of mode I;16, expected"),
        (lambda path: Image.new("L", (32, 16)).save(path), "found 16 x 32 pixels of mode L, expected 32 x 32"),
    ],
)
def test_a_bad_png_is_named(store, spoil, message):
    path = store.folder / "labels/case_00002/0001.png"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    spoil(path)
    with pytest.raises(InputError, match=rf"case_00002/0001\.png: {message}"):
        slice_cache.open_cache(store)


def test_a_case_without_its_folder(store):
    shutil.rmtree(store.folder / "labels/case_00001")
    with pytest.raises(InputError, match=r"labels/case_00001: cannot be read"):
        slice_cache.open_cache(store)


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _lengthen(path: Path) -> None:
    status = path.stat()
    os.truncate(path, status.st_size + 1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _edit(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\7")  # it was 0
    _touch(path)


def _touch(path: Path) -> None:
    """As a copy without its time; by a whole second, for a coarse clock may stand still meanwhile."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


@pytest.mark.parametrize("name", slice_cache.FILES)
@pytest.mark.parametrize("spoil", [_cut_short, _lengthen, _edit, _touch, Path.unlink])
def test_a_file_that_is_not_as_it_was_written_is_written_anew(store, spoil, name, monkeypatch):
    slice_cache.open_cache(store)
    path = _folders(store)[0] / name
    expected, size = _content(store), path.stat().st_size
    spoil(path)
    read = _count_reads(monkeypatch)
    for one, other in zip(slice_cache.open_cache(store), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(read) == 15
    assert path.stat().st_size == size


@pytest.mark.parametrize("content", [None, "", "no JSON", "[]", "{}"])
def test_a_cache_that_nothing_vouches_for_is_written_anew(store, content, monkeypatch):
    slice_cache.open_cache(store)
    path = _folders(store)[0] / slice_cache.WRITTEN_JSON
    before = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(content)
    read = _count_reads(monkeypatch)
    slice_cache.open_cache(store)
    assert len(read) == 15
    assert json.loads(path.read_text()).keys() == before.keys() == set(slice_cache.FILES)


@pytest.mark.parametrize("where", ["posix_fallocate", "fsync"])
def test_a_full_disk_is_one_line_and_nothing_stays(store, where, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, refuse)
        with pytest.raises(InputError, match=r"the disk is full; the decoded slices take 0\.0 GB") as caught:
            slice_cache.open_cache(store)
    assert "\n" not in str(caught.value)
    assert _folders(store) == []
    slice_cache.open_cache(store)


def test_a_place_that_cannot_be_written(store):
    (store.folder / "cache").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        slice_cache.open_cache(store)


def test_finished_cases_are_taken_over(store, monkeypatch):
    real = slice_cache._decode_case

    def stop_at_the_last(*arguments, rows, **options):
        if rows[0]["case"] == "case_00002":
            raise KeyboardInterrupt
        real(*arguments, rows=rows, **options)

    with monkeypatch.context() as patch:
        patch.setattr(slice_cache, "_decode_case", stop_at_the_last)
        patch.setattr(os, "cpu_count", lambda: 1)  # one after the other
        with pytest.raises(KeyboardInterrupt):
            slice_cache.open_cache(store)
    expected = _content(store)
    read = _count_reads(monkeypatch)
    found = slice_cache.open_cache(store)
    assert set(read) == {"case_00002"}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_at_once_decode_once(store, monkeypatch):
    read = _count_reads(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(slice_cache.open_cache, [store, store])
    assert len(read) == 15
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_killed_it_goes_on_to_the_same_bytes(tmp_path):
    store = synthetic_store(tmp_path / "store", num_cases=40, slices_per_case=20, image_size=64)
    never_done, command = ([sys.executable, "-c", code, str(store.folder)] for code in (NEVER_DONE, OPEN))
    process = subprocess.Popen(never_done, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: list(store.folder.glob("cache/*.partial/*.done")), seconds=60)
    finally:
        process.kill()
        process.wait()
    (folder,) = _folders(store)
    assert folder.suffix == ".partial"  # it was killed in the middle
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = [one.communicate(timeout=100)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert first == second
    for one, other in zip(slice_cache.open_cache(store), _content(store), strict=True):
        np.testing.assert_array_equal(one, other)
