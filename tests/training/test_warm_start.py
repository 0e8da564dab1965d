"""Weights of another model: they fit or one line says why not, and what it has seen counts as seen."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest

from kits_ml import models
from kits_ml.config import ArchitectureSettings, PreprocessingSettings, TrainSettings
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor
from kits_ml.training.warm_start import Parent, start_from

SETTINGS = TrainSettings(image_size=32, base_filters=2, depth=1)


def _save(folder, *, described=True, **changes):
    """A model as a training leaves it: with one output, and a description."""
    settings = dataclasses.replace(SETTINGS, **changes)
    model = models.without_supervision(models.build(settings))
    description = {
        "run_id": "parent",
        "architecture": settings.architecture,
        "input_slices": settings.input_slices,
        **({"network": settings.select(ArchitectureSettings).to_dict()} if described else {}),
    }
    Predictor(model, settings.select(PreprocessingSettings), description=description).save(folder)
    return model


def _start(folder, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    model = models.build(settings)
    return model, start_from(model, folder, source="models:/a@b", settings=settings)


def _assert_same(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weights_arrive(tmp_path):
    saved = _save(tmp_path)
    model, parent = _start(tmp_path)
    _assert_same(model, saved)
    assert parent.describe() == {"model": "models:/a@b", "run_id": "parent", "seen_cases_known": False}


def test_a_convolutional_network_may_see_another_size(tmp_path):
    saved = _save(tmp_path)
    model, _ = _start(tmp_path, image_size=64)
    _assert_same(model, saved)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        pytest.param(False, True, marks=pytest.mark.slow),
        (True, False),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
def test_deep_supervision_is_no_hindrance(there, here, tmp_path):
    options = {"architecture": "nnunet", "depth": 3}  # of two outputs
    saved = _save(tmp_path, **options, deep_supervision=there)
    model, _ = _start(tmp_path, **options, deep_supervision=here)
    _assert_same(models.without_supervision(model), saved)


def test_a_keras_file_will_do(tmp_path, caplog):
    saved = models.build(SETTINGS)
    saved.save(tmp_path / "mine.keras")
    model, parent = _start(tmp_path / "mine.keras")
    _assert_same(model, saved)
    assert parent.description == {}
    assert "no model.json beside it says which cases it was trained on" in caplog.text


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"input_slices": 3}, "init_from models:/a@b: has input_slices 3, expected 1 as set"),
        ({"architecture": "residual_unet"}, "has architecture residual_unet, expected unet as set"),
        ({"base_filters": 4}, "has base_filters 4, expected 2 as set"),
        ({"depth": 2}, "has depth 2, expected 1 as set"),
        (
            {"base_filters": 4, "described": False},
            r"array 1 of \d+ is kernel \(3, 3, 1, 4\), expected kernel \(3, 3, 1, 2\) of unet as set",
        ),
        ({"depth": 2, "described": False}, r"has \d+ arrays of weights, expected \d+ of unet as set"),
    ],
)
def test_a_mismatch_names_both(there, message, tmp_path):
    _save(tmp_path, **there)
    with pytest.raises(InputError, match=message):
        _start(tmp_path)


def test_other_channels_and_classes_of_a_file_are_named(tmp_path):
    image = keras.Input((32, 32, 2))
    keras.Model(image, keras.layers.Conv2D(3, 1)(image)).save(tmp_path / "channels.keras")
    with pytest.raises(InputError, match="has 2 channels, expected 1"):
        _start(tmp_path / "channels.keras")
    image = keras.Input((32, 32, 1))
    keras.Model(image, keras.layers.Conv2D(2, 1)(image)).save(tmp_path / "classes.keras")
    with pytest.raises(InputError, match="has 2 classes, expected 3"):
        _start(tmp_path / "classes.keras")


def test_what_is_no_model_gets_one_line(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"no")
    for name, message in (("broken.keras", "cannot be loaded"), ("none.keras", "no such file")):
        with pytest.raises(InputError, match=f"init_from models:/a@b: {message}"):
            _start(tmp_path / name)


def test_slices_prepared_otherwise_are_said(tmp_path, caplog):
    _save(tmp_path, window_min_hu=-200.0)
    _start(tmp_path)
    assert "window_min_hu -200.0 there, -79.0 here" in caplog.text


def test_what_the_parent_has_seen_counts():
    description = {"run_id": "p", "seen_cases": {"a": "1", "b": "2"}, "seen_slices": {"a": ["x"], "b": ["y"]}}
    parent = Parent(source="m", description=description)
    assert parent.has_seen("1", [])
    assert parent.has_seen("9", ["z", "y"])  # the same scan under another name
    assert not parent.has_seen("9", ["z"])
    # `a` is the same case, `b` another one of the same name
    assert parent.seen("seen_cases", {"a": "1", "b": "3", "c": "4"}) == {"a": "1", "b of p": "2", "b": "3", "c": "4"}


def test_a_damaged_model_gets_one_line(tmp_path):
    _save(tmp_path)
    model = tmp_path / "model.keras"
    whole = model.read_bytes()
    for place in range(50, len(whole), len(whole) // 12):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        model.write_bytes(damaged)
        with contextlib.suppress(InputError):  # a byte that says nothing may be there too; a traceback is a failure
            _start(tmp_path)
    model.write_bytes(whole)
    description = tmp_path / "model.json"
    description.write_text(description.read_text()[:20])
    with pytest.raises(InputError, match=r"model\.json: damaged \(.*\); expected JSON"):
        _start(tmp_path)
    description.write_text("[]")
    with pytest.raises(InputError, match=r"model\.json: found a list, expected a mapping"):
        _start(tmp_path)
