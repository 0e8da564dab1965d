"""Cases to a store and a split: copies stay together, and the splits of a store don't meet."""

import json
import shutil

import pytest

from kits_ml.config import PrepareSettings
from kits_ml.errors import InputError
from kits_ml.workflows.prepare import prepare


@pytest.fixture
def options(tmp_path, make_case):
    for number in range(4):
        make_case(tmp_path / "data", f"case_{number:05d}", seed=number)
    shutil.copytree(tmp_path / "data" / "case_00001", tmp_path / "data" / "case_00007")
    return {
        "data": str(tmp_path / "data"),
        "prepared": str(tmp_path / "prepared"),
        "image_size": 16,
        "num_workers": 1,
    }


def test_a_copied_case_goes_where_its_original_goes(options, caplog):
    for seed in range(6):
        with caplog.at_level("INFO"):
            prepared = prepare(PrepareSettings(**options, split_seed=seed))
        parts = prepared.split.to_dict()
        (part,) = [part for part, names in parts.items() if "case_00001" in names]
        assert "case_00007" in parts[part]
        assert sum(map(len, parts.values())) == 5
    assert "case_00001, case_00007 hold the same scan: they count as one patient" in caplog.text


def test_a_list_cannot_separate_the_copy(options, tmp_path):
    names = ["case_00000", "case_00001", "case_00002", "case_00003"]
    (tmp_path / "split.json").write_text(json.dumps({"train": names, "validation": ["case_00007"]}))
    with pytest.raises(InputError, match=r"case_00001 \(train\) and case_00007 \(validation\) are of one patient"):
        prepare(PrepareSettings(**options, split_file=str(tmp_path / "split.json")))


def test_splits_of_one_store_lie_side_by_side(options):
    folds = [prepare(PrepareSettings(**options, num_folds=2, test_fraction=0.0, fold=fold)) for fold in (0, 1)]
    assert folds[0].store.folder == folds[1].store.folder
    assert folds[0].split_path != folds[1].split_path
    for prepared in folds:
        record = json.loads(prepared.split_path.read_text())
        assert record["digest"] == prepared.split_path.stem
        assert record["settings"]["num_folds"] == 2
        assert record["patients"] == {"case_00001": ["case_00001", "case_00007"]}
        assert {part: record[part] for part in ("train", "validation", "test")} == prepared.split.to_dict()
    again = prepare(PrepareSettings(**options, num_folds=2, test_fraction=0.0))
    assert again.split_path == folds[0].split_path


def test_a_recorded_split_can_be_given_back(options):
    first = prepare(PrepareSettings(**options, split_seed=3))
    again = prepare(PrepareSettings(**options, split_file=str(first.split_path)))
    assert again.split == first.split


def test_groups_keep_cases_together(options, tmp_path):
    (tmp_path / "groups.csv").write_text("case,group\ncase_00002,p\ncase_00003,p\n")
    prepared = prepare(PrepareSettings(**options, groups_file=str(tmp_path / "groups.csv")))
    (together,) = [names for names in prepared.split.to_dict().values() if "case_00002" in names]
    assert "case_00003" in together
