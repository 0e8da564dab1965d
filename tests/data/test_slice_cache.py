"""The decoded slices are the PNGs' own, appear whole or not at all, and never stand for another store."""

import errno
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits_ml.data import png, slice_cache
from kits_ml.data.slices import PreparedStore
from kits_ml.errors import InputError

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
    assert sorted(path.name for path in folder.iterdir()) == ["grey.npy", "labels.npy"]


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


@pytest.mark.parametrize("name", slice_cache.FILES)
def test_a_file_cut_short_is_written_anew(store, name):
    slice_cache.open_cache(store)
    path = _folders(store)[0] / name
    os.truncate(path, path.stat().st_size // 2)
    for one, other in zip(slice_cache.open_cache(store), _content(store), strict=True):
        np.testing.assert_array_equal(one, other)


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
    command = [sys.executable, "-c", OPEN, str(store.folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(store.folder.glob("cache/*.partial/*.done")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = _folders(store)
    assert folder.suffix == ".partial"  # it was killed in the middle
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = [one.communicate(timeout=100)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert first == second
    for one, other in zip(slice_cache.open_cache(store), _content(store), strict=True):
        np.testing.assert_array_equal(one, other)
