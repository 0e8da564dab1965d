"""Splits: fractions, folds, strata, fixed lists, and attempts to get a patient onto two sides."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits_ml.config import PreprocessingSettings, SplitSettings
from kits_ml.data import cases as case_files
from kits_ml.data import patients, slices, splits, volumes
from kits_ml.errors import InputError

SETTINGS = SplitSettings(validation_fraction=0.2, test_fraction=0.2)


def volumes_of(num_tumours: int, num_without: int = 0) -> dict[str, float]:
    """Tumours of 1, 2, 3, ... ml, then cases without."""
    sizes = [float(size) for size in range(1, num_tumours + 1)] + [0.0] * num_without
    return {f"case_{number:05d}": size for number, size in enumerate(sizes)}


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_fractions_are_shares_of_patients():
    split = splits.split_patients(volumes_of(20), SETTINGS)
    # 20 % of 20 patients are 4; 20 - 4 - 4 = 12
    assert (len(split.train), len(split.validation), len(split.test)) == (12, 4, 4)


def test_same_seed_same_split_whatever_the_order_of_cases():
    forward = volumes_of(15, 5)
    backward = dict(reversed(forward.items()))
    assert splits.split_patients(forward, SETTINGS) == splits.split_patients(backward, SETTINGS)
    other = dataclasses.replace(SETTINGS, split_seed=1)
    assert splits.split_patients(forward, SETTINGS) != splits.split_patients(forward, other)


@pytest.mark.parametrize("seed", range(5))
def test_each_part_has_small_and_large_tumours_and_none(seed):
    tumour_ml = volumes_of(20, 20)
    split = splits.split_patients(tumour_ml, dataclasses.replace(SETTINGS, split_seed=seed, test_fraction=0.25))
    # strata: 1-5, 6-10, 11-15, 16-20 ml and 20 without; every fourth of them is for test: 10 cases, 5 without
    test = [tumour_ml[name] for name in split.test]
    assert sum(size == 0 for size in test) == 5
    counts = np.histogram(test, bins=[0.5, 5.5, 10.5, 15.5, 20.5])[0]
    assert counts.sum() == 5
    assert (counts >= 1).all()


def test_folds_share_out_the_patients_that_are_not_for_test():
    settings = SplitSettings(test_fraction=0.2, num_folds=4)
    folds = splits.all_folds(volumes_of(20, 5), settings)
    # 25 patients, 5 for test, 20 in 4 folds of 5
    assert [len(split.validation) for split in folds] == [5, 5, 5, 5]
    assert len({split.test for split in folds}) == 1
    seen = [name for split in folds for name in split.validation]
    assert sorted([*seen, *folds[0].test]) == sorted(volumes_of(20, 5))
    one = splits.split_patients(volumes_of(20, 5), dataclasses.replace(settings, fold=2))
    assert one == folds[2]


def test_the_test_part_is_the_same_for_any_number_of_folds():
    tests = {splits.split_patients(volumes_of(30), SplitSettings(num_folds=number)).test for number in (0, 2, 5, 10)}
    assert len(tests) == 1


def test_folds_need_no_test_part():
    folds = splits.all_folds(volumes_of(6), SplitSettings(test_fraction=0, num_folds=3))
    assert [(len(split.train), len(split.validation), len(split.test)) for split in folds] == [(4, 2, 0)] * 3


@pytest.mark.parametrize(
    ("num_cases", "options", "needed"),
    [(2, {}, 3), (4, {"num_folds": 4}, 5), (1, {"test_fraction": 0.0, "num_folds": 2}, 2)],
)
def test_too_few_patients(num_cases, options, needed):
    with pytest.raises(InputError, match=f"{num_cases} patients are too few .* expected at least {needed}"):
        splits.split_patients(volumes_of(num_cases), SplitSettings(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_folds": 1}, "num_folds: found 1"),
        ({"num_folds": 5, "fold": 5}, "expected 0 to 4"),
        ({"num_folds": 5, "split_file": "s.json"}, "one of the two"),
        ({"fold": 1}, "fold: found 1 without num_folds"),
    ],
)
def test_settings_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        SplitSettings(**options)


@given(
    group_of=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    sizes=st.lists(st.floats(0, 500), min_size=40, max_size=40),
    validation_fraction=st.floats(0, 0.9),
    test_fraction=st.floats(0, 0.9),
    num_folds=st.sampled_from([0, 2, 3, 5]),
    seed=st.integers(0, 2**32),
)
def test_no_patient_is_ever_on_two_sides(group_of, sizes, validation_fraction, test_fraction, num_folds, seed):
    names = [f"case_{number:05d}" for number in range(len(group_of))]
    groups = {name: f"patient {group}" for name, group in zip(names, group_of, strict=True)}
    tumour_ml = dict(zip(names, sizes, strict=False))
    found = patients.find_patients({name: [] for name in names}, groups=groups)
    settings = SplitSettings(
        validation_fraction=validation_fraction, test_fraction=test_fraction, num_folds=num_folds, split_seed=seed
    )
    try:
        folds = splits.all_folds(tumour_ml, settings, patients=found)
    except InputError as error:
        if "too few" not in str(error):
            raise
        return
    for split in folds:
        parts = [{groups[name] for name in getattr(split, part)} for part in splits.PARTS]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        assert sorted([*split.train, *split.validation, *split.test]) == names
        assert split.train
    if num_folds:
        validated = [name for split in folds for name in split.validation]
        assert sorted([*validated, *folds[0].test]) == names
        assert len({split.test for split in folds}) == 1


# Fixed lists

NAMES = [f"case_{number:05d}" for number in range(6)]


def fixed(path, *, fold: int = 0, tumour_ml=None, **options) -> splits.Split:
    settings = SplitSettings(split_file=str(path), fold=fold)
    return splits.split_patients(tumour_ml or volumes_of(6), settings, **options)


def test_our_own_lists(tmp_path):
    first = splits.split_patients(volumes_of(6), SETTINGS)
    path = write(tmp_path / "split.json", {"settings": {"split_seed": 0}, **first.to_dict()})
    assert fixed(path) == first


def test_nnunet_folds(tmp_path):
    folds = [{"train": NAMES[2:], "val": NAMES[:2]}, {"train": NAMES[:4], "val": NAMES[4:]}]
    path = write(tmp_path / "splits_final.json", folds)
    split = fixed(path, fold=1)
    assert (split.train, split.validation, split.test) == (tuple(NAMES[:4]), tuple(NAMES[4:]), ())
    with pytest.raises(InputError, match=r"fold 2 is not in it; expected 0 to 1"):
        fixed(path, fold=2)


def test_tables(tmp_path):
    rows = zip(NAMES, ["train", "train", "train", "val", "validation", "test"], strict=True)
    path = write(tmp_path / "parts.csv", "case,part\n" + "".join(f"{name},{part}\n" for name, part in rows))
    split = fixed(path)
    assert (split.train, split.validation, split.test) == (tuple(NAMES[:3]), tuple(NAMES[3:5]), (NAMES[5],))
    rows = zip(NAMES, ["0", "1", "0", "1", "2", "test"], strict=True)
    path = write(tmp_path / "folds.csv", "case,fold\n" + "".join(f"{name},{fold}\n" for name, fold in rows))
    split = fixed(path, fold=1)
    assert split.validation == (NAMES[1], NAMES[3])
    assert split.train == (NAMES[0], NAMES[2], NAMES[4])
    assert split.test == (NAMES[5],)


def test_cases_that_are_not_listed_are_left_out_and_said(tmp_path, caplog):
    path = write(tmp_path / "split.json", {"train": NAMES[:2], "validation": [NAMES[2]]})
    with caplog.at_level("INFO"):
        split = fixed(path)
    assert (*split.train, *split.validation, *split.test) == tuple(NAMES[:3])
    assert "3 of 6 cases are not listed and are left out: case_00003, case_00004, case_00005" in caplog.text


def test_unknown_cases_are_an_error_but_unusable_ones_are_not(tmp_path):
    path = write(tmp_path / "split.json", {"train": [*NAMES, "case_77777"], "validation": []})
    with pytest.raises(InputError, match="1 of its cases are not in the data: case_77777"):
        fixed(path)
    assert fixed(path, unusable=["case_77777"]).train == tuple(NAMES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.json", "{", "cannot be read"),
        ("s.json", "[]", "empty list"),
        ("s.json", '{"a": []}', "found a mapping of a"),
        ("s.json", '{"train": "case_00000"}', "train holds str"),
        ("s.json", '{"train": [], "val": ["case_00000"]}', "no usable case for training"),
        ("s.csv", "name\nx\n", "found columns name; expected case, part"),
        ("s.csv", "case,part\ncase_00000,maybe\n", "part 'maybe' of case_00000"),
        ("s.csv", "case,fold\ncase_00000,0\ncase_00001,2\n", r"folds \[0, 2\]"),
        ("s.csv", "case,fold\ncase_00000,x\n", "fold 'x'"),
        ("s.csv", "case,part\n", "no rows"),
        ("s.pkl", "", r"expected fixed lists as .json or .csv"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as found:
        fixed(write(tmp_path / name, content))
    assert name in str(found.value)
    assert "\n" not in str(found.value)


def test_missing_file(tmp_path):
    for name in ("none.json", "none.csv"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            fixed(tmp_path / name)


# Groups


def test_groups_chain():
    groups = {"a": "x", "b": "x", "c": "y"}
    found = patients.find_patients({"a": [], "b": ["1"], "c": ["1"], "d": []}, groups=groups)
    # a and b by group, b and c by a shared slice: one patient; d alone
    assert found == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_the_copy_in_kits23_is_known():
    assert patients.find_patients({"case_00185": [], "case_00400": []})["case_00400"] == "case_00185"
    assert patients.find_patients({"case_00400": []}) == {"case_00400": "case_00400"}


def test_groups_file(tmp_path):
    path = write(tmp_path / "groups.csv", "case,site,group\na,1,p\nb,2,p\nc,1,\n")
    assert patients.read_groups(path) == {"a": "p", "b": "p"}
    with pytest.raises(InputError, match="b is in the groups p and q"):
        patients.read_groups(write(tmp_path / "two.csv", "case,group\nb,p\nb,q\n"))
    with pytest.raises(InputError, match="found columns case, patient"):
        patients.read_groups(write(tmp_path / "columns.csv", "case,patient\nb,p\n"))


# Attempts to leak


def test_leak_overlapping_parts():
    with pytest.raises(InputError, match="a is in train and in test"):
        splits.Split(train=("a",), validation=("b",), test=("a",))


def test_leak_overlapping_lists_in_a_file(tmp_path):
    for name, content in [
        ("s.json", {"train": ["case_00000", "case_00001"], "val": ["case_00001"]}),
        ("f.json", [{"train": NAMES[:1], "val": NAMES[1:]}, {"train": NAMES, "val": NAMES}]),
        ("s.csv", "case,part\ncase_00000,train\ncase_00000,test\n"),
        ("f.csv", "case,fold\ncase_00000,0\ncase_00000,1\n"),
    ]:
        with pytest.raises(InputError, match=f"{name}: case_0000. is in "):
            fixed(write(tmp_path / name, content))


def test_leak_a_list_that_separates_a_patient(tmp_path):
    path = write(tmp_path / "split.json", {"train": NAMES[:3], "validation": NAMES[3:]})
    with pytest.raises(InputError, match=r"case_00002 \(train\) and case_00003 \(validation\) are of one patient"):
        fixed(path, patients={"case_00003": "case_00002", "case_00002": "case_00002"})


def test_leak_cases_held_out_by_their_folder(tmp_path):
    held_out = ["case_00001", "case_00002"]
    assert splits.split_patients(volumes_of(6), SETTINGS, held_out=held_out).test == tuple(held_out)
    with pytest.raises(InputError, match="case_00001 lie among the test cases"):
        fixed(write(tmp_path / "split.json", {"train": NAMES[:2]}), held_out=held_out)
    same = {"case_00000": "case_00000", "case_00001": "case_00000"}
    with pytest.raises(InputError, match="case_00000, case_00001 are of one patient, but only case_00001"):
        splits.split_patients(volumes_of(6), SETTINGS, held_out=held_out, patients=same)


def test_leak_a_scan_under_another_name(tmp_path, make_case):
    """The same voxels, as another file, in another orientation, and as a part of a longer series."""
    make_case(tmp_path, "case_00000", seed=1, num_slices=6)
    original = volumes.read_image(tmp_path / "case_00000" / "imaging.nii.gz")
    turned = np.diag([-0.8, -0.8, 3.0, 1.0])  # LPS, slices last
    other = volumes.Geometry(shape=(64, 64, 6), affine=turned)
    volumes.write_image(tmp_path / "turned.nii", original.array, other)
    short = volumes.kits_geometry((3, 64, 64), original.spacing_mm)
    volumes.write_image(tmp_path / "short.nii.gz", original.array[2:5], short)
    make_case(tmp_path, "case_00009", seed=2)
    paths = {
        "original": original.path,
        "turned": tmp_path / "turned.nii",
        "short": tmp_path / "short.nii.gz",
        "different": tmp_path / "case_00009" / "imaging.nii.gz",
    }
    digests = {name: patients.slice_digests(volumes.read_image(path).array) for name, path in paths.items()}
    found = patients.find_patients(digests)
    assert found["turned"] == found["short"] == found["original"]
    assert found["different"] == "different"


def test_blank_slices_are_no_evidence():
    air = np.full((2, 4, 4), -1000, np.int16)
    air[:, 1, 1] = -1024
    assert patients.slice_digests(air) == []
    assert patients.slice_digests(np.full((2, 4, 4), 30.0, np.float32)) == []


def test_whole_hu_are_the_same_in_any_type():
    image = np.arange(32, dtype=np.int16).reshape(2, 4, 4)
    assert patients.slice_digests(image) == patients.slice_digests(image.astype(np.float32))
    assert len(patients.slice_digests(image)) == 2


def test_leak_slices_of_a_case_through_the_store(tmp_path, make_case):
    settings = PreprocessingSettings(image_size=16)
    store = tmp_path / "store"
    for number, name in enumerate(NAMES[:3]):
        make_case(tmp_path / "data", name, seed=number)
    for case in case_files.find_cases(tmp_path / "data"):
        slices.prepare_case(case, digest=case.digest(), store=store, settings=settings)
    prepared = slices.finish_store(store, NAMES[:3], settings)
    split = splits.split_patients(prepared.tumour_volumes_ml(), SETTINGS)
    positions = [prepared.positions_of(getattr(split, part)) for part in splits.PARTS]
    sides = [{prepared.index[number]["case"] for number in numbers} for numbers in positions]
    assert [len(side) for side in sides] == [1, 1, 1]
    assert len(set.union(*sides)) == 3
    for wish in (["case_00000/0001"], ["case_00000 "], ["case_99999"]):
        with pytest.raises(InputError, match="not in the store"):
            prepared.positions_of(wish)
    # 6 slices of 3 mm with 0.8 mm pixels: voxels of 0.00192 ml
    label_map = volumes.read_label_map(tmp_path / "data" / NAMES[0] / "segmentation.nii.gz").array
    assert prepared.tumour_volumes_ml()[NAMES[0]] == pytest.approx((label_map == 2).sum() * 0.00192)
