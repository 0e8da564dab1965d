"""Layouts: KiTS19, KiTS21, KiTS23 and nnU-Net's are read by what lies there; numbers by their names."""

import json

import numpy as np
import pytest

from kits_ml.data import cases as case_files
from kits_ml.data import label_values, layouts, nnunet, volumes
from kits_ml.errors import InputError

KITS19 = {"background": 0, "kidney": 1, "tumor": 2}


@pytest.fixture
def make_dataset(tmp_path, make_case):
    """Writes a raw data set of nnU-Net with two cases: `make_dataset({"background": 0, ...}, to_file={...})`."""

    def make(names, *, to_file=None, ending=".nii.gz", channel="_0000", **description):
        folder = tmp_path / "Dataset001_Test"
        for number in range(2):
            case = make_case(tmp_path / "kits", f"case_{number:05d}", seed=number)
            image = volumes.read_image(case / "imaging.nii.gz")
            label_map = volumes.read_label_map(case / "segmentation.nii.gz")
            table = np.arange(256, dtype=np.uint8)
            for kits, value in (to_file or {}).items():
                table[kits] = value
            stored = table[label_map.array]
            volumes.write_image(folder / "imagesTr" / f"{case.name}{channel}{ending}", image.array, image.geometry)
            volumes.write_label_map(folder / "labelsTr" / f"{case.name}{ending}", stored, image.geometry)
        content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 2, "file_ending": ending}
        (folder / "dataset.json").write_text(json.dumps({**content, **description}))
        return folder

    return make


def loaded(folder):
    """Image and label arrays by case."""
    found = {case.name: case_files.load_case(case) for case in case_files.find_cases(folder)}
    return {name: (image.array, label_map.array) for name, (image, label_map) in found.items()}


