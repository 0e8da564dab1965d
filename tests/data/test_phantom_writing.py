"""Phantom cases on disk: KiTS layout, equal bytes on every way, nothing half done."""

import errno
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import filelock
import numpy as np
import pytest

from kits_ml.config import PhantomSettings
from kits_ml.data import cases, phantom, volumes
from kits_ml.data.phantom import writing
from kits_ml.errors import InputError

FILES = {"imaging.nii.gz", "segmentation.nii.gz", "phantom.json"}


@pytest.fixture
def tiny(monkeypatch):
    """Cases of 5 slices of 32 x 32, so that writing is all there is."""
    made = []

    def generate(*, seed, index, distribution):
        made.append(index)
        return phantom.generate_case(seed=seed, index=index, distribution=distribution, num_slices=5, shape=(32, 32))

    monkeypatch.setattr(writing, "generate_case", generate)
    return made


def settings(output, **changes):
    return PhantomSettings(output=str(output), **{"num_cases": 3, "num_workers": 1, **changes})


def contents(output):
    return {str(path.relative_to(output)): path.read_bytes() for path in output.glob("case_*/*")}


def test_layout_and_grid_are_those_of_kits(tiny, tmp_path):
    folders = phantom.write_cases(settings(tmp_path))
    assert [folder.name for folder in folders] == ["case_00000", "case_00001", "case_00002"]
    assert [case.name for case in cases.find_cases(tmp_path)] == ["case_00000", "case_00001", "case_00002"]
    for index, folder in enumerate(folders):
        assert {path.name for path in folder.iterdir()} == FILES
        image = volumes.read_image(folder / "imaging.nii.gz")
        label_map = volumes.read_label_map(folder / "segmentation.nii.gz")
        assert image.geometry.orientation == "IPL"
        assert volumes.same_grid(image.geometry, label_map.geometry)
        case = phantom.generate_case(seed=0, index=index, num_slices=5, shape=(32, 32))
        np.testing.assert_array_equal(image.array, case.image)
        np.testing.assert_array_equal(label_map.array, case.label_map)
        assert image.spacing_mm == pytest.approx(case.spacing_mm, rel=1e-5)


def test_content_does_not_depend_on_how_many_cases(tiny, tmp_path):
    phantom.write_cases(settings(tmp_path / "few", num_cases=2))
    phantom.write_cases(settings(tmp_path / "many", num_cases=4))
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert few == {name: many[name] for name in few}


def test_workers_write_the_same_bytes(tmp_path):
    for name, num_workers in (("single", 1), ("workers", 2)):
        phantom.write_cases(
            settings(tmp_path / name, num_cases=2, num_workers=num_workers, distribution="small", seed=9)
        )
    single, workers = contents(tmp_path / "single"), contents(tmp_path / "workers")
    assert len(single) == 2 * len(FILES)
    assert single == workers


def test_rerun_makes_only_what_is_missing(tiny, tmp_path):
    phantom.write_cases(settings(tmp_path))
    (tmp_path / "case_00001" / "segmentation.nii.gz").unlink()
    tiny.clear()
    phantom.write_cases(settings(tmp_path, num_cases=4))
    assert tiny == [1, 3]
    tiny.clear()
    phantom.write_cases(settings(tmp_path, num_cases=4, overwrite=True))
    assert tiny == [0, 1, 2, 3]


def test_cases_of_other_settings_are_not_mixed(tiny, tmp_path):
    phantom.write_cases(settings(tmp_path))
    with pytest.raises(InputError, match=r"case_00000: made with .*'seed': 0.*expected .*'seed': 1"):
        phantom.write_cases(settings(tmp_path, seed=1))
    phantom.write_cases(settings(tmp_path, seed=1, overwrite=True))
    phantom.write_cases(settings(tmp_path, seed=1))


def test_a_real_case_is_not_taken_for_a_phantom(tiny, tmp_path):
    (tmp_path / "case_00000").mkdir()
    (tmp_path / "case_00000" / "imaging.nii.gz").write_bytes(b"real")
    with pytest.raises(InputError, match=r"without a readable phantom\.json"):
        phantom.write_cases(settings(tmp_path))
    assert (tmp_path / "case_00000" / "imaging.nii.gz").read_bytes() == b"real"


def test_an_error_leaves_no_case(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.volumes, "write_label_map", full)
    with pytest.raises(OSError, match="No space left") as caught:
        phantom.write_cases(settings(tmp_path))
    assert caught.value.filename == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]


def test_a_killed_run_leaves_no_case_and_the_next_one_cleans_up(tiny, tmp_path):
    script = f"""
import time
from kits_ml.config import PhantomSettings
from kits_ml.data import phantom
from kits_ml.data.phantom import writing
case = phantom.generate_case(seed=0, index=0, num_slices=5, shape=(32, 32))
writing.generate_case = lambda **_: case
def hang(*_):
    print("half", flush=True)
    time.sleep(60)
writing.volumes.write_label_map = hang
phantom.write_cases(PhantomSettings(output={str(tmp_path)!r}, num_cases=3, num_workers=1))
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.glob("*case*")
    assert left.name.startswith(".case_00000.")
    phantom.write_cases(settings(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*case*")) == ["case_00000", "case_00001", "case_00002"]


def test_what_another_container_works_on_stays_and_what_a_killed_one_left_goes(tiny, tmp_path):
    nobody = 99_999_999  # no process of this machine has so high a number
    at_work, left = (tmp_path / f".case_0000{number}.{nobody}.partial" for number in range(7, 9))
    for scratch in (at_work, left):
        scratch.mkdir()
    (tmp_path / ".locks").mkdir()
    with filelock.FileLock(tmp_path / ".locks/case_00007.lock"):
        phantom.write_cases(settings(tmp_path))
        assert at_work.exists()
    assert not left.exists()
    phantom.write_cases(settings(tmp_path))
    assert not at_work.exists()


def test_whoever_waited_for_a_case_finds_it_done(tiny, tmp_path, monkeypatch):
    generate = writing.generate_case

    def slowly(**arguments):
        time.sleep(0.3)  # meanwhile the other one comes
        return generate(**arguments)

    monkeypatch.setattr(writing, "generate_case", slowly)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(writing.write_case, 0, settings(tmp_path)) for _ in range(2)]:
            done.result()
    assert tiny == [0]
    with pytest.raises(InputError, match="case_00000: made with"):
        writing.write_case(0, settings(tmp_path, seed=1))


def test_others_may_read_the_cases(tiny, tmp_path):
    (tmp_path / "usual").mkdir()
    for folder in phantom.write_cases(settings(tmp_path / "cases")):
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "output").write_text("a file")
    with pytest.raises(InputError, match="output: cannot be made a folder"):
        phantom.write_cases(settings(tmp_path / "output"))
