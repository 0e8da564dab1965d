import csv
import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

from kits_ml.cli import main
from kits_ml.config import InspectSettings
from kits_ml.errors import InputError
from kits_ml.workflows.inspect import inspect


@pytest.fixture
def folder(make_case, tmp_path):
    for number in range(3):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number, num_slices=6 + number)
    return tmp_path / "cases"


def _settings(folder, tmp_path, **options) -> InspectSettings:
    return InspectSettings(data=str(folder), output=str(tmp_path / "out"), **{"num_workers": 1, **options})


def _rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_writes_tables_and_a_page_of_plots(folder, tmp_path):
    inspected = inspect(_settings(folder, tmp_path, max_slices=7))
    assert [one.slices for one in inspected.fingerprints] == [6, 7, 8]
    assert inspected.selection.left_out == {"case_00002": ("8 slices, at most 7 allowed",)}
    rows = _rows(tmp_path / "out" / "fingerprint.csv")
    assert [row["slices"] for row in rows] == ["6", "7", "8"]
    assert float(rows[0]["tumour_ml"]) == pytest.approx(inspected.fingerprints[0].tumour_ml)
    assert [(row["case"], row["selected"], row["reasons"]) for row in _rows(tmp_path / "out" / "selection.csv")] == [
        ("case_00000", "True", ""),
        ("case_00001", "True", ""),
        ("case_00002", "False", "8 slices, at most 7 allowed"),
    ]
    assert {row["rule"] for row in _rows(tmp_path / "out" / "findings.csv")} == {"short_scan", "matrix"}
    with Image.open(tmp_path / "out" / "overview.png") as page:
        assert page.width > page.height > 600


def test_workers_give_the_same(folder, tmp_path):
    one = inspect(_settings(folder, tmp_path))
    two = inspect(_settings(folder, tmp_path, num_workers=2, overwrite=True))
    assert one == two


def test_an_unreadable_case_is_a_row(folder, tmp_path):
    path = folder / "case_00001" / "imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    inspected = inspect(_settings(folder, tmp_path, max_slices=7))
    assert list(inspected.failures) == ["case_00001"]
    rows = _rows(tmp_path / "out" / "fingerprint.csv")
    assert [row["case"] for row in rows] == ["case_00000", "case_00001", "case_00002"]
    assert rows[1]["slices"] == ""
    assert str(path) in rows[1]["error"]
    assert set(inspected.selection.left_out) == {"case_00001", "case_00002"}
    assert [one.rule for one in inspected.findings if one.level == "error"] == ["unreadable"]


def test_labels_on_another_grid_are_an_error(folder, tmp_path):
    shutil.copy(folder / "case_00000" / "segmentation.nii.gz", folder / "case_00002" / "segmentation.nii.gz")
    inspected = inspect(_settings(folder, tmp_path))
    assert "shape (6, 64, 64) (slices, rows, columns), expected (8, 64, 64)" in inspected.failures["case_00002"]


def test_a_copy_under_another_name_is_found(folder, tmp_path):
    shutil.copytree(folder / "case_00000", folder / "case_00009")
    inspected = inspect(_settings(folder, tmp_path))
    found = [(one.case, one.message) for one in inspected.findings if one.rule == "duplicate"]
    assert found == [
        ("case_00000", "the same voxels as case_00009"),
        ("case_00009", "the same voxels as case_00000"),
    ]


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    inspect(_settings(folder, tmp_path))
    with pytest.raises(InputError, match=r"fingerprint.csv: exists; expected a new folder, or --overwrite true"):
        inspect(_settings(folder, tmp_path))


def test_a_wrong_rule_is_said_before_the_work(folder, tmp_path):
    with pytest.raises(InputError, match="cases: found 'case_00017', no such case"):
        inspect(_settings(folder, tmp_path, cases="case_00017"))
    assert not (tmp_path / "out").exists()


def test_command_line(folder, tmp_path):
    (folder / "case_00002" / "imaging.nii.gz").write_bytes(b"no image")
    arguments = ["inspect", "--data", str(folder), "--output", str(tmp_path / "out"), "--max_slices", "6"]
    result = CliRunner().invoke(main, [*arguments, "--num_workers", "1"])
    assert result.exit_code == 1
    table = result.stdout.splitlines()
    assert table[1].split()[:2] == ["case_00000", "6"]
    assert "?short_scan" in table[1]
    assert "  case_00001: 7 slices, at most 6 allowed" in table
    assert "1 of 3 cases failed" in result.stderr
    assert (tmp_path / "out" / "overview.png").exists()


def test_only_unreadable_cases(folder, tmp_path):
    for path in folder.glob("*/imaging.nii.gz"):
        path.write_bytes(b"no image")
    inspected = inspect(_settings(folder, tmp_path))
    assert len(inspected.failures) == 3
    assert not (tmp_path / "out" / "overview.png").exists()


def test_real_slices(real_data, tmp_path):
    (tmp_path / "cases").mkdir()
    for name in ("case_00000", "case_00015"):
        (tmp_path / "cases" / name).symlink_to(real_data / "kits-thin" / name)
    inspected = inspect(_settings(tmp_path / "cases", tmp_path))
    assert [one.orientation for one in inspected.fingerprints] == ["IPL", "IPL"]
    assert [(one.hu.min, one.hu.max) for one in inspected.fingerprints] == [(-79, 304), (-79, 304)]
    rules = {(one.case, one.rule) for one in inspected.findings}
    assert ("case_00015", "known_in_kits") in rules
    assert ("case_00000", "known_in_kits") not in rules
    assert ("case_00000", "no_air") in rules  # they are windowed pictures, read back


def test_settings_are_plain_json(folder, tmp_path):
    assert json.dumps(inspect(_settings(folder, tmp_path)).selection.to_dict())
