"""The prepared store holds whole cases only, is named by its content, and survives being killed."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
from click.testing import CliRunner

from kits_ml import cli, files
from kits_ml.config import PrepareSettings, PreprocessingSettings
from kits_ml.data import cases, slices, volumes
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.training import batches
from kits_ml.workflows.prepare import prepare
from tests.conftest import body

SIZE = 32
INDEX_HEAD = ",".join(slices.INDEX_COLUMNS) + "\n"


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
    for number, damaged in enumerate(("", "[]", "{}", "null"), start=1):  # looked at before the first
        record_path = folder / "prepared" / ("0" * number) / "cases/case_00002.json"
        files.write_bytes(record_path, damaged.encode())
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("store.json", "{}", r"store\.json: expected an object with settings and cases"),
        ("store.json", "[]", r"store\.json: expected an object with settings and cases"),
        ("store.json", '{"settings": [], "cases": {}}', r"store\.json: expected an object with settings and cases"),
        ("store.json", '{"settings": {}, "cases": {}}', r"store\.json: found format None, expected 3"),
        ("store.json", '{"settings": {}, "cases": {}, "format": 2}', r"store\.json: found format 2, expected 3"),
        ("store.json", '{"settings"', "Expecting"),
        ("index.csv", "", r"index\.csv: found columns ; expected case, slice, background_pixels"),
        ("index.csv", INDEX_HEAD + "case_00000,0,1\n", r"index\.csv, line 2: found 3 cells, expected 5"),
        ("index.csv", INDEX_HEAD + "case_00000,0,1,2,x\n", "invalid literal for int"),
        (
            "index.csv",
            INDEX_HEAD + "case_00000,0,1,2,3\n",  # and of the other four no slice
            r"case_00001, .*, case_00004: found in one of store\.json and index\.csv only",
        ),
    ],
)
def test_a_damaged_store_is_refused(folder, name, content, message):
    store = prepare(_settings(folder)).store.folder
    (store / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        slices.PreparedStore.open(store)
    assert str(caught.value).startswith(f"{store}: no finished prepared store (")
    assert "\n" not in str(caught.value)
    assert prepare(_settings(folder)).store.folder == store  # which writes both anew


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


def test_whoever_waited_for_a_case_finds_it_done(folder, monkeypatch):
    case, *_ = cases.find_cases(folder / "cases")
    settings = _settings(folder).select(PreprocessingSettings)
    loaded, load = [], cases.load_case

    def slowly(one):
        loaded.append(one.name)
        time.sleep(0.3)  # meanwhile the other one comes
        return load(one)

    monkeypatch.setattr(cases, "load_case", slowly)
    arguments = {"digest": "a", "store": folder / "store", "settings": settings}
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(slices.prepare_case, case, **arguments) for _ in range(2)]:
            done.result()
    assert loaded == ["case_00000"]


def test_what_another_container_works_on_stays_and_what_a_killed_one_left_goes(folder):
    store = prepare(_settings(folder)).store.folder
    before = _digest(store)
    nobody = 99_999_999  # no process of this machine has so high a number
    at_work, left = (store / f".case_0000{number}.{nobody}.partial" for number in range(2))
    for scratch in (at_work, left):
        (scratch / "images").mkdir(parents=True)
    file = store / f".index.csv.{nobody}.partial"
    file.touch()
    with filelock.FileLock(store / ".locks/case_00000.lock"):
        prepare(_settings(folder))
        assert at_work.exists()
    assert not left.exists()
    assert not file.exists()
    prepare(_settings(folder))
    assert not at_work.exists()
    assert {name: digest for name, digest in _digest(store).items() if not name.startswith(".locks/")} == {
        name: digest for name, digest in before.items() if not name.startswith(".locks/")
    }


def test_a_case_without_its_record_is_prepared_anew(folder, monkeypatch):
    store = prepare(_settings(folder)).store.folder
    before = _digest(store)
    (store / "cases/case_00002.json").unlink()
    (store / "images/case_00002/0003.png").unlink()

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            prepare(_settings(folder))
    assert not (store / "cases/case_00002.json").exists()
    prepare(_settings(folder))
    assert _digest(store) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"case": "case_00002"}'])
def test_a_case_with_a_damaged_record_is_prepared_anew(folder, content):
    store = prepare(_settings(folder)).store.folder
    before = _digest(store)
    (store / "cases/case_00002.json").write_text(content)
    prepare(_settings(folder))
    assert _digest(store) == before


def test_a_damaged_record_of_an_opened_store_is_named(folder):
    store = prepare(_settings(folder)).store
    path = store.folder / "cases/case_00002.json"
    path.write_text("{")
    with pytest.raises(
        InputError, match=rf"^{path}: no record of a case \(Expecting .*; `kits-ml prepare` writes it"
    ):
        store.tumour_volumes_ml()


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("write", "named"),
    [
        ("pathlib.Path.write_bytes", r"prepared/[0-9a-f]{16}"),
        ("kits_ml.data.manifest.write_atomically", r"prepared/manifest\.json"),
    ],
)
def test_a_full_disk_is_one_line_and_nothing_half_stays(folder, monkeypatch, write, named):
    """It is no fault of a case, so that `skip_failed_cases` does not pass it over."""
    with monkeypatch.context() as patch:
        patch.setattr(write, _full)
        result = CliRunner().invoke(cli.main, [*_command(folder)[3:], "--skip_failed_cases", "true"])
    assert result.exit_code == 1
    assert re.search(rf"Error: \S*{named}: No space left on device\n", result.stderr)
    assert "Traceback" not in result.output
    assert not list((folder / "prepared").glob("*/images/*"))
    assert not list((folder / "prepared").glob("*/.*.partial"))
    assert len(prepare(_settings(folder)).cases) == 5


def test_a_full_disk_while_cases_are_linked_names_the_store(folder, make_case, monkeypatch):
    prepare(_settings(folder))
    make_case(folder / "cases", "case_00003", seed=99)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", _full)
        patch.setattr(shutil, "copy2", _full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            prepare(_settings(folder))
    assert Path(caught.value.filename).parent == folder / "prepared"
    assert len(prepare(_settings(folder)).cases) == 5


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
    assert not list(store.glob(".*.partial"))


def _command(folder: Path) -> list[str]:
    options = ["--data", folder / "cases", "--prepared", folder / "prepared", "--image_size", SIZE]
    return [sys.executable, "-m", "kits_ml", "prepare", *map(str, options), "--num_workers", "1"]


def test_a_case_is_its_files(folder):
    first, second, *_ = cases.find_cases(folder / "cases")
    assert first.digest() != second.digest()
    assert first.digest() == cases.find_cases(folder / "cases")[0].digest()


def test_slices_within_a_margin_of_the_kidneys(tmp_path):
    def write(name: str, spacing_mm: float, kidney: slice) -> None:
        image, label_map = body(num_slices=12, seed=int(name[-1]))
        label_map[:] = 0
        label_map[kidney, 20:40, 20:40] = 1
        geometry = volumes.kits_geometry(image.shape, (spacing_mm, 0.8, 0.8))
        volumes.write_image(tmp_path / "cases" / name / "imaging.nii.gz", image, geometry)
        volumes.write_label_map(tmp_path / "cases" / name / "segmentation.nii.gz", label_map, geometry)

    write("case_00000", 3.0, slice(5, 7))
    write("case_00001", 1.0, slice(0, 2))
    write("case_00002", 3.0, slice(0, 0))
    store = prepare(_settings(tmp_path, test_fraction=0.0)).store
    names = sorted(store.case_digests)

    def numbers(margin_mm: float | None) -> list[list[int]]:
        rows = [store.index[number] for number in store.positions_of(names, margin_mm=margin_mm)]
        return [[row["slice"] for row in rows if row["case"] == name] for name in names]

    assert numbers(0) == [[5, 6], [0, 1], []]
    # 6 mm are two slices of 3 mm and six of 1 mm; a case without a kidney keeps nothing
    assert numbers(6) == [list(range(3, 9)), list(range(8)), []]
    assert numbers(5.9) == [list(range(4, 8)), list(range(7)), []]
    assert numbers(1000) == [list(range(12)), list(range(12)), []]
    assert numbers(None) == [list(range(12))] * 3
    kept = batches.read_slices(store, names, margin_mm=6)
    assert kept.ranges() == {"case_00000": slice(0, 6), "case_00001": slice(6, 14)}
    with pytest.raises(InputError, match="training_margin_mm: found 6, but none of 1 cases shows a kidney"):
        batches.read_slices(store, ["case_00002"], margin_mm=6)


def test_a_store_from_before_framing_and_crop_is_opened(folder):
    store = prepare(_settings(folder)).store
    path = store.folder / "store.json"
    content = json.loads(path.read_text())
    for name in ("framing", "crop", "pixel_spacing_mm"):
        del content["settings"][name]
    path.write_text(json.dumps(content))
    assert slices.PreparedStore.open(store.folder).settings == store.settings


def test_a_spaced_store_says_which_scan_got_larger_pixels(folder):
    settings = _settings(folder, framing="spacing", crop="body", pixel_spacing_mm=1.0).select(PreprocessingSettings)
    case = cases.find_cases(folder / "cases")[0]
    note = slices.prepare_case(case, digest="a", store=folder / "store", settings=settings)
    # the body is 0.9 x 64 pixels of 0.8 mm wide: 46 mm, and a little for the coarse grid, in a square of 32 mm
    assert "imaging.nii.gz: the crop does not fit into 32 x 32 mm: pixels of 1.48 mm instead of 1" in note
    record = json.loads((folder / "store/cases/case_00000.json").read_text())
    assert record["frame"]["pixel_spacing_mm"] == pytest.approx(1.48, abs=0.01)
