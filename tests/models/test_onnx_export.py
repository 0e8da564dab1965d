"""A network as ONNX gives what it gives in Keras, or is refused."""

import keras
import numpy as np
import pytest

from kits_ml import models
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.models.onnx_export import INPUT_NAME, export_onnx

pytestmark = pytest.mark.slow


def test_onnx_runtime_gives_the_same_labels_for_any_batch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    keras.utils.set_random_seed(0)
    model = models.build(TrainSettings(image_size=32, depth=2, base_filters=4, input_slices=3))
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        slices = np.random.default_rng(batch).random((batch, 32, 32, 3)).astype(np.float32)
        expected = np.asarray(model.predict_on_batch(slices))
        (found,) = session.run(None, {INPUT_NAME: slices})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(found.argmax(axis=-1), expected.argmax(axis=-1))


def test_a_layer_without_an_operation_is_refused_and_leaves_no_file(tmp_path):
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Activation("gelu")(keras.layers.Conv2D(3, 1)(inputs)), name="smooth")
    with pytest.raises(InputError, match="ONNX: smooth cannot be exported"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
