"""What MLflow refuses is said in a line, not by a traceback."""

import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException, RestException

from kits_ml import cli
from kits_ml.evaluation import selftest


class _OfAPlugin(MlflowException):
    """Defined outside `mlflow.exceptions`."""


def test_a_deleted_experiment_gets_one_line(client, tmp_path, monkeypatch):
    client.delete_experiment(client.create_experiment("gone", (tmp_path / "artifacts").as_uri()))
    monkeypatch.setattr(selftest, "run_selftest", lambda subjects: [])  # takes seconds, and is tested elsewhere
    arguments = ["--predictions", str(tmp_path), "--references", str(tmp_path), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.main, ["evaluate", *arguments, "--experiment", "gone"])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: MLflow: Cannot set a deleted experiment 'gone'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("a"), True),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "a"}), True),
        (_OfAPlugin("a"), True),
        (ValueError("a fault of the program, whose traceback is wanted"), False),
    ],
)
def test_which_errors_are_of_mlflow(error, expected):
    assert cli._is_of_mlflow(error) == expected
