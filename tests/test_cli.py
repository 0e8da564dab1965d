"""The command line is quick, thin, and agrees with the MLproject."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from kits_ml import cli, config

ROOT = Path(__file__).parents[1]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())


def test_help_needs_no_heavy_import():
    code = (
        "import sys\nfrom kits_ml.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'monai', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_project_offers_every_step():
    steps = {"prepare", "train", "study", "evaluate", "predict", "register", "promote", "rollback", "serve"}
    more = {"main", "phantom", "inspect", "fetch", "export", "compare", "selftest", "tune-postprocessing"}
    assert steps | more <= set(PROJECT["entry_points"])


def test_entry_points_are_commands():
    for name, entry_point in PROJECT["entry_points"].items():
        assert entry_point["command"] == f"python -m kits_ml {name}"
        assert name in cli.main.commands
        assert not entry_point.get("parameters")


@pytest.mark.parametrize("command", sorted(cli.main.commands))
def test_every_command_shows_its_settings(command):
    result = CliRunner().invoke(cli.main, [command, "--help"])
    assert result.exit_code == 0
    assert "--config" in result.output


def test_defaults_are_shown_as_they_are():
    shown = CliRunner().invoke(cli.main, ["train", "--help"]).output
    for field in dataclasses.fields(config.TrainSettings):
        assert f"--{field.name}" in shown
    assert f"[default: {config.TrainSettings().batch_size}]" in shown


def test_models_lists_what_there_is():
    options = ["--image_size", "32", "--base_filters", "2", "--depth", "1"]
    result = CliRunner().invoke(cli.main, ["models", *options])
    assert result.exit_code == 0, result.output
    header, *rows = result.output.splitlines()
    assert header.split() == ["name", "parameters", "GFLOPs", "architecture", "paper"]
    assert len(rows) >= 14
    # 3x3 convolutions 1-2-2, 2-4-4, 4-2-2 with 4 numbers a filter for normalisation; up 4 to 4 x 2; head 2-3
    parameters = 9 * (2 + 4 + 8 + 16 + 8 + 4) + 4 * (2 + 2 + 4 + 4 + 2 + 2) + (4 * 8 + 8) + (2 * 3 + 3)
    assert rows[0].split()[:2] == ["unet", str(parameters)]
    assert all("20" in row for row in rows)  # the paper's year


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--data", "nowhere"], "nowhere: no such folder"),
        (["evaluate"], "expected either --model with --data, or --predictions with --references"),
        (["evaluate", "--model", "m", "--references", "r"], "expected either --model with --data"),
        (["predict", "--image", "none.nii.gz", "--output", "seg.nii.gz"], "none.nii.gz: no such file"),
        (["predict", "--image", "none.nii.gz", "--output", "seg.png"], "ends in .nii.gz or .nii"),
        (["predict", "--image", "x", "--output", "seg.nii.gz", "--overlay", "o.jpg"], "ends in .png"),
        (["train", "--architecture", "unett"], "unknown 'unett'; did you mean 'unet'?"),
        (["train", "--image_size", "100"], "expected a multiple of 16 for depth 4"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("*.nii.gz"))
