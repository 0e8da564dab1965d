"""A predictor gives a label map on the scan's grid, whatever the batch, and comes back as it was saved."""

import json

import keras
import numpy as np
import pytest

from kits_ml.config import PreprocessingSettings
from kits_ml.data import frames, preprocessing
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor, read_description
from tests.conftest import body, lopsided

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


@pytest.mark.parametrize("framing", ["stretch", "spacing"])
def test_probabilities_are_seen_on_the_scans_grid(model, framing):
    image, _ = body(num_slices=5)
    image[..., 50:] = -1000  # the crop leaves these columns out
    seen = {}

    def observe(index, inside, probabilities):
        assert index == len(seen)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        seen[index] = np.zeros((3, *image.shape[1:]), np.float32)
        seen[index][0] = 1  # beyond the window all is background
        seen[index][:, *inside] = probabilities

    settings = PreprocessingSettings(image_size=32, framing=framing, pixel_spacing_mm=2.0)
    found = Predictor(model, settings, batch_size=2).segment(image, spacing_mm=(3, 0.8, 0.8), observe=observe)
    np.testing.assert_array_equal(np.stack([one.argmax(axis=0) for one in seen.values()]), found)
    assert (found == 1).any()


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_neighbouring_slices_are_seen(batch_size, tmp_path):
    image, _ = body(num_slices=11)
    image[::2] -= 90  # so that neighbours differ
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Softmax()(keras.layers.Conv2D(3, 3, padding="same")(inputs))
    keras.utils.set_random_seed(0)
    network = keras.Model(inputs, outputs)
    network.layers[1].set_weights([np.random.default_rng(0).normal(0, 9, (3, 3, 3, 3)), np.zeros(3)])

    frame = frames.find_frame(image, SETTINGS)
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


@pytest.mark.parametrize("flip", [(), (1,), (2,)])
def test_a_common_spacing_is_undone_on_the_scans_grid(model, flip):
    settings = PreprocessingSettings(framing="spacing", crop="body", image_size=32, pixel_spacing_mm=5.0)
    image, label_map = lopsided((4, 150, 130), (3.0, 0.7, 1.0), noise_hu=0)
    image[label_map == 2] = 180
    image[image == 200] = -1000  # no table: it is as bright as a kidney
    found = Predictor(model, settings).segment(np.flip(image, flip), spacing_mm=(3.0, 0.7, 1.0))
    found = np.flip(found, flip)
    assert found.shape == image.shape
    # pixels of 5 mm: 7 rows and 5 columns each, so edges are rough, but nothing is shifted
    centre_true, centre = (np.argwhere(one > 0).mean(axis=0) for one in (label_map, found))
    np.testing.assert_allclose(centre, centre_true, atol=0.5)
    assert 2 * ((label_map > 0) & (found > 0)).sum() / ((label_map > 0).sum() + (found > 0).sum()) > 0.85


def test_a_spacing_is_asked_for_where_it_is_needed(model):
    image, _ = body()
    settings = PreprocessingSettings(framing="spacing", image_size=32)
    with pytest.raises(InputError, match="spacing_mm: found none, expected the distances between slices, rows and"):
        Predictor(model, settings).segment(image)
    plain = Predictor(model, SETTINGS)
    np.testing.assert_array_equal(plain.segment(image, spacing_mm=(3, 1, 1)), plain.segment(image))


def test_a_model_from_before_framing_and_crop_is_loaded(model, tmp_path):
    Predictor(model, SETTINGS).save(tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    for name in ("framing", "crop", "pixel_spacing_mm"):
        del content["preprocessing"][name]
    path.write_text(json.dumps(content))
    assert Predictor.load(tmp_path).settings == SETTINGS


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


@pytest.mark.parametrize("change", [{}, {"preprocessing": None}, {"preprocessing": [3]}])
def test_a_description_without_the_preparation_is_named(tmp_path, change):
    (tmp_path / "model.keras").touch()
    (tmp_path / "model.json").write_text(json.dumps({"architecture": "unet", **change}))
    with pytest.raises(InputError, match=r"model\.json: preprocessing: found (None|\[3\]), expected the settings"):
        Predictor.load(tmp_path)
