"""Addresses of models; those in a registry are tested where models are registered."""

import os
import subprocess
import sys

import pytest

from kits_ml.errors import InputError
from kits_ml.tracking.addresses import local_folder, pinned, split_addresses
from tests.tracking.registry_cases import add_version


def test_several_addresses():
    assert split_addresses("models:/a@champion") == ["models:/a@champion"]
    assert split_addresses("models:/a/1, folder/b") == ["models:/a/1", "folder/b"]
    with pytest.raises(InputError, match="model: found 'a,,b', expected addresses divided by single commas"):
        split_addresses("a,,b")
    with pytest.raises(InputError, match="model: found a more than once"):
        split_addresses("a,b, a")


def test_a_folder(tmp_path):
    assert local_folder(str(tmp_path)) == tmp_path
    (tmp_path / "artifacts" / "model").mkdir(parents=True)
    assert local_folder(str(tmp_path)) == tmp_path / "artifacts" / "model"
    assert pinned(str(tmp_path)) == str(tmp_path)
    with pytest.raises(InputError, match="gone: no such folder; expected models:/NAME@ALIAS"):
        local_folder("gone")


HEAVY = """
import sys
import kits_ml.cli, kits_ml.workflows.predict, kits_ml.workflows.predict_folder  # as `kits-ml predict` does
from kits_ml.tracking.addresses import local_folders
(folder,) = local_folders({model!r})
names = ("highdicom", "matplotlib", "mlflow", "monai", "tensorflow", "torch")
print(folder.name, [name for name in names if name in sys.modules])
"""


def test_predicting_from_a_folder_starts_without_mlflow_and_matplotlib(tmp_path):
    command = [sys.executable, "-c", HEAVY.format(model=str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split(maxsplit=1) == [tmp_path.name, "[]\n"]


def test_predicting_from_the_registry_starts_with_mlflow_and_nothing_else_that_is_heavy(client, tmp_path):
    add_version(tmp_path)
    command = [sys.executable, "-c", HEAVY.format(model="models:/kits-unet@challenger")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.split(maxsplit=1) == ["model", "['mlflow']\n"], done.stderr
