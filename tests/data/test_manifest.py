"""Files that were read are known again; what changed is noticed; a damaged manifest costs time and nothing else."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kits_ml.data import manifest as manifest_module
from kits_ml.data.manifest import Manifest


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / "data" / f"{number}.bin" for number in range(5)]
    found[0].parent.mkdir()
    for number, file in enumerate(found):
        file.write_bytes(bytes([number]) * 1000)
    return found


@pytest.fixture
def read(monkeypatch):
    """The names of files that were read."""
    names = []

    def sha256_of(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(manifest_module, "sha256_of", sha256_of)
    return names


def test_each_file_is_read_once(tmp_path, files, read):
    first = Manifest(tmp_path / "new" / "manifest.json").sha256(files, num_threads=3)
    assert first == {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert sorted(read) == sorted(file.name for file in files)
    assert Manifest(tmp_path / "new" / "manifest.json").sha256(files, num_threads=3) == first
    assert len(read) == len(files)


def test_a_touched_file_is_read_again_and_is_the_same(tmp_path, files, read):
    manifest = Manifest(tmp_path / "manifest.json")
    before = manifest.sha256(files)
    read.clear()
    os.utime(files[2], ns=(0, 1))
    assert manifest.sha256(files) == before
    assert read == [files[2].name]


def test_size_and_time_are_trusted(tmp_path, files):
    manifest = Manifest(tmp_path / "manifest.json")
    os.utime(files[0], ns=(0, 5))
    before = manifest.sha256(files)
    files[0].write_bytes(b"z" * 1000)
    os.utime(files[0], ns=(0, 5))
    assert manifest.sha256(files) == before  # by design: neither size nor time says that it changed
    os.utime(files[0], ns=(0, 6))
    assert manifest.sha256(files)[files[0]] == hashlib.sha256(b"z" * 1000).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"null"])
def test_a_damaged_manifest_is_ignored(content, tmp_path, files, read):
    path = tmp_path / "manifest.json"
    before = Manifest(path).sha256(files)
    path.write_bytes(content)
    read.clear()
    assert Manifest(path).sha256(files) == before
    assert len(read) == len(files)
    assert Manifest(path).sha256(files) == before
    assert len(read) == len(files)


@pytest.mark.parametrize("entry", ["1", "null", '{"size": 1000}', '{"size": 1000, "mtime_ns": 1, "sha256": 3}'])
def test_a_damaged_entry_is_ignored(entry, tmp_path, files):
    path = tmp_path / "manifest.json"
    os.utime(files[0], ns=(0, 1))
    path.write_text(f'{{"{files[0].as_posix()}": {entry}}}')
    assert Manifest(path).sha256(files)[files[0]] == hashlib.sha256(files[0].read_bytes()).hexdigest()


def test_two_at_once_lose_nothing(tmp_path, files, read):
    path = tmp_path / "manifest.json"
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda file: Manifest(path).sha256([file]), files))
    read.clear()
    Manifest(path).sha256(files)
    assert read == []


def test_what_was_read_before_a_failure_is_kept(tmp_path, files, read):
    manifest = Manifest(tmp_path / "manifest.json")
    files[4].unlink()
    files[4].mkdir()  # cannot be read
    with pytest.raises(IsADirectoryError):
        manifest.sha256(files)
    read.clear()
    manifest.sha256(files[:4])
    assert read == []
