"""Evaluation leaves out what the model has seen, under any name and in any layout."""

from types import SimpleNamespace

import numpy as np
import pytest

from kits_ml.data import cases as case_files
from kits_ml.data import patients, volumes
from kits_ml.errors import InputError
from kits_ml.workflows import evaluate


def test_leak_a_training_scan_with_another_label_map(tmp_path, make_case):
    for number in range(3):
        make_case(tmp_path, f"case_{number:05d}", seed=number)
    cases = {case.name: case for case in case_files.find_cases(tmp_path)}
    images = {name: case_files.load_case(case)[0] for name, case in cases.items()}
    description = {
        "seen_cases": {"case_00000": cases["case_00000"].digest(), "case_00001": cases["case_00001"].digest()},
        "seen_slices": {
            name: patients.slice_digests(images[name].array)[:2] for name in ("case_00000", "case_00001")
        },
    }
    # other bytes of both files: the digest of the files says nothing any more
    image = images["case_00001"]
    volumes.write_label_map(cases["case_00001"].labels_path, np.zeros(image.array.shape), image.geometry)
    volumes.write_image(cases["case_00001"].image_path, image.array, volumes.kits_geometry((6, 64, 64), (1, 1, 1)))
    predictor = SimpleNamespace(description=description)
    assert list(evaluate.select_unseen(cases, predictor)) == ["case_00002"]
    del cases["case_00002"]
    with pytest.raises(InputError, match="all 2 cases were seen in training"):
        evaluate.select_unseen(cases, predictor)


def test_a_case_that_cannot_be_read_is_left_to_the_scoring(tmp_path, make_case):
    make_case(tmp_path, "case_00000")
    (tmp_path / "case_00000" / "imaging.nii.gz").write_bytes(b"no")
    cases = {case.name: case for case in case_files.find_cases(tmp_path)}
    predictor = SimpleNamespace(description={"seen_cases": {"a": "0"}, "seen_slices": {"a": ["0"]}})
    assert list(evaluate.select_unseen(cases, predictor)) == ["case_00000"]
