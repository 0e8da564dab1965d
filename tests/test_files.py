"""Files appear whole or not at all, whoever else writes them, and a full disk says where."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from kits_ml import files


def test_two_writers_of_one_process_number_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with files.open_to_write(path) as first:
        first.write(b"first")
        with files.open_to_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_of_this_number_left_is_not_in_the_way(tmp_path):
    (tmp_path / "source").write_text("a")
    os.link(tmp_path / "source", tmp_path / f".target.{os.getpid()}.partial")
    files.link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "a"


def test_a_full_disk_while_copying_names_the_target(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", source)

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "source").touch()
    with pytest.raises(OSError, match="No space left") as caught:
        files.link_or_copy(tmp_path / "source", tmp_path / "target")
    assert caught.value.filename == str(tmp_path / "target")


@pytest.mark.parametrize(
    ("number", "filename", "expected"),
    [
        (errno.ENOSPC, None, "a.json"),  # of a write, which knows no name
        (errno.EDQUOT, None, "a.json"),
        (errno.ENOSPC, "b.json", "b.json"),
        (errno.EIO, None, None),
    ],
)
def test_a_full_disk_says_which_file(tmp_path, monkeypatch, number, filename, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="refused") as caught, files.open_to_write(Path("a.json")):
        raise OSError(number, "refused", filename)
    assert caught.value.filename == expected
    assert not list(tmp_path.iterdir())


def test_a_full_disk_in_the_name_of_a_folder(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, files.naming_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "source", None, "target")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path), None)
    with pytest.raises(OSError, match="refused") as caught, files.naming_full_disk(tmp_path):
        raise OSError(errno.EIO, "refused")
    assert caught.value.filename is None
