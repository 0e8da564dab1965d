"""Bad input gets one clear line that names the file, a non-zero exit, and leaves everything else as it was."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from kits_ml import cli
from kits_ml.data import volumes


def _write(path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, volumes.kits_geometry(array.shape[:3], (3.0, 0.8, 0.8)).affine), path)


def _no_segmentation(case: Path) -> None:
    (case / "segmentation.nii.gz").unlink()


def _no_image(case: Path) -> None:
    (case / "imaging.nii.gz").unlink()


def _empty(case: Path) -> None:
    shutil.rmtree(case)
    case.mkdir()


def _other_shape(case: Path) -> None:
    _write(case / "segmentation.nii.gz", np.zeros((6, 64, 63), np.uint8))


def _other_place(case: Path) -> None:
    geometry = volumes.kits_geometry((6, 64, 64), (3.0, 0.8, 0.8))
    geometry.affine[0, 3] += 5
    volumes.write_label_map(case / "segmentation.nii.gz", np.zeros((6, 64, 64), np.uint8), geometry)


def _label_of_255(case: Path) -> None:
    _write(case / "segmentation.nii.gz", np.full((6, 64, 64), 255, np.uint8))


def _truncated(case: Path) -> None:
    whole = (case / "imaging.nii.gz").read_bytes()
    (case / "imaging.nii.gz").write_bytes(whole[: len(whole) // 2])


def _not_nifti(case: Path) -> None:
    (case / "imaging.nii.gz").write_bytes(gzip.compress(b"<html>not found</html>" * 99))


def _four_axes(case: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((6, 64, 64, 3), np.int16), np.eye(4)), case / "imaging.nii.gz")


def _not_a_number(case: Path) -> None:
    image = np.zeros((6, 64, 64), np.float32)
    image[0, 0, 0] = np.nan
    _write(case / "imaging.nii.gz", image)


def _no_foreground(case: Path) -> None:
    _write(case / "imaging.nii.gz", np.full((6, 64, 64), -1000, np.int16))


DAMAGES = {
    _no_segmentation: "segmentation.nii.gz: no such file; expected the segmentation of case_00001",
    _no_image: "imaging.nii.gz: no such file; expected the image of case_00001",
    _empty: "no such file",
    _other_shape: "segmentation.nii.gz: shape (6, 64, 63)",
    _other_place: "segmentation.nii.gz: affine",
    _label_of_255: "segmentation.nii.gz: label values 255; expected whole numbers",
    _truncated: "imaging.nii.gz: truncated or damaged",
    _not_nifti: "imaging.nii.gz: not a readable NIfTI file",
    _four_axes: "imaging.nii.gz: 4 axes of sizes (6, 64, 64, 3), expected a volume of three axes",
    _not_a_number: "imaging.nii.gz: 1 of 24576 voxels are NaN or infinite",
    _no_foreground: "imaging.nii.gz: no foreground",
}


@pytest.fixture
def folder(tmp_path, make_case, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number)
    return tmp_path


def _prepare(*arguments: str):
    options = ["--data", "cases", "--prepared", "prepared", "--image_size", "32", "--num_workers", "1"]
    return CliRunner().invoke(cli.main, ["prepare", *options, *arguments])


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_one_bad_case_is_named_and_the_others_are_prepared(damage, folder):
    damage(folder / "cases/case_00001")
    result = _prepare()
    assert result.exit_code == 1
    assert "1 of 4 cases failed:\n  case_00001: " in result.stderr
    assert DAMAGES[damage] in result.stderr
    assert "Traceback" not in result.output
    (store,) = [path for path in (folder / "prepared").iterdir() if path.is_dir()]
    assert sorted(path.stem for path in (store / "cases").iterdir()) == ["case_00000", "case_00002", "case_00003"]
    assert not list((store / "images").glob("case_00001*"))
    assert _prepare("--skip_failed_cases", "true").exit_code == 0


def test_cysts_are_read_as_kidney_with_a_note(folder, caplog):
    label_map = np.asarray(nib.load(folder / "cases/case_00001/segmentation.nii.gz").dataobj).copy()
    label_map[label_map == 2] = 3
    _write(folder / "cases/case_00001/segmentation.nii.gz", label_map)
    assert _prepare().exit_code == 0
    assert "of label 3 (cyst) are read as kidney" in caplog.text


def test_an_empty_folder(folder):
    shutil.rmtree(folder / "cases")
    assert "cases: no such folder" in _prepare().stderr
    (folder / "cases").mkdir()
    result = _prepare()
    assert result.exit_code == 1
    assert "cases: no cases found; expected folders such as case_00000/imaging.nii.gz" in result.stderr


def test_too_few_patients(folder):
    for number in (2, 3):
        shutil.rmtree(folder / f"cases/case_{number:05d}")
    result = _prepare()
    assert result.exit_code == 1
    assert "2 patients" in result.stderr
    assert len(result.stderr.strip().splitlines()[-1]) < 200


def test_evaluating_bad_predictions_scores_the_others(folder):
    shutil.copytree(folder / "cases", folder / "predictions")
    _other_shape(folder / "predictions/case_00001")
    options = ["--predictions", "predictions", "--references", "cases", "--output", "scored", "--num_workers", "1"]
    options += ["--track", "false"]
    result = CliRunner().invoke(cli.main, ["evaluate", *options])
    assert result.exit_code == 1
    assert "1 of 4 cases failed:\n  case_00001: predictions/case_00001/segmentation.nii.gz" in result.stderr
    lines = (folder / "scored/scores.csv").read_text().splitlines()
    assert sorted({line.split(",")[0] for line in lines[1:]}) == ["case_00000", "case_00002", "case_00003"]
    again = CliRunner().invoke(cli.main, ["evaluate", *options])
    assert again.exit_code == 1
    assert "scored/scores.csv: exists; expected a new folder, or --overwrite true" in again.stderr
    assert (folder / "scored/scores.csv").read_text().splitlines() == lines


def test_no_permission_is_no_traceback(folder):
    (folder / "prepared").write_text("a file where a folder should be")
    result = _prepare()
    assert result.exit_code == 1
    assert "prepared" in result.stderr
    assert "Traceback" not in result.stderr
