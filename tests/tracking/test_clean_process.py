"""A clean process sees a model, its requirements, and nothing else."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from kits_ml.config import GateSettings
from kits_ml.evaluation import gate_checks
from kits_ml.tracking import clean_child, clean_process
from tests.evaluation.gate_cases import clean_run, measured


def test_requirements_bring_what_they_require_themselves():
    version = importlib.metadata.version("nibabel")
    found = clean_child.installed_by([f"nibabel=={version}"])
    assert {"nibabel", "numpy", "packaging"} <= found
    assert not {"keras", "pytest", "kits-ml"} & found


def test_extras_and_markers_count():
    # pydicom asks for nothing; with its extra for pixels, for numpy
    assert clean_child.installed_by(["pydicom"]) == {"pydicom"}
    assert "numpy" in clean_child.installed_by(["pydicom[basic]"])


@pytest.mark.parametrize(
    ("line", "message"),
    [("numpy==0.1", "requirement numpy==0.1: version"), ("no-such-thing==1.0", "no-such-thing==1.0: not installed")],
)
def test_a_requirement_that_is_not_here_is_said(line, message):
    with pytest.raises(RuntimeError, match=message):
        clean_child.installed_by([line])


def _run(code: str, folder: Path) -> subprocess.CompletedProcess:
    place = Path(clean_child.__file__)
    script = f"import sys; sys.path.insert(0, {str(place.parent)!r})\nimport clean_child\n{code}"
    return subprocess.run(
        [sys.executable, "-E", "-P", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_what_no_requirement_names_cannot_be_imported(tmp_path):
    code = "clean_child.hide_all_but(clean_child.installed_by(['nibabel']))\nimport nibabel, numpy\nprint('so far')\n"
    done = _run(code + "import yaml", tmp_path)
    assert "so far" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: No module named 'yaml': the model's requirements do not name it"
    )


def test_a_model_that_does_not_load_gets_one_line(tmp_path):
    (tmp_path / "requirements.txt").write_text("# pinned\n\nno-such-thing==1.0\n")
    found = clean_process.run_clean(tmp_path, num_slices=1, timeout_s=300)
    assert found == "RuntimeError: requirement no-such-thing==1.0: not installed here"


def test_the_oblique_volume_is_tilted_about_every_axis_and_keeps_its_order_and_size():
    affine = clean_process.oblique_affine((5, 96, 80), (5.0, 1.0, 2.0))
    assert "".join(aff2axcodes(affine)) == "IPL"
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (5.0, 1.0, 2.0))
    off_axis = np.abs(affine[:3, :3] / (5.0, 1.0, 2.0))[[0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 2]]
    assert (off_axis > 0.05).all()


class _Model:
    """A model of MLflow's kind that turns as it should, or forgets to for one orientation."""

    def __init__(self, forgets: str = ""):
        self.forgets = forgets

    def predict(self, image, params):
        assert params["probabilities"]
        self.sizes = params["spacing_mm"]
        if params["orientation"] == self.forgets:
            image = np.flip(image, axis=0)
        return np.stack([image, 1 - image, 0 * image])


def test_an_axis_that_is_flipped_shows():
    image = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    affine = clean_process.oblique_affine(image.shape, (5.0, 1.0, 2.0))
    request = {"house": "IPL", "orientations": list(clean_process.ORIENTATIONS)}
    model = _Model()
    assert clean_child.differences(model, image, affine, request) == dict.fromkeys(clean_process.ORIENTATIONS, 0.0)
    np.testing.assert_allclose(model.sizes, (1.0, 5.0, 2.0))  # of PIR: rows, slices, columns
    found = clean_child.differences(_Model("SAL"), image, affine, request)
    assert found["SAL"] > 0.1
    assert {codes for codes, one in found.items() if one} == {"SAL"}


class _Waits:
    """A model that needs no processor while it waits; but whoever asked waits too."""

    def predict(self, image, params):
        time.sleep(0.02 * len(image))
        return np.zeros((3, *image.shape) if params.get("probabilities") else image.shape, np.uint8)


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own code
def test_a_model_that_waits_is_too_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mlflow.pyfunc"), "load_model", lambda folder: _Waits())
    image = np.zeros((2, 4, 4), np.int16)
    affine = clean_process.oblique_affine(image.shape, (5.0, 1.0, 2.0))
    np.savez(tmp_path / "volumes.npz", image=image, oblique=image, spacing_mm=np.ones(3), affine=affine)
    request = {"model": str(tmp_path), "volumes": str(tmp_path / "volumes.npz"), "house": "IPL", "orientations": []}
    found = clean_child.measure(request)
    assert found["seconds_per_slice"] >= 0.02
    clean = clean_run(seconds_per_slice=found["seconds_per_slice"])
    for limit, passes in ((0.01, False), (60.0, True)):
        findings = gate_checks.judge(measured(clean=clean), GateSettings(max_seconds_per_slice=limit))
        assert {one.name: one.passed for one in findings}["latency"] == passes


def test_what_is_in_the_way_of_some_calls_does_not_count(monkeypatch):
    clock = [0.0]
    takes_s = iter([3.0, 0.5, 2.0, 1.0])
    monkeypatch.setattr(clean_child.time, "perf_counter", lambda: clock[0])

    def predict() -> None:
        clock[0] += next(takes_s)

    assert clean_child.best_time_s(predict) == 0.5
    takes_s = iter([100.0, 90.0])  # more than two minutes: enough
    assert clean_child.best_time_s(predict) == 90.0


def test_peak_memory_is_that_of_this_process():
    found = clean_child.peak_memory_mb()
    assert found is None or 20 < found < 100_000


def test_the_request_is_json_and_the_environment_holds_no_run(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    environment = clean_process._environment()
    assert not [name for name in environment if name.startswith(("MLFLOW_", "KERAS_"))]
    json.dumps(environment)
