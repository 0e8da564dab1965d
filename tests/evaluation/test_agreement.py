"""On real predictions, the scores are those of the challenge's own code (kits23 with surface-distance)."""

import csv
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from kits_ml import cli
from kits_ml.evaluation.folders import find_label_maps, score_files

#: Our regions, and what the challenge calls them.
OFFICIAL_NAMES = {"kidney": "kidney_and_mass", "tumour": "tumour"}

#: The official scores have eight decimals: rounded, they are 5e-9 off at most.
DICE_TOLERANCE = 1e-8

CASES = [f"case_{number:05}" for number in range(0, 26, 2)]


@pytest.fixture(scope="module")
def real_predictions() -> Path:
    root = os.environ.get("KITS_ML_REAL_DATA")
    if not root:
        pytest.skip("KITS_ML_REAL_DATA is not set: no real predictions to compare with")
    folder = Path(root) / "nnunet-predictions"
    if not folder.is_dir():
        pytest.skip(f"{folder}: no such folder")
    return folder


@pytest.fixture(scope="module")
def official_scores(real_predictions) -> dict[str, dict[str, str]]:
    with (real_predictions / "official-scores.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_every_official_case_is_compared(official_scores):
    assert sorted(official_scores) == CASES


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_official_scores(case, real_predictions, official_scores):
    references = find_label_maps(real_predictions / "labels")
    predictions = find_label_maps(real_predictions / "predictions")
    found = score_files(case, reference=references[case], prediction=predictions[case])
    for region, name in OFFICIAL_NAMES.items():
        official = official_scores[case]
        assert found.regions[region].dice == pytest.approx(float(official[f"{name}_dice"]), abs=DICE_TOLERANCE)
        assert found.regions[region].surface_dice == pytest.approx(float(official[f"{name}_surface_dice"]), abs=1e-3)


def test_the_command_writes_the_official_scores(real_predictions, official_scores, tmp_path):
    chosen = ("case_00004", "case_00010")
    for case in chosen:
        predicted = tmp_path / "predictions" / f"{case}.nii.gz"
        reference = tmp_path / "references" / case / "segmentation.nii.gz"
        for path in (predicted, reference):
            path.parent.mkdir(parents=True, exist_ok=True)
        predicted.symlink_to(real_predictions / "predictions" / f"{case}.nii.gz")
        reference.symlink_to(find_label_maps(real_predictions / "labels")[case])
    options = {name: tmp_path / name for name in ("predictions", "references", "output")}
    options |= {"track": "false", "num_workers": 1}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(cli.main, ["evaluate", *arguments])
    assert result.exit_code == 0, result.output
    with (tmp_path / "output/scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["region"]) for row in rows] == [
        (case, one) for case in chosen for one in OFFICIAL_NAMES
    ]
    for row in rows:
        official, name = official_scores[row["case"]], OFFICIAL_NAMES[row["region"]]
        assert float(row["dice"]) == pytest.approx(float(official[f"{name}_dice"]), abs=DICE_TOLERANCE)
        assert float(row["surface_dice"]) == pytest.approx(float(official[f"{name}_surface_dice"]), abs=1e-3)
