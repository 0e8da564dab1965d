"""A predictor gives a label map on the scan's grid, whatever the batch, and comes back as it was saved."""

import keras
import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.data import preprocessing
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor, read_description
from tests.conftest import body

SETTINGS = PreprocessingSettings(image_size=32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Calls bright pixels kidney: grey above 0.4, which after window and gamma is above 130 HU."""
    inputs = keras.Input((32, 32, 1))
    logits = keras.layers.Conv2D(3, 1)(inputs)
    outputs = keras.layers.Softmax()(logits)
    model = keras.Model(inputs, outputs)
    model.layers[1].set_weights([np.array([[[[0.0, 100.0, 0.0]]]]), np.array([0.0, -40.0, -100.0])])
    return model


@pytest.mark.parametrize("batch_size", [1, 4, 6, 50])
def test_the_batch_does_not_matter(model, batch_size):
    image, label_map = body()
    found = Predictor(model, SETTINGS, batch_size=batch_size).segment(image)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, Predictor(model, SETTINGS).segment(image))
    kidney = label_map == 1
    assert 2 * (kidney & (found == 1)).sum() / (kidney.sum() + (found == 1).sum()) > 0.8


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_neighbouring_slices_are_seen(batch_size, tmp_path):
    image, _ = body(num_slices=11)
    image[::2] -= 90  # so that neighbours differ
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Softmax()(keras.layers.Conv2D(3, 3, padding="same")(inputs))
    keras.utils.set_random_seed(0)
    network = keras.Model(inputs, outputs)
    network.layers[1].set_weights([np.random.default_rng(0).normal(0, 9, (3, 3, 3, 3)), np.zeros(3)])

    frame = preprocessing.find_frame(image, SETTINGS)
    grey = np.concatenate(list(preprocessing.prepare_image(image, frame, SETTINGS)))
    above, below = np.concatenate([grey[:1], grey[:-1]]), np.concatenate([grey[1:], grey[-1:]])
    seen = np.stack([above, grey, below], axis=-1).astype(np.float32) / 255
    expected = preprocessing.restore_labels(np.asarray(network(seen)), frame)

    Predictor(network, SETTINGS, description={"input_slices": 3}).save(tmp_path)
    found = Predictor.load(tmp_path, batch_size=batch_size).segment(image)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) == 3


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_the_type_does_not_matter(model, dtype):
    image, _ = body()
    predictor = Predictor(model, SETTINGS)
    np.testing.assert_array_equal(predictor.segment(image.astype(dtype)), predictor.segment(image))


def test_what_is_saved_comes_back(model, tmp_path):
    image, _ = body()
    predictor = Predictor(model, SETTINGS, description={"architecture": "unet"})
    predictor.save(tmp_path / "model")
    again = Predictor.load(tmp_path / "model")
    assert again.settings == SETTINGS
    assert again.description["architecture"] == "unet"
    assert read_description(tmp_path / "model")["label_names"] == {"0": "background", "1": "kidney", "2": "tumour"}
    np.testing.assert_array_equal(again.segment(image), predictor.segment(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.int16), r"shape \(4, 4\): expected \(slices, rows, columns\)"),
        (np.zeros((0, 4, 4), np.int16), "expected"),
        (np.full((2, 4, 4), np.nan), "32 voxels are NaN or infinite"),
        (np.full((2, 4, 4), -500, np.int16), "no foreground"),
        (np.zeros((2, 4, 4), complex), "expected HU as numbers"),
    ],
)
def test_images_that_are_none(model, image, message):
    with pytest.raises(InputError, match=message):
        Predictor(model, SETTINGS).segment(image)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"no kits_ml model; expected model\.keras and model\.json"):
        Predictor.load(tmp_path)
