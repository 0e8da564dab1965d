"""One update of each optimiser by hand, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest

from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training.budget import make_budget, num_steps
from kits_ml.training.devices import check_devices
from kits_ml.training.optimizers import OPTIMIZERS, make_optimizer


def _updates(weights, *gradients, **settings):
    """The weights after updates with given gradients, and the optimiser."""
    optimizer = make_optimizer(TrainSettings(learning_rate=0.1, learning_rate_schedule="constant", **settings))
    variable = keras.Variable(np.array(weights, np.float32))
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, np.float32))], [variable])
    return np.asarray(keras.ops.convert_to_numpy(variable)), optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_down_the_gradient(name):
    extra = {"weight_decay": 0.01} if name == "adamw" else {}
    found, optimizer = _updates([1.0, -1.0], [0.5, -0.5], optimizer=name, **extra)
    assert found[0] < 1
    assert found[1] > -1
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_the_default_is_adam_and_nothing_else():
    optimizer = make_optimizer(TrainSettings(max_minutes=1.0))
    assert type(optimizer) is keras.optimizers.Adam
    assert optimizer.get_config() | {"name": ""} == keras.optimizers.Adam(1e-3).get_config() | {
        "name": "",
        "ema_momentum": 0.0,  # not in use
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate_schedule": "constant"},
        {"learning_rate_schedule": "cosine", "warmup_fraction": 0.2},
        {"learning_rate_schedule": "polynomial", "accumulation_steps": 2},
        {"learning_rate_schedule": "one_cycle", "max_steps": 14},
    ],
)
def test_the_learning_rate_of_each_step_is_the_budgets(settings):
    settings = TrainSettings(epochs=3, steps_per_epoch=6, **settings)
    optimizer, spent = make_optimizer(settings), make_budget(settings)
    variable = keras.Variable([0.0])
    optimizer.build([variable])
    for epoch in range(3):
        spent.on_epoch_begin(epoch)
        for batch in range(6):
            if epoch * 6 + batch < num_steps(settings):
                spent.on_train_batch_begin(batch)
                assert float(optimizer.learning_rate) == pytest.approx(spent.learning_rate, rel=1e-6)
                optimizer.apply([keras.ops.ones(1)], [variable])


def test_weight_decay_by_hand():
    # AdamW's first step: decay 2 - 0.1 * 0.5 * 2 = 1.9, then 0.1 * sign(gradient)
    found, _ = _updates([2.0, -2.0], [3.0, 4.0], optimizer="adamw", weight_decay=0.5)
    assert found == pytest.approx([1.9 - 0.1, -1.9 - 0.1], abs=1e-5)
    # plain SGD: decay to 1.9, then 0.1 * 3
    found, _ = _updates([2.0], [3.0], optimizer="sgd", momentum=0.0, weight_decay=0.5)
    assert found == pytest.approx([1.9 - 0.3])


def _norms_after_decay(**settings) -> dict[str, float]:
    """By layer and weight, how long each is after an update without gradients that takes half of what decays."""
    inputs = keras.Input((8, 4))
    normalised = keras.layers.LayerNormalization(name="b")(keras.layers.Dense(4, name="a")(inputs))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(1, 4, name="c")(normalised, normalised))
    model.set_weights([np.ones_like(weights) for weights in model.get_weights()])
    settings = TrainSettings(
        optimizer="adamw", learning_rate=0.1, learning_rate_schedule="constant", weight_decay=5.0, **settings
    )
    model.compile(make_optimizer(settings))
    zeros = [keras.ops.zeros_like(variable) for variable in model.trainable_variables]
    model.optimizer.apply(zeros, model.trainable_variables)
    return {
        "/".join(variable.path.split("/")[-2:]): float(keras.ops.mean(variable))
        for variable in model.trainable_variables
    }


def test_what_decays():
    found = _norms_after_decay()
    assert set(found.values()) == {0.5}
    kernels = _norms_after_decay(weight_decay_of="kernels")
    assert kernels.keys() == found.keys() > {"a/kernel", "a/bias", "b/gamma", "b/beta", "query/kernel", "query/bias"}
    assert kernels == {name: 0.5 if name.endswith("/kernel") else 1.0 for name in kernels}


def test_nesterovs_momentum_by_hand():
    # v1 = -0.1; w1 = 1 + 0.5 v1 - 0.1 = 0.85; v2 = 0.5 v1 - 0.1 = -0.15; w2 = w1 + 0.5 v2 - 0.1 = 0.675
    found, _ = _updates([1.0], [1.0], [1.0], optimizer="sgd", momentum=0.5)
    assert found == pytest.approx([0.675])


def test_the_norm_of_all_weights_together_is_clipped():
    # gradients 3 and 4 have norm 5; clipped to 1 they are 0.6 and 0.8, of which 0.1 is taken
    optimizer = make_optimizer(TrainSettings(learning_rate=0.1, optimizer="sgd", momentum=0.0, clip_norm=1.0))
    variables = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer.apply([keras.ops.convert_to_tensor([3.0]), keras.ops.convert_to_tensor([4.0])], variables)
    assert [float(variable[0]) for variable in variables] == pytest.approx([-0.06, -0.08])


def test_accumulated_gradients_are_averaged_before_they_are_clipped():
    # (8 - 2) / 2 = 3, clipped to 1: one update of 0.1, in the second step; clipped one by one they would cancel out
    options = {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 1.0, "accumulation_steps": 2}
    assert _updates([0.0], [8.0], **options)[0] == pytest.approx([0.0])
    assert _updates([0.0], [8.0], [-2.0], **options)[0] == pytest.approx([-0.1])
    decayed, _ = _updates([2.0], [0.0], [0.0], **options, weight_decay=0.5)
    assert decayed == pytest.approx([1.9])  # once, not twice


def test_two_batches_of_two_are_one_batch_of_four():
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    labels = inputs.sum(axis=1, keepdims=True)
    found = []
    for parts, steps in ((1, 1), (2, 2)):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        own = {"learning_rate_schedule": "constant", "accumulation_steps": steps}
        settings = TrainSettings(optimizer="sgd", learning_rate=0.1, **own)
        model.compile(make_optimizer(settings), loss="mse", run_eagerly=True)
        for _ in range(2):
            for part in range(parts):
                model.train_on_batch(inputs[part::parts], labels[part::parts] * 2)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert not np.allclose(found[0][0], 1)


def test_the_average_of_the_weights_by_hand():
    # plain SGD, gradient 10, rate 0.1: weights -1, -2, -3; averages -1, -1.5, -2.25
    _, optimizer = _updates([0.0], [10.0], [10.0], [10.0], optimizer="sgd", momentum=0.0, ema_momentum=0.5)
    assert float(optimizer._model_variables_moving_average[0][0]) == pytest.approx(-2.25)


def test_the_average_moves_as_far_in_an_update_of_several_steps():
    # 0.81 an update of two steps is 0.9 a step; weights 0, -1, -1, -2, -2: averages 0, -1, -1, -1.1, -1.19
    gradients = [[10.0]] * 5
    _, optimizer = _updates([0.0], *gradients, optimizer="sgd", momentum=0.0, ema_momentum=0.81, accumulation_steps=2)
    assert float(optimizer._model_variables_moving_average[0][0]) == pytest.approx(-1.19)  # -2 + 0.81


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adamw"}, "weight_decay: found 0 with adamw, expected more"),
        ({"weight_decay": 0.1}, "weight_decay: found 0.1 with adam, expected 0, or optimizer adamw"),
        ({"weight_decay_of": "kernels"}, "weight_decay_of: found kernels with weight_decay 0, expected more"),
        ({"accumulation_steps": 3}, "accumulation_steps: found 3, expected a divisor of steps_per_epoch 50"),
        ({"accumulation_steps": 2, "max_steps": 7}, "accumulation_steps: found 2, expected a divisor of max_steps 7"),
        ({"learning_rate": 0}, "learning_rate: found 0, expected more than 0"),
        ({"learning_rate": -1e-3}, r"learning_rate: found -0\.001, expected more than 0"),
        ({"momentum": 1.0}, r"momentum: found 1\.0, expected 0 to 0\.99999"),
        ({"optimizer": "adagrad"}, "optimizer: found 'adagrad', expected one of adam"),
        ({"precision": "float8"}, "precision: found 'float8', expected one of auto"),
    ],
)
def test_settings_that_fit_nothing_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        TrainSettings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9}, "batch_size: found 9, expected a multiple of num_devices 2"),
        ({"clip_norm": 12.0}, "clip_norm: found 12 on 2 devices, expected 0"),
        ({"accumulation_steps": 2}, "accumulation_steps: found 2 on 2 devices, expected 1"),
    ],
)
def test_what_several_devices_cannot_do_is_refused(change, message, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    settings = dataclasses.replace(TrainSettings(), **change)
    check_devices(settings, num_devices=1, precision="float32")
    with pytest.raises(InputError, match=message):
        check_devices(settings, num_devices=2, precision="float32")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")  # one step for all devices
    if "batch_size" not in change:
        check_devices(settings, num_devices=2, precision="float32")


def test_gradients_are_not_summed_up_in_float16():
    settings = TrainSettings(accumulation_steps=2)
    check_devices(settings, num_devices=1, precision="bfloat16")
    with pytest.raises(InputError, match="accumulation_steps: found 2 in float16, expected 1, or another precision"):
        check_devices(settings, num_devices=1, precision="float16")
