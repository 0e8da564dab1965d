"""`kits-ml compare`: tables or runs in, a folder with a page out, or one clear line."""

import csv
import json
import re

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner

from kits_ml import cli
from kits_ml.config import CompareSettings
from kits_ml.evaluation import tables
from kits_ml.scores import RegionScores
from kits_ml.workflows.compare import read_scores
from tests.tracking.stores import tracked_in

QUICK = ("--num_bootstrap", "200")


def _invoke(*arguments: str):
    return CliRunner().invoke(cli.main, ["compare", *QUICK, *arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_own(path, dice_of_tumour) -> None:
    def scores(region: str, dice: float) -> RegionScores:
        options = dict.fromkeys(("iou", "precision", "recall", "volume_true_ml", "volume_pred_ml"), 0.5)
        return RegionScores(region=region, dice=float(dice), volume_error_ml=0, **options)

    tables.write_scores(
        path,
        [
            tables.CaseScores(
                case=f"case_{at:05d}", regions={"kidney": scores("kidney", 0.9), "tumour": scores("tumour", dice)}
            )
            for at, dice in enumerate(dice_of_tumour)
        ],
    )


def _write_long(path, algorithms, num_cases: int = 20, seeds: int = 2) -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.9, num_cases)
    rows = ["case,algorithm,seed,score"]
    for name, shift in algorithms.items():
        for seed in range(seeds):
            noise = rng.normal(shift, 0.01, num_cases)
            rows += [f"case_{at:05d},{name},{seed},{base[at] + noise[at]}" for at in range(num_cases)]
    path.write_text("\n".join(rows) + "\n")


def _rows(path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_anyones_table(folder):
    _write_long(folder / "table.csv", {"unet": 0, "better": 0.08, "same": 0, "worse": -0.08})
    (folder / "costs.csv").write_text("algorithm,num_parameters,gflops\nunet,1000,2.5\nbetter,2000,\nother,1,1\n")
    result = _invoke("--scores", "table.csv", "--costs", "costs.csv", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "Dice, against unet with 20 patients: better is better and worse is worse." in result.output
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *("against_control.csv", "algorithms.csv", "case_differences.png", "cases.csv", "comparison.html"),
        *("comparison.json", "critical_difference.png", "differences.png", "pairs.csv", "rank_distribution.csv"),
        *("rank_distribution.png", "significance_map.png"),
    ]
    content = json.loads((out / "comparison.json").read_text())
    assert content["settings"]["control"] == "unet"
    assert content["num_cases"] == len(content["patients"]["cases"]) == 20
    assert content["patients"]["num_replicates"] == {"unet": 2, "better": 2, "same": 2, "worse": 2}
    assert [row["shown"] for row in _rows(out / "against_control.csv")][::2] == ["better", "worse"]
    algorithms = _rows(out / "algorithms.csv")
    assert [row["algorithm"] for row in algorithms] == ["unet", "better", "same", "worse"]
    assert (algorithms[0]["num_parameters"], algorithms[1]["gflops"]) == ("1000.0", "")
    assert len(_rows(out / "pairs.csv")) == 6
    assert len(_rows(out / "rank_distribution.csv")) == 2 * 4 * 4
    page = (out / "comparison.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "GFLOPs" in page
    assert "training, min" not in page  # nobody said


def test_the_same_twice_is_the_same(folder):
    _write_long(folder / "table.csv", {"unet": 0, "a": 0.01})

    def found() -> dict[str, bytes]:
        result = _invoke("--scores", "table.csv", "--output", "out", "--overwrite", "true")
        assert result.exit_code == 0, result.output
        return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}

    first, second = found(), found()
    assert first == second


def test_our_own_tables_and_seeds(folder):
    dice = np.linspace(0.3, 0.8, 12)
    _write_own(folder / "unet" / "scores.csv", dice)
    _write_own(folder / "a0.csv", dice + 0.1)
    _write_own(folder / "a1.csv", dice)
    sources = "unet=unet, a=a0.csv a=a1.csv"
    result = _invoke("--scores", sources, "--region", "tumour", "--output", "out")
    assert result.exit_code == 0, result.output
    (row,) = _rows(folder / "out/against_control.csv")
    assert float(row["mean_difference"]) == pytest.approx(0.05)  # the mean of 0.1 and 0
    assert "Tumour Dice" in result.output
    assert not (folder / "out/critical_difference.png").exists()  # of two algorithms there is none


@pytest.fixture
def store(folder):
    with tracked_in(f"sqlite:///{folder / 'mlflow.db'}"):
        mlflow.create_experiment("study", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("study")
        yield folder


def _log(folder, architecture: str, dice, part: str = "test") -> None:
    mlflow.log_param("architecture", architecture)
    mlflow.log_metrics({"num_parameters": 1000, "training_minutes": 2})
    _write_own(folder / "tmp" / "scores.csv", dice)
    mlflow.log_artifact(str(folder / "tmp" / "scores.csv"), part)


def test_runs_and_the_study_above_them(store):
    dice = np.linspace(0.3, 0.8, 12)
    with mlflow.start_run() as parent:
        for architecture, shift in (("unet", 0.0), ("dense_unet", 0.1)):
            with mlflow.start_run(nested=True, run_name=architecture):
                for seed in range(2):
                    with mlflow.start_run(nested=True) as run:
                        _log(store, architecture, dice + shift + 0.01 * seed)
                mlflow.start_run(nested=True)
                _log(store, architecture, dice * 0)
                mlflow.end_run("FAILED")
                with mlflow.start_run(nested=True, tags={"trial": "0"}):  # its scores are of validation cases
                    _log(store, architecture, dice * 0, part="validation")
                with mlflow.start_run(nested=True):  # a training that only validates
                    _log(store, architecture, dice + shift, part="validation")
    result = _invoke("--scores", f"runs:/{parent.info.run_id}", "--region", "tumour", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "dense_unet is better than unet (mean difference +0.100" in result.output
    rows = _rows(store / "out/algorithms.csv")
    assert [(row["num_runs"], row["training_minutes"], row["gflops"]) for row in rows] == [("2", "2.0", "")] * 2
    records, _ = read_scores(CompareSettings(scores=f"runs:/{parent.info.run_id}", part="validation"))
    assert [record.algorithm for record in records] == ["unet"] * 12 + ["dense_unet"] * 12  # and not those of trials
    result = _invoke("--scores", f"mine=runs:/{parent.info.run_id}", "--output", "three")
    assert result.exit_code == 1
    assert "found runs of unet, dense_unet, expected one algorithm's for a name" in result.output
    _write_own(store / "mine.csv", dice)
    result = _invoke("--scores", f"unet=mine.csv,new=runs:/{run.info.run_id}", "--output", "two")
    assert result.exit_code == 0, result.output
    assert "new is better than unet" in result.output
    with mlflow.start_run() as empty:
        pass
    for uri, message in (
        (f"runs:/{empty.info.run_id}", "found no test/scores.csv in the run or beneath it"),
        ("runs:/nothing", "runs:/nothing: cannot be read"),
    ):
        result = _invoke("--scores", uri, "--output", "three")
        assert result.exit_code == 1
        assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "setting 'scores' is required"),
        (("--scores", " , "), "scores: found nothing"),
        (("--scores", "none.csv"), "none.csv: no such file"),
        (("--scores", "table.csv table.csv"), "found table.csv more than once"),
        (("--scores", "unet="), "found 'unet=', expected NAME=scores.csv"),
        (
            ("--scores", "table.csv", "--control", "unett"),
            "'unett' is not among the algorithms; did you mean 'unet'?",
        ),
        (
            ("--scores", "table.csv", "--metric", "as_reported/mean_iou"),
            "as_reported/mean_iou: found a metric as reported",
        ),
        (
            ("--scores", "table.csv", "--equivalence_margin", "0"),
            "equivalence_margin: found 0.0, expected more than 0",
        ),
        (("--scores", "alone.csv"), "found unet, expected two or more to compare"),
        (("--scores", "patient.csv"), "found 1 patient in common, expected two or more"),
        (("--scores", "other.csv"), "y is missing from a; expected the same for all, or --on_mismatch intersect"),
        (("--scores", "table.csv", "--costs", "table.csv"), "found columns case, algorithm, seed, score; expected"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, folder):
    _write_long(folder / "table.csv", {"unet": 0, "a": 0}, num_cases=3)
    _write_long(folder / "alone.csv", {"unet": 0}, num_cases=3)
    _write_long(folder / "patient.csv", {"unet": 0, "a": 0}, num_cases=1)
    (folder / "other.csv").write_text("case,algorithm,score\nx,unet,1\ny,unet,1\nz,unet,0\nx,a,1\nz,a,1\n")
    result = _invoke(*arguments, "--output", "out")
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (folder / "out").exists()


def test_the_rest_is_compared_when_asked(folder):
    (folder / "other.csv").write_text("case,algorithm,score\nx,unet,1\ny,unet,1\nz,unet,0\nx,a,1\nz,a,1\n")
    result = _invoke("--scores", "other.csv", "--on_mismatch", "intersect", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "1 patient was left out that not all algorithms have" in result.output
    assert "2 patients cannot show any difference" in result.output


def test_an_output_that_exists_is_left_alone(folder):
    _write_long(folder / "table.csv", {"unet": 0, "a": 0}, num_cases=3)
    assert _invoke("--scores", "table.csv", "--output", "out").exit_code == 0
    (folder / "out/comparison.json").write_text("mine")
    result = _invoke("--scores", "table.csv", "--output", "out")
    assert result.exit_code == 1
    assert "comparison.json: exists; expected a new folder, or --overwrite true" in result.output
    assert (folder / "out/comparison.json").read_text() == "mine"
