"""A registered model loads where nothing is installed but what it asks for."""

import subprocess
import sys

import keras
import mlflow
import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.evaluation.gate_checks import CleanRun
from kits_ml.inference.predictor import Predictor
from kits_ml.tracking import addresses, registry
from kits_ml.tracking.clean_process import ORIENTATIONS, run_clean
from tests.conftest import body

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(client, tmp_path):
    """MLflow's folder of a registered model that calls bright pixels kidney."""
    inputs = keras.Input((32, 32, 1))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Conv2D(3, 1)(inputs)))
    model.layers[1].set_weights([np.array([[[[0.0, 100.0, 0.0]]]]), np.array([0.0, -40.0, -100.0])])
    Predictor(model, PreprocessingSettings(image_size=32)).save(tmp_path / "model")
    with mlflow.start_run():
        uri = registry.log_model(
            tmp_path / "model", input_example=body()[0].astype(np.float32), spacing_mm=(3.0, 0.8, 0.8)
        )
    return addresses.mlflow_folder(f"models:/{registry.register(uri, 'kits-unet').name}/1")


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own code
def test_this_environment_with_all_else_hidden(folder):
    found = run_clean(folder, num_slices=4, timeout_s=600)
    assert isinstance(found, CleanRun), found
    assert found.code_from_model
    assert found.differences == dict.fromkeys(ORIENTATIONS, 0.0)
    assert found.shape == (4, 512, 512)
    text = (folder / "requirements.txt").read_text()
    (folder / "requirements.txt").write_text("\n".join(line for line in text.splitlines() if "isal" not in line))
    missing = run_clean(folder, num_slices=1, timeout_s=600)
    assert missing == "ModuleNotFoundError: No module named 'isal': the model's requirements do not name it"


@pytest.mark.filterwarnings("ignore")
def test_a_new_environment_of_its_requirements(folder, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "-r", str(folder / "requirements.txt")]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if "NewConnectionError" in done.stderr or "NameResolutionError" in done.stderr:
        pytest.skip("no package index answers")
    assert not done.returncode, done.stderr
    found = run_clean(folder, num_slices=2, timeout_s=900, python=python)
    assert isinstance(found, CleanRun), found
    assert found.code_from_model
    assert found.differences == dict.fromkeys(ORIENTATIONS, 0.0)
