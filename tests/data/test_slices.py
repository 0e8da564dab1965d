"""The prepared store holds whole cases only, is named by its content, and survives being killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kits_ml.config import PrepareSettings, PreprocessingSettings
from kits_ml.data import cases, slices
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workflows.prepare import prepare

SIZE = 32


def _settings(folder: Path, **changes) -> PrepareSettings:
    values = {
        "data": str(folder / "cases"),
        "prepared": str(folder / "prepared"),
        "image_size": SIZE,
        "num_workers": 1,
        **changes,
    }
    return PrepareSettings(**values)


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path, make_case):
    for number in range(5):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number)
    return tmp_path


def test_what_is_in_a_store(folder):
    store = prepare(_settings(folder)).store
    assert len(store.index) == 5 * 6
    assert sorted(store.case_digests) == [f"case_{number:05d}" for number in range(5)]
    row = store.index[8]  # the third slice of the second case
    assert (row["case"], row["slice"]) == ("case_00001", 2)
    grey, labels = store.read_slice(row)
    assert grey.shape == labels.shape == (SIZE, SIZE)
    assert grey.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2}
    pixels = [row["background_pixels"], row["kidney_pixels"], row["tumour_pixels"]]
    assert np.bincount(labels.ravel()).tolist() == pixels
    assert slices.PreparedStore.open(store.folder) == store


def test_nothing_is_prepared_twice(folder):
    store = prepare(_settings(folder)).store
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.png")}
    assert prepare(_settings(folder)).store.digest == store.digest
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.png")} == before


def test_another_setting_makes_another_store(folder):
    first, second = prepare(_settings(folder)).store, prepare(_settings(folder, gamma=1.0)).store
    assert first.digest != second.digest
    assert first.settings.gamma != second.settings.gamma


def test_a_changed_case_makes_another_store_and_the_others_are_linked(folder, make_case):
    first = prepare(_settings(folder)).store
    make_case(folder / "cases", "case_00003", seed=99)
    second = prepare(_settings(folder)).store
    assert first.digest != second.digest
    png = "images/case_00002/0003.png"
    assert (first.folder / png).stat().st_ino == (second.folder / png).stat().st_ino
    png = "images/case_00003/0003.png"
    assert (first.folder / png).read_bytes() != (second.folder / png).read_bytes()


def test_workers_and_threads_do_not_change_a_byte(folder):
    alone = prepare(_settings(folder)).store.folder
    together = prepare(_settings(folder, prepared=str(folder / "other"), num_workers=2)).store.folder
    assert _digest(alone) == _digest(together)


def test_a_bad_case_is_named_and_the_others_stay_prepared(folder):
    (folder / "cases/case_00002/segmentation.nii.gz").unlink()
    with pytest.raises(
        CasesFailedError, match=r"1 of 5 cases failed:\n  case_00002: .*segmentation\.nii\.gz: no such"
    ):
        prepare(_settings(folder))
    (store,) = (folder / "prepared").glob("*/")
    assert len(list((store / "cases").glob("*.json"))) == 4
    assert not (store / "store.json").exists()
    prepared = prepare(_settings(folder, skip_failed_cases=True))
    assert sorted(prepared.store.case_digests) == ["case_00000", "case_00001", "case_00003", "case_00004"]


def test_a_store_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no finished prepared store"):
        slices.PreparedStore.open(tmp_path)


def test_the_digest_depends_on_everything():
    settings = PreprocessingSettings()
    one = slices.store_digest({"a": "1"}, settings)
    assert one == slices.store_digest({"a": "1"}, PreprocessingSettings())
    assert one != slices.store_digest({"a": "2"}, settings)
    assert one != slices.store_digest({"b": "1"}, settings)
    assert one != slices.store_digest({"a": "1"}, PreprocessingSettings(image_size=128))


def test_two_processes_on_one_store_do_no_harm(folder):
    alone = prepare(_settings(folder, prepared=str(folder / "other"))).store.folder
    command = _command(folder)
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    (store,) = (folder / "prepared").glob("*/")
    assert _digest(store) == _digest(alone)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder, make_case):
    for number in range(5, 12):
        make_case(folder / "cases", f"case_{number:05d}", seed=number, num_slices=20, size=160)
    started = time.monotonic()
    alone = prepare(_settings(folder, prepared=str(folder / "other"))).store.folder
    took_s = time.monotonic() - started
    start_up_s = 1.0
    for attempt in range(14):
        process = subprocess.Popen(_command(folder), stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(start_up_s + took_s * attempt / 14)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for record in (folder / "prepared").glob("*/cases/*.json"):
            for kind in ("images", "labels"):
                there = _digest(record.parent.parent / kind / record.stem)
                assert there == _digest(alone / kind / record.stem)
    subprocess.run(_command(folder), check=True, timeout=120)
    (store,) = (folder / "prepared").glob("*/")
    assert _digest(store) == _digest(alone)
    assert not list(store.glob(".*"))


def _command(folder: Path) -> list[str]:
    options = ["--data", folder / "cases", "--prepared", folder / "prepared", "--image_size", SIZE]
    return [sys.executable, "-m", "kits_ml", "prepare", *map(str, options), "--num_workers", "1"]


def test_a_case_is_its_files(folder):
    first, second, *_ = cases.find_cases(folder / "cases")
    assert first.digest() != second.digest()
    assert first.digest() == cases.find_cases(folder / "cases")[0].digest()