def assert_same(first, second):
    assert list(first) == list(second) == ["case_00000", "case_00001"]
    for name in first:
        for one, other in zip(first[name], second[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("names", "to_file"),
    [
        (KITS19, {}),
        ({"background": 0, "tumour": 1, "Kidney": 2}, {1: 2, 2: 1}),
        ({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, {}),  # nnU-Net's own for KiTS2023
        ({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 3}, {2: 3}),
        ({"background": 0, "renal_parenchyma": 7, "renal tumor": 9, "ignore": 10}, {1: 7, 2: 9}),
        ({"background": 0, "left kidney": 1, "right-kidney": 2, "kidney_tumour": 3}, {2: 3}),
    ],
)
def test_nnunet_labels_are_read_by_name(make_dataset, tmp_path, names, to_file):
    folder = make_dataset(names, to_file=to_file)
    assert_same(loaded(folder), loaded(tmp_path / "kits"))


def test_nnunet_other_forms(make_dataset, tmp_path):
    """Version 1, the Decathlon's names without a channel number, unpacked files, and files named in dataset.json."""
    expected = None
    forms = [
        {"labels": {"0": "background", "1": "kidney", "2": "tumor"}, "modality": {"0": "CT"}, "channel_names": None},
        {"channel": ""},
        {"ending": ".nii"},
    ]
    for form in forms:
        form = {"names": KITS19, **form}
        if form.pop("channel_names", 0) is None:
            folder = make_dataset(**form)
            content = json.loads((folder / "dataset.json").read_text())
            del content["channel_names"], content["file_ending"]
            (folder / "dataset.json").write_text(json.dumps(content))
        else:
            folder = make_dataset(**form)
        expected = expected or loaded(tmp_path / "kits")
        assert_same(loaded(folder), expected)
        for path in folder.glob("*/*.nii*"):
            path.unlink()
    folder = make_dataset(KITS19)
    (folder / "labelsTr").rename(tmp_path / "elsewhere")
    entries = {
        name: {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"../elsewhere/{name}.nii.gz"}
        for name in expected
    }
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "dataset": entries}))
    assert_same(loaded(folder), expected)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (KITS19, {0: 0, 1: 1, 2: 2}),
        ({"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}, {0: 0, 1: 1, 2: 2, 3: 3}),
        # 3 is in kidney and masses, and no tumour: a cyst
        ({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, {0: 0, 1: 1, 2: 2, 3: 3}),
        ({"background": 0, "kidney and masses": [1, 2], "Tumor": [2]}, {0: 0, 1: 1, 2: 2}),
        ({"background": 0, "kidney": 1}, {0: 0, 1: 1}),
    ],
)
def test_mapping(names, expected):
    assert label_values.mapping_from_names(names, source="dataset.json") == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"background": 0, "kidney": 1, "liver": 2},
            "label 2 is liver; expected 0 background, and names such as kidney",
        ),
        ({"background": 0, "kidney": 1, "mass": 2}, "label 2 is mass"),
        ({"kidney": 0, "tumor": 1}, "label 0 is kidney"),
        ({"background": 0, "tumor": 1}, "expected one of them to be the kidney"),
        ({"background": 0, "kidney": "1"}, "label 'kidney' is '1'"),
    ],
)
def test_labels_that_cannot_be_mapped(make_dataset, names, message):
    with pytest.raises(InputError, match=message) as found:
        case_files.find_cases(make_dataset(names))
    assert "dataset.json" in str(found.value)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "expected one, the CT"),
        ({"file_ending": ".nrrd"}, r"file_ending '\.nrrd'"),
        ({"labels": []}, r"labels \[\], expected numbers by name"),
        ({"dataset": {"a": {}}}, "dataset entry of a"),
        ({"dataset": {"..": {"images": ["i"], "label": "l"}}}, r"dataset names a case '\.\.', expected a name"),
        ({"dataset": {"a/b": {"images": ["i"], "label": "l"}}}, "dataset names a case 'a/b', expected a name"),
        ({"dataset": {"": {"images": ["i"], "label": "l"}}}, "dataset names a case '', expected a name"),
        ({"dataset": ["a"]}, "dataset is list, expected one image and a label by case"),
        ({"dataset": {"a": ["i", "l"]}}, "dataset entry of a"),
        ({"dataset": {"a": {"images": [1], "label": "l"}}}, "dataset entry of a"),
        ({"dataset": {"a": {"images": "i", "label": "l"}}}, "dataset entry of a"),
        ({"dataset": {"a": {"images": None, "label": "l"}}}, "dataset entry of a"),
        ({"dataset": {"a": {"images": ["i"], "label": None}}}, "dataset entry of a"),
    ],
)
def test_descriptions_that_cannot_be_used(make_dataset, description, message):
    folder = make_dataset(KITS19)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, **description}))
    with pytest.raises(InputError, match=message):
        case_files.find_cases(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset.json: cannot be read"):
        case_files.find_cases(folder)


def test_values_that_dataset_json_does_not_name(make_dataset):
    folder = make_dataset({"background": 0, "kidney": 1})
    with pytest.raises(InputError, match=r"label values 0, 1, 2; expected whole numbers 0, 1 as dataset.json names"):
        loaded(folder)


def test_test_images_are_held_out_and_unlabelled_ones_left_out(make_dataset, caplog):
    folder = make_dataset(KITS19)
    for name in ("imagesTs", "labelsTs"):
        (folder / name).mkdir()
    (folder / "imagesTr" / "case_00001_0000.nii.gz").rename(folder / "imagesTs" / "case_00001_0000.nii.gz")
    with caplog.at_level("INFO"):
        assert [case.name for case in case_files.find_cases(folder)] == ["case_00000"]
    assert "1 test images without labels are left out" in caplog.text
    (folder / "labelsTr" / "case_00001.nii.gz").rename(folder / "labelsTs" / "case_00001.nii.gz")
    assert [case.held_out for case in case_files.find_cases(folder)] == [False, True]
    (folder / "imagesTr" / "case_00001_0000.nii.gz").touch()
    with pytest.raises(InputError, match="case_00001 in imagesTr and in imagesTs"):
        case_files.find_cases(folder)


def test_a_label_map_that_is_missing_is_named(make_dataset):
    folder = make_dataset(KITS19)
    (folder / "labelsTr" / "case_00000.nii.gz").unlink()
    with pytest.raises(InputError, match=r"labelsTr.case_00000.nii.gz: no such file"):
        loaded(folder)


def test_kits21_and_kits23(tmp_path, make_case):
    first, second = (make_case(tmp_path / "kits", f"case_{number:05d}", seed=number) for number in range(2))
    expected = loaded(tmp_path / "kits")
    (first / "segmentation.nii.gz").rename(first / "aggregated_MAJ_seg.nii.gz")
    for name in ("aggregated_AND_seg.nii.gz", "aggregated_OR_seg.nii.gz"):
        (first / name).write_bytes(b"")
    for name in ("raw", "segmentations"):
        (first / name).mkdir()
    (second / "instances").mkdir()
    label_map = volumes.read_label_map(second / "segmentation.nii.gz")
    cyst = label_map.array.copy()
    cyst[1, 5, 5] = 3
    volumes.write_label_map(second / "segmentation.nii.gz", cyst, label_map.geometry)
    expected["case_00001"][1][1, 5, 5] = 1
    assert_same(loaded(tmp_path / "kits"), expected)


def test_the_same_files_have_one_digest_in_any_layout(make_dataset, tmp_path):
    case, *_ = case_files.find_cases(make_dataset(KITS19))
    assert case.digest() == case_files.find_cases(tmp_path / "kits")[0].digest()
    names = {"background": 0, "tumor": 1, "kidney": 2}
    (tmp_path / "Dataset001_Test" / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": names, "file_ending": ".nii.gz"})
    )
    other, *_ = case_files.find_cases(tmp_path / "Dataset001_Test")
    assert other.digest() != case.digest()


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"digest": "a"}', "\xff"])
def test_findings_that_cannot_be_read_are_found_again(make_case, tmp_path, content):
    make_case(tmp_path / "kits", "case_00000")
    (case,) = case_files.find_cases(tmp_path / "kits")
    arguments = {"digest": "a", "record_path": tmp_path / "case_00000.json"}
    expected = layouts.survey_case(case, **arguments)
    arguments["record_path"].write_bytes(content.encode("latin-1"))
    assert layouts.survey_case(case, **arguments) == expected
    assert json.loads(arguments["record_path"].read_text()) == expected


def test_findings_are_kept(make_case, tmp_path, monkeypatch):
    make_case(tmp_path / "kits", "case_00000")
    (case,) = case_files.find_cases(tmp_path / "kits")
    arguments = {"digest": "a", "record_path": tmp_path / "case_00000.json"}
    expected = layouts.survey_case(case, **arguments)
    monkeypatch.delattr(case_files, "load_case")
    assert layouts.survey_case(case, **arguments) == expected


def test_the_folder_above_is_named(make_dataset):
    folder = make_dataset(KITS19)
    for path in (folder.parent / "kits").glob("case_*"):
        path.rename(folder / path.name)
    with pytest.raises(InputError, match=r"no cases found; .*Dataset001_Test holds some"):
        case_files.find_cases(folder.parent)
    assert nnunet.is_dataset(folder)
