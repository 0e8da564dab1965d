"""Export: round trips keep voxels and grids, splits come along, nothing is mixed into what is there."""

import dataclasses
import json
import shutil

import filelock
import numpy as np
import pytest

from kits_ml.config import ExportSettings
from kits_ml.data import cases as case_files
from kits_ml.data import volumes
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workflows.export import export

NAMES = [f"case_{number:05d}" for number in range(5)]


@pytest.fixture
def source(tmp_path, make_case):
    for number, name in enumerate(NAMES):
        make_case(tmp_path / "kits", name, seed=number, num_slices=4, size=32)
    return tmp_path / "kits"


def settings_for(source, output, **options) -> ExportSettings:
    return ExportSettings(data=str(source), output=str(output), **{"num_workers": 1, **options})


def assert_same_cases(first, second):
    one, other = ({case.name: case for case in case_files.find_cases(folder)} for folder in (first, second))
    assert list(one) == list(other)
    for name in one:
        for a, b in zip(case_files.load_case(one[name]), case_files.load_case(other[name]), strict=True):
            np.testing.assert_array_equal(a.array, b.array)
            np.testing.assert_array_equal(a.geometry.affine, b.geometry.affine)
            assert a.geometry.shape == b.geometry.shape


def test_round_trip(source, tmp_path):
    there = tmp_path / "Dataset219_KiTS19"
    export(settings_for(source, there))
    export(settings_for(there, tmp_path / "back", layout="kits19"))
    assert_same_cases(source, tmp_path / "back")
    for name in NAMES:  # nothing had to be written anew
        for file in ("imaging.nii.gz", "segmentation.nii.gz"):
            assert (source / name / file).samefile(tmp_path / "back" / name / file)


