"""The registered model turns the array and its spacing alike."""

import warnings

import numpy as np
import pytest
from mlflow.models.utils import _enforce_params_schema

from kits_ml.errors import InputError
from kits_ml.tracking.registry import SIGNATURE


class _Recorder:
    """In place of a predictor: gives the image back as labels and keeps what it was called with."""

    description = {}  # noqa: RUF012

    def segment(self, image, *, spacing_mm=None, observe=None):
        self.shape, self.spacing_mm = image.shape, spacing_mm
        for index, one in enumerate(image):
            if observe:  # the last column lies outside the network's window
                inside = (slice(0, image.shape[1]), slice(0, image.shape[2] - 1))
                observe(index, inside, np.stack([0.1 * one[:, :-1], 0.2 * one[:, :-1], 0.3 * one[:, :-1]]))
        return image.astype(np.uint8)


@pytest.fixture
def model():
    with warnings.catch_warnings(action="ignore"):  # MLflow's advice on type hints
        from kits_ml.tracking import pyfunc_model
    model = pyfunc_model.KitsModel()
    model.predictor = _Recorder()
    return model


def _predict(model, image: np.ndarray, **params) -> np.ndarray:
    return model.predict(None, image, _enforce_params_schema(params, SIGNATURE.params))


@pytest.mark.parametrize(
    ("orientation", "spacing_mm", "shape"), [("IPL", [5, 2, 3], (2, 3, 4)), ("RAS", [3, 2, 5], (4, 3, 2))]
)
def test_spacing_goes_with_its_axis(model, orientation, spacing_mm, shape):
    image = np.arange(24, dtype=np.float32).reshape(shape)
    found = _predict(model, image, orientation=orientation, spacing_mm=spacing_mm)
    np.testing.assert_array_equal(found, image)
    # slices 5 mm, rows 2 mm, columns 3 mm, whatever the order they came in
    assert (model.predictor.shape, model.predictor.spacing_mm) == ((2, 3, 4), (5, 2, 3))


def test_without_spacing_the_predictor_gets_none(model):
    _predict(model, np.zeros((2, 3, 4), np.float32))
    assert model.predictor.spacing_mm is None


def test_what_is_stored_is_cleaned(model):
    label_map = np.zeros((2, 6, 6), np.float32)  # the recorder gives it back
    label_map[:, 0, 0], label_map[:, 3:, 3:] = 1, 1  # 2 and 18 voxels of 50 mm3
    model.predictor.description = {"postprocessing": {"minimum_kidney_ml": 0.5}}
    found = _predict(model, label_map, spacing_mm=[2.0, 5.0, 5.0])
    assert found.sum() == 18
    np.testing.assert_array_equal(found[:, 3:, 3:], 1)
    with pytest.raises(InputError, match="spacing_mm: found none, expected three distances"):
        _predict(model, label_map)


def test_two_sizes_are_refused(model):
    with pytest.raises(InputError, match="spacing_mm: found 2 values, expected 3"):
        _predict(model, np.zeros((2, 3, 4), np.float32), spacing_mm=[1.0, 2.0])


@pytest.mark.parametrize(("orientation", "shape"), [("IPL", (2, 3, 4)), ("RAS", (4, 3, 2))])
def test_probabilities_turn_with_the_volume(model, orientation, shape):
    image = np.arange(1, 25, dtype=np.float32).reshape(shape)
    found = _predict(model, image, orientation=orientation, probabilities=True)
    assert (found.shape, found.dtype) == ((3, *shape), np.float32)
    # the patient's left is the last column of IPL, and the first index along R to L turned to RAS
    outside = (Ellipsis, -1) if orientation == "IPL" else (slice(None), 0)
    inside = np.ones(shape, bool)
    inside[outside[1:] if orientation == "RAS" else outside] = False
    for label, factor in enumerate((0.1, 0.2, 0.3)):
        np.testing.assert_allclose(found[label][inside], factor * image[inside], rtol=1e-6)
    np.testing.assert_array_equal(found[0][~inside], 1)
    np.testing.assert_array_equal(found[1:, ~inside], 0)


def test_labels_are_what_is_given_unless_asked_otherwise(model):
    assert _predict(model, np.zeros((2, 3, 4), np.float32)).dtype == np.uint8
