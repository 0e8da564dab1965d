"""What a training leaves can be used by those who come later: through MLflow, through ONNX, and by its card."""

import json
import sys
import types
import warnings

import keras
import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from kits_ml import models
from kits_ml.config import PreprocessingSettings, TrainSettings
from kits_ml.data import volumes
from kits_ml.data.images import read_image
from kits_ml.errors import InputError
from kits_ml.evaluation.evidence import read_evidence
from kits_ml.evaluation.summary import summarise_evaluation
from kits_ml.inference.predictor import Predictor
from kits_ml.models.onnx_export import INPUT_NAME
from kits_ml.tracking import addresses, model_card
from kits_ml.workflows import packaging
from kits_ml.workflows.report import Evaluated
from tests.conftest import body
from tests.evaluation.gate_cases import evidence
from tests.tracking.registry_cases import make_template, registry_in

SCORES = evidence({"case_00002": (0.8, 0.4), "case_00003": (0.9, 0.5)})
PREPARED = types.SimpleNamespace(
    split=types.SimpleNamespace(train=("case_00000",), validation=("case_00001",), test=tuple(SCORES.case_digests)),
    store=types.SimpleNamespace(case_digests={"case_00000": "a", **SCORES.case_digests}),
)
SETTINGS = TrainSettings(image_size=32, depth=2, base_filters=4, input_slices=3, model_name="packed")


def _predictor(network) -> Predictor:
    return Predictor(
        network,
        PreprocessingSettings(image_size=32),
        description={"architecture": "unet", "input_slices": 3, "seen_cases": {"case_00000": "a"}},
    )


def _evaluated(folder) -> dict[str, Evaluated]:
    cases = list(SCORES.cases)
    return {"test": Evaluated(cases=cases, summary=summarise_evaluation(cases), output=folder)}


def test_a_network_that_onnx_cannot_take_goes_without_and_says_so(tmp_path, monkeypatch):
    def refuse(model, path):
        raise InputError("ONNX: no operation for Erfc")

    monkeypatch.setattr(packaging, "export_onnx", refuse)
    network = types.SimpleNamespace(save=lambda path: path.touch())
    options = {"evaluated": _evaluated(tmp_path)}
    card = packaging.write_folder(tmp_path / "model", _predictor(network), PREPARED, SETTINGS, **options)
    assert card.onnx == "ONNX: no operation for Erfc"
    assert "no ONNX file (ONNX: no operation for Erfc)" in (tmp_path / "model/MODEL_CARD.md").read_text()
    assert read_evidence(tmp_path / "model/evaluation/test").digest == SCORES.digest
    assert json.loads((tmp_path / "model/model.json").read_text())["seen_cases"] == {"case_00000": "a"}


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A small network of random weights, logged and registered: its version and MLflow's folder."""
    place = tmp_path_factory.mktemp("packed")
    scan = place / "scan.nii.gz"
    image, _ = body(size=128)
    volumes.write_image(scan, image, volumes.kits_geometry(image.shape, (3.0, 0.8, 0.6)))
    keras.utils.set_random_seed(0)
    before = list(sys.path)  # MLflow puts the model's code there
    template = make_template(tmp_path_factory.getbasetemp().parent)
    with registry_in(place, template) as client, warnings.catch_warnings(action="ignore"):
        with mlflow.start_run():
            found = packaging.log_and_register(
                _predictor(models.build(SETTINGS)),
                PREPARED,
                SETTINGS,
                evaluated=_evaluated(place),
                example_scan=scan,
            )
        version = client.get_model_version(found.name, found.version)
        folder = addresses.mlflow_folder(found.uri)
        yield types.SimpleNamespace(
            version=version, folder=folder, scan=scan, pyfunc=mlflow.pyfunc.load_model(str(folder))
        )
    sys.path[:] = before


@pytest.mark.slow
def test_the_onnx_file_gives_what_the_keras_file_gives(registered):
    onnxruntime = pytest.importorskip("onnxruntime")
    inside = registered.folder / "artifacts/model"
    network = keras.saving.load_model(inside / "model.keras", compile=False)
    session = onnxruntime.InferenceSession(str(inside / "model.onnx"), providers=["CPUExecutionProvider"])
    slices = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(network.predict_on_batch(slices))
    (found,) = session.run(None, {INPUT_NAME: slices})
    assert np.ptp(expected) > 0.01  # not the same everywhere
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "`artifacts/model/model.onnx`" in (inside / model_card.CARD_FILE).read_text()


@pytest.mark.slow
def test_the_version_is_described_and_nothing_is_pickled(registered):
    assert "Dice of 2 test patients: kidney 0.850" in registered.version.description  # (0.8 + 0.9) / 2
    assert registered.version.description == model_card.read_short(registered.folder / "artifacts/model")
    assert (registered.folder / "MLmodel").is_file()
    assert not [path for path in registered.folder.rglob("*") if "pkl" in path.name or "pickle" in path.name]


@pytest.mark.slow
def test_the_input_example_can_be_read_back_and_predicted(registered):
    described = registered.pyfunc.metadata
    example = described.load_input_example(str(registered.folder))
    params = described.load_input_example_params(str(registered.folder))
    # every second row and column of the middle slices of 128 x 128: twice as far apart
    np.testing.assert_array_equal(example, read_image(registered.scan).array[3:5, ::2, ::2])
    assert params["spacing_mm"] == pytest.approx([3.0, 1.6, 1.2])
    label_map = registered.pyfunc.predict(example.astype(np.float32), params=params)
    assert (label_map.shape, label_map.dtype) == ((2, 64, 64), np.uint8)
    assert set(np.unique(label_map)) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((64, 64), np.float32), "Shape of input"),
        (np.zeros((1, 2, 64, 64), np.float32), "Shape of input"),
        (np.zeros((2, 64, 64), np.int16), "dtype of input int16 does not match"),
        (np.zeros((2, 64, 64), np.complex64), "dtype of input complex64 does not match"),
    ],
)
def test_an_array_that_is_no_volume_of_hu_is_refused(registered, array, message):
    with pytest.raises(MlflowException, match=message):
        registered.pyfunc.predict(array, params={"spacing_mm": [3.0, 0.8, 0.8]})