def test_nnunet_layout(source, tmp_path):
    there = tmp_path / "Dataset219_KiTS19"
    exported = export(settings_for(source, there))
    # 20 % of 5 patients: 1 for validation, 1 for test, 3 for training
    assert [len(names) for names in exported.split.to_dict().values()] == [3, 1, 1]
    assert json.loads((there / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumor": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (test,) = exported.split.test
    training = [name for name in NAMES if name != test]
    assert sorted(path.name for path in (there / "imagesTr").iterdir()) == [
        f"{name}_0000.nii.gz" for name in training
    ]
    assert sorted(path.name for path in (there / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in training]
    assert [path.name for path in (there / "imagesTs").iterdir()] == [f"{test}_0000.nii.gz"]
    assert [path.name for path in (there / "labelsTs").iterdir()] == [f"{test}.nii.gz"]
    (fold,) = json.loads((there / "splits_final.json").read_text())
    assert (fold["train"], fold["val"]) == (list(exported.split.train), list(exported.split.validation))


def test_folds_and_lists_go_there_and_back(source, tmp_path):
    first = export(settings_for(source, tmp_path / "Dataset001_A", num_folds=2, fold=1, test_fraction=0.0))
    folds = json.loads((tmp_path / "Dataset001_A" / "splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [list(split.validation) for split in first.folds]
    again = export(
        settings_for(
            tmp_path / "Dataset001_A",
            tmp_path / "again",
            layout="kits23",
            split_file=str(tmp_path / "Dataset001_A" / "splits_final.json"),
            fold=1,
        )
    )
    assert again.split == first.split
    assert again.folds == first.folds
    own = settings_for(source, tmp_path / "own", layout="kits19", split_file=str(tmp_path / "again" / "split.json"))
    assert export(own).split == first.split


def test_test_cases_stay_test_cases(source, tmp_path):
    first = export(settings_for(source, tmp_path / "Dataset001_A", split_seed=3))
    again = export(
        settings_for(tmp_path / "Dataset001_A", tmp_path / "Dataset002_B", split_seed=4, test_fraction=0.4)
    )
    assert again.split.test == first.split.test


def test_labels_are_rewritten_where_they_mean_something_else(source, tmp_path):
    names = {"background": 0, "tumor": 1, "kidney": 2, "cyst": 3}
    there = tmp_path / "Dataset001_A"
    export(settings_for(source, there, test_fraction=0.0))
    for path in (there / "labelsTr").iterdir():
        label_map = volumes.read_label_map(path)
        swapped = np.array([0, 2, 1], np.uint8)[label_map.array]
        swapped[0, 0, 0] = 3
        path.unlink()  # a second name of the source's file
        volumes.write_label_map(path, swapped, label_map.geometry)
    description = json.loads((there / "dataset.json").read_text())
    (there / "dataset.json").write_text(json.dumps({**description, "labels": names}))
    for layout, cyst in (("kits19", 1), ("kits23", 3)):
        export(settings_for(there, tmp_path / layout, layout=layout))
        for name in NAMES:
            true = volumes.read_label_map(source / name / "segmentation.nii.gz").array.copy()
            true[0, 0, 0] = cyst
            found = volumes.read_label_map(tmp_path / layout / name / "segmentation.nii.gz", keep_cysts=True)
            np.testing.assert_array_equal(found.array, true)


def test_unpacked_files_are_packed(source, tmp_path):
    there = tmp_path / "Dataset001_A"
    for case in case_files.find_cases(source):
        image, label_map = case_files.load_case(case)
        volumes.write_image(there / "imagesTr" / f"{case.name}_0000.nii", image.array, image.geometry)
        volumes.write_label_map(there / "labelsTr" / f"{case.name}.nii", label_map.array, image.geometry)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "kidney": 1, "tumor": 2}}
    (there / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii", "numTraining": 5}))
    export(settings_for(there, tmp_path / "kits19", layout="kits19"))
    assert_same_cases(source, tmp_path / "kits19")


def test_a_broken_off_export_goes_on(source, tmp_path):
    settings = settings_for(source, tmp_path / "Dataset001_A")
    export(settings)
    files = sorted(path for path in (tmp_path / "Dataset001_A").glob("*Tr/*"))
    times = {path: path.stat().st_ino for path in files}
    files[0].unlink()
    (tmp_path / "Dataset001_A" / "dataset.json").unlink()
    export(settings)
    assert {path: path.stat().st_ino for path in files} == times
    assert (tmp_path / "Dataset001_A" / "dataset.json").exists()


def test_what_a_killed_export_left_is_removed(source, tmp_path):
    there = tmp_path / "Dataset001_A"
    there.mkdir()
    (there / ".export.json.0123abcd.partial").touch()  # killed before anything else was there
    export(settings_for(source, there))
    assert not list(there.rglob("*.partial"))
    (there / "imagesTr" / ".case_00000_0000.nii.gz.0123abcd.partial").touch()
    export(settings_for(source, there))
    assert not list(there.rglob("*.partial"))


def test_two_exports_do_not_write_into_one_folder(source, tmp_path):
    settings = settings_for(source, tmp_path / "Dataset001_A")
    export(settings)
    with (
        filelock.FileLock(tmp_path / "Dataset001_A" / ".export" / "lock"),
        pytest.raises(InputError, match="Dataset001_A: another export writes into it"),
    ):
        export(settings)
    export(settings)


def test_nothing_is_mixed_into_another_export(source, tmp_path):
    settings = settings_for(source, tmp_path / "Dataset001_A")
    first = export(settings)
    other = dataclasses.replace(settings, test_fraction=0.4, split_seed=1)
    with pytest.raises(
        InputError, match=r"holds another export \(split\); expected a new folder, or --overwrite true"
    ):
        export(other)
    assert_same_cases(source, tmp_path / "Dataset001_A")
    second = export(dataclasses.replace(other, overwrite=True))
    assert len(second.split.test) == 2
    assert first.split != second.split
    held_out = [case.name for case in case_files.find_cases(tmp_path / "Dataset001_A") if case.held_out]
    assert held_out == list(second.split.test)
    export(dataclasses.replace(settings, output=str(tmp_path / "Dataset001_A"), layout="kits19", overwrite=True))
    assert sorted(path.name for path in (tmp_path / "Dataset001_A").iterdir() if path.is_dir()) == [".export", *NAMES]


def test_an_export_above_the_working_directory_is_replaced(source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = settings_for("../kits", "../Dataset001_A")
    export(settings)
    second = export(dataclasses.replace(settings, test_fraction=0.4, overwrite=True))
    held_out = [case.name for case in case_files.find_cases(tmp_path / "Dataset001_A") if case.held_out]
    assert held_out == list(second.split.test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[]", "found no list of files"),
        ('{"files": "a"}', "found no list of files"),
        ('{"files": [1]}', "found no list of files"),
        ('{"files": ["../kits/case_00000/imaging.nii.gz"]}', "expected files of its own folder"),
        ('{"files": ["/tmp/a"]}', "expected files of its own folder"),
    ],
)
def test_an_export_json_of_others_is_refused(source, tmp_path, content, message):
    there = tmp_path / "Dataset001_A"
    there.mkdir()
    (there / "export.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        export(settings_for(source, there, overwrite=True))
    assert str(caught.value).startswith(str(there / "export.json"))
    assert len(list(source.glob("*/imaging.nii.gz"))) == 5


def test_folds_of_different_cases_are_refused(source, tmp_path):
    folds = [{"train": NAMES[:3], "val": NAMES[3:4]}, {"train": NAMES[:2], "val": NAMES[2:3]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    for fold in range(2):
        settings = settings_for(source, tmp_path / "Dataset001_A", split_file=str(tmp_path / "folds.json"), fold=fold)
        with pytest.raises(InputError, match=r"folds\.json: case_00003 in only one of the folds . and .; expected"):
            export(settings)
    assert not (tmp_path / "Dataset001_A" / "imagesTr").exists()


def test_other_peoples_folders_are_left_alone(source, tmp_path):
    for folder in ("Dataset001_A", "Dataset002_B"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Dataset001_A" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds thesis\.tex, not written by an export"):
        export(settings_for(source, tmp_path / "Dataset001_A", overwrite=True))
    export(settings_for(source, tmp_path / "Dataset002_B"))
    for output in (source, source / "out", tmp_path):
        with pytest.raises(InputError, match="expected a folder apart"):
            export(settings_for(source, output, layout="kits19"))
    with pytest.raises(InputError, match="expected a name such as Dataset219_KiTS19"):
        export(settings_for(source, tmp_path / "out"))


def test_bad_cases(source, tmp_path):
    (source / NAMES[2] / "imaging.nii.gz").write_bytes(b"no")
    settings = settings_for(source, tmp_path / "Dataset001_A")
    with pytest.raises(CasesFailedError, match="1 of 5 cases failed"):
        export(settings)
    assert not (tmp_path / "Dataset001_A" / "imagesTr").exists()
    exported = export(dataclasses.replace(settings, skip_failed_cases=True))
    assert NAMES[2] not in (*exported.split.train, *exported.split.validation, *exported.split.test)


def test_leak_a_copied_case_cannot_be_in_imagestr_and_imagests(source, tmp_path):
    """A copy under another name is put on the same side, whatever the seed."""
    shutil.copytree(source / NAMES[1], source / "case_00077")
    for seed in range(4):
        there = tmp_path / f"Dataset00{seed}_A"
        export(settings_for(source, there, split_seed=seed))
        held_out = {case.name: case.held_out for case in case_files.find_cases(there)}
        assert held_out[NAMES[1]] == held_out["case_00077"]
