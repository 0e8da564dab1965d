"""Folders of label maps: what is missing, strange or broken is said, and the rest goes on."""

import re

import numpy as np
import pytest

from kits_ml.data import volumes
from kits_ml.errors import InputError
from kits_ml.evaluation import folders

GEOMETRY = volumes.kits_geometry((4, 6, 5), (3.0, 0.7, 0.7))


def _label_map(columns: int = 3) -> np.ndarray:
    label_map = np.zeros((4, 6, 5), np.uint8)
    label_map[1:3, 1:4, :columns] = 1
    label_map[1, 1, 1] = 2
    return label_map


@pytest.fixture
def references(tmp_path):
    for case in ("case_00000", "case_00001", "case_00002"):
        volumes.write_label_map(tmp_path / "true" / case / "segmentation.nii.gz", _label_map(), GEOMETRY)
    (tmp_path / "true" / "case_00000" / "imaging.nii.gz").touch()
    return tmp_path / "true"


@pytest.fixture
def predictions(tmp_path):
    volumes.write_label_map(tmp_path / "pred" / "case_00000.nii.gz", _label_map(), GEOMETRY)
    volumes.write_label_map(tmp_path / "pred" / "case_00001" / "segmentation.nii.gz", _label_map(2), GEOMETRY)
    volumes.write_label_map(tmp_path / "pred" / "case_00002.nii", _label_map(), GEOMETRY)
    return tmp_path / "pred"


def test_both_ways_to_name_a_prediction(predictions, references):
    found, failures = folders.score_folders(predictions, references)
    assert not failures
    assert [scores.case for scores in found] == ["case_00000", "case_00001", "case_00002"]
    # 2 slices x 3 rows x 2 columns of 2 x 3 x 3: 2 * 12 / (12 + 18)
    assert [scores.regions["kidney"].dice for scores in found] == [1.0, 2 * 12 / 30, 1.0]
    assert found[0].slice_spacing_mm == pytest.approx(3.0)
    assert found[0].regions["kidney"].volume_true_ml == pytest.approx(18 * 3 * 0.7 * 0.7 / 1000)


def test_workers_give_the_same(predictions, references):
    alone = folders.score_folders(predictions, references)
    together = folders.score_folders(predictions, references, num_workers=2)
    assert repr(together) == repr(alone)


def test_a_missing_prediction_scores_worst(predictions, references):
    (predictions / "case_00000.nii.gz").unlink()
    (first, *others), _ = folders.score_folders(predictions, references)
    assert first.missing_prediction
    assert {scores.dice for scores in first.regions.values()} == {0.0}
    assert not any(scores.missing_prediction for scores in others)


def test_failures_are_named_and_the_others_scored(predictions, references):
    wide = volumes.kits_geometry((4, 6, 7), (3.0, 0.7, 0.7))
    volumes.write_label_map(predictions / "case_00000.nii.gz", np.zeros((4, 6, 7), np.uint8), wide)
    (predictions / "case_00002.nii").write_bytes(b"no volume")
    volumes.write_label_map(predictions / "case_00009.nii.gz", _label_map(), GEOMETRY)
    scored, messages = folders.score_folders(predictions, references)
    assert set(messages) == {"case_00000", "case_00002", "case_00009"}
    path = predictions / "case_00000.nii.gz"
    assert messages["case_00000"] == f"{path}: found shape (4, 6, 7), expected the reference's (4, 6, 5)"
    assert "case_00002.nii: not a readable NIfTI file" in messages["case_00002"]
    assert "case_00009.nii.gz: prediction without reference" in messages["case_00009"]
    assert [scores.case for scores in scored] == ["case_00001"]


def test_a_shifted_grid_is_another_grid(predictions, references):
    shifted = volumes.kits_geometry((4, 6, 5), (3.0, 0.7, 0.7))
    shifted.affine[0, 3] += 1.0
    volumes.write_label_map(predictions / "case_00000.nii.gz", _label_map(), shifted)
    _, failures = folders.score_folders(predictions, references)
    assert re.search(r"case_00000\.nii\.gz: found affine .* expected the reference's", failures["case_00000"])


def test_the_spacing_is_the_references(predictions, references):
    """The prediction's is another one, by as much as passes for the same grid: 10 um at the last voxel."""
    other = volumes.kits_geometry((4, 6, 5), (3.0 + 0.009 / 3, 0.7 + 0.009 / 5, 0.7 + 0.009 / 4))
    volumes.write_label_map(predictions / "case_00001" / "segmentation.nii.gz", _label_map(2), other)
    scored, failures = folders.score_folders(predictions, references)
    assert not failures
    found = scored[1].regions["kidney"]
    assert found.hd95_mm == pytest.approx(0.7, abs=1e-6)  # one column less; the prediction's columns: 0.70225
    assert found.volume_pred_ml == pytest.approx(12 * 3 * 0.7 * 0.7 / 1000, rel=1e-6)
    assert scored[1].slice_spacing_mm == pytest.approx(3.0, abs=1e-6)


def test_folders_without_label_maps(tmp_path, references):
    with pytest.raises(InputError, match="no such folder"):
        folders.score_folders(tmp_path / "nowhere", references)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no label maps; expected <case>\.nii\.gz"):
        folders.score_folders(tmp_path / "empty", references)


def test_a_case_that_is_there_twice(predictions, references):
    volumes.write_label_map(predictions / "case_00001.nii.gz", _label_map(), GEOMETRY)
    both = r"found case_00001/segmentation\.nii\.gz and case_00001\.nii\.gz; expected one label map a case"
    with pytest.raises(InputError, match=both):
        folders.score_folders(predictions, references)


def test_other_files_are_not_cases(predictions):
    (predictions / ".case_00005.nii.gz.1.partial").touch()
    (predictions / ".case_00006.nii.gz").touch()
    (predictions / "notes.txt").touch()
    (predictions / "plots").mkdir()
    assert list(folders.find_label_maps(predictions)) == ["case_00000", "case_00001", "case_00002"]
