"""Other engines give what Keras gives, from the ONNX file alone."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from kits_ml import runtime
from kits_ml.config import PreprocessingSettings
from kits_ml.errors import InputError
from kits_ml.inference import engines
from kits_ml.inference.predictor import Predictor
from kits_ml.models.onnx_export import export_onnx
from kits_ml.models.unet import unet
from tests.conftest import body

OTHERS = ["openvino", "onnxruntime"]
HAS_BFLOAT16 = runtime.has_bfloat16()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small U-Net with random weights, as a training leaves it."""
    keras.utils.set_random_seed(0)
    model = unet(image_size=32, num_classes=3, base_filters=4, depth=2)
    place = tmp_path_factory.mktemp("model")
    Predictor(model, PreprocessingSettings(image_size=32)).save(place)
    export_onnx(model, place / engines.ONNX_FILE)
    return place


@pytest.mark.parametrize("engine", OTHERS)
def test_an_engine_gives_what_keras_gives(folder, engine):
    pytest.importorskip(engine)
    slices = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
    network = engines.load_network(folder, engine=engine, num_threads=1)
    first, second = network.predict_on_batch(slices), network.predict_on_batch(slices[::-1].copy())
    expected = engines.load_network(folder, engine="keras").predict_on_batch(slices)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_allclose(second[::-1], first, atol=1e-6)  # the first answer was not written over


@pytest.mark.skipif(not HAS_BFLOAT16, reason="the processor does not compute in bfloat16")
def test_openvino_in_bfloat16_stays_close(folder, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: True)
    slices = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
    found, expected = (
        engines.load_network(folder, engine=engine).predict_on_batch(slices) for engine in ("openvino", "keras")
    )
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("engine", OTHERS)
def test_a_scan_is_segmented_without_tensorflow(folder, engine, tmp_path):
    pytest.importorskip(engine)
    image, _ = body(num_slices=3, size=48)
    np.save(tmp_path / "image.npy", image)
    script = (
        "import sys, numpy as np\n"
        "import kits_ml\n"
        "from kits_ml import runtime\n"
        "runtime.has_bfloat16 = lambda: False\n"
        f"segmenter = kits_ml.load({str(folder)!r}, engine={engine!r})\n"
        f"np.save({str(tmp_path / 'found.npy')!r}, segmenter.segment(np.load({str(tmp_path / 'image.npy')!r})))\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'monai'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    same = np.load(tmp_path / "found.npy") == Predictor.load(folder).segment(image)
    assert same.mean() > 0.999


def test_a_model_without_onnx_file_says_so(folder, tmp_path):
    for name in ("model.keras", "model.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"has no model\.onnx, which engine openvino runs; expected"):
        Predictor.load(tmp_path, engine="openvino")


@pytest.mark.parametrize("engine", OTHERS)
def test_a_broken_onnx_file_is_named(engine, tmp_path):
    pytest.importorskip(engine)
    (tmp_path / engines.ONNX_FILE).write_bytes(b"not ONNX")
    with pytest.raises(InputError, match=f"model.onnx: {engine} cannot read it"):
        engines.load_network(tmp_path, engine=engine)


@pytest.mark.parametrize("damage", ["a pointer of Git LFS", "broken off"])
def test_a_keras_file_that_is_not_there_as_a_whole_is_named(folder, tmp_path, damage):
    path = tmp_path / engines.MODEL_FILE
    whole = (folder / engines.MODEL_FILE).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    path.write_bytes(whole[: len(whole) // 2] if damage == "broken off" else pointer)
    with pytest.raises(InputError, match=r"model\.keras: found no Keras file or a part of one, expected a whole one"):
        engines.load_network(tmp_path, engine="keras")


def test_a_keras_file_that_cannot_be_loaded_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / engines.MODEL_FILE, "w") as archive:
        archive.writestr("notes.txt", "of no model")
    with pytest.raises(InputError, match=r"model\.keras: cannot be loaded \(.*\); expected a model of Keras"):
        engines.load_network(tmp_path, engine="keras")


def test_an_engine_that_is_not_installed_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"openvino: not installed; expected `pip install kits_ml\[engines\]`"):
        engines.load_network(folder, engine="openvino")
