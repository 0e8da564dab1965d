"""The moving average is scored and kept; training goes on from the weights. With a network of one convolution."""

import keras
import numpy as np
import pytest

from kits_ml import runtime
from kits_ml.config import TrainSettings
from kits_ml.training import fit as training
from kits_ml.training.batches import SliceArrays
from kits_ml.training.metrics import validation_scores

OPTIONS = {"image_size": 16, "batch_size": 2, "steps_per_epoch": 4, "learning_rate": 0.05}


class Course(keras.callbacks.Callback):
    """Keeps the weights after each update, and what callbacks after the validation see."""

    def __init__(self, accumulation_steps=1):
        super().__init__()
        self.accumulation_steps = accumulation_steps
        self.after_updates, self.after_epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.accumulation_steps == 0:
            self.after_updates.append(self.model.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        self.after_epochs.append(self.model.get_weights())


def slices(seed: int) -> SliceArrays:
    """Kidney where brighter, tumour where brightest; one case of four slices."""
    labels = np.random.default_rng(seed).integers(0, 3, (4, 16, 16)).astype(np.uint8)
    return SliceArrays(grey=60 + 70 * labels, labels=labels, cases=("a",) * 4)


def network() -> keras.Model:
    """A convolution, batch normalisation and a softmax."""
    inputs = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(8, 1, activation="relu")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Conv2D(3, 1)(x)
    return keras.Model(inputs, keras.layers.Softmax(dtype="float32")(x))


def _fit(*callbacks, **settings):
    runtime.configure(precision="float32")
    runtime.seed_everything(0)
    return training.fit(
        network(), slices(0), slices(1), TrainSettings(**{**OPTIONS, **settings}), callbacks=callbacks
    )


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_average_is_scored_and_kept_and_training_goes_on_from_the_weights(accumulation_steps):
    updates = 4 // accumulation_steps  # an epoch
    course = Course(accumulation_steps)
    fitted = _fit(course, ema_momentum=0.5, epochs=2, accumulation_steps=accumulation_steps)
    averages = [course.after_updates[0]]
    for weights in course.after_updates[1:]:  # once an update, batch normalisation's statistics too
        averages.append([0.5 * old + 0.5 * new for old, new in zip(averages[-1], weights, strict=True)])
    best = averages[updates * fitted.best_epoch + updates - 1]
    for found, expected in zip(fitted.model.get_weights(), best, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    again = validation_scores(fitted.model, slices(1), batch_size=2)
    assert again["foreground_iou"] == pytest.approx(fitted.best_score, abs=1e-6)

    for epoch, weights in enumerate(course.after_epochs):  # to the last bit
        for found, expected in zip(weights, course.after_updates[updates * epoch + updates - 1], strict=True):
            np.testing.assert_array_equal(found, expected)
    plain = Course(accumulation_steps)
    _fit(plain, epochs=2, accumulation_steps=accumulation_steps)
    for found, expected in zip(course.after_updates[-1], plain.after_updates[-1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_training_with_everything_on_learns_within_its_budget():
    course = Course(accumulation_steps=2)
    fitted = _fit(
        course,
        optimizer="adamw",
        weight_decay=1e-3,
        clip_norm=1.0,
        accumulation_steps=2,
        ema_momentum=0.3,
        learning_rate_schedule="one_cycle",
        epochs=20,
        steps_per_epoch=8,
        max_steps=44,
    )
    assert len(course.after_updates) == 22
    assert len(fitted.history["loss"]) == 6  # 5 of 8 steps and one of 4
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    # the last update began at step 42 of 44: (42/44 - 0.3) / 0.7 of the way down
    way_down = (42 / 44 - 0.3) / 0.7
    expected = 0.05 * (4e-6 + (1 - 4e-6) * 0.5 * (1 + np.cos(np.pi * way_down)))
    assert fitted.history["learning_rate"][-1] == pytest.approx(expected)


def test_early_stopping_ends_a_training_and_leaves_the_best_weights():
    # nothing moves at a learning rate of nearly nothing: the first epoch stays the best, two more are waited for
    fitted = _fit(epochs=9, steps_per_epoch=1, early_stopping_epochs=2, learning_rate=1e-12, ema_momentum=0.5)
    assert len(fitted.history["loss"]) == 3
    assert fitted.best_epoch == 0


@pytest.mark.parametrize("policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_half_precision_trains_and_leaves_a_network_in_float32(policy, tmp_path):
    runtime.configure(precision="float32")
    runtime.seed_everything(0)
    keras.config.set_dtype_policy(policy)  # what `configure` does on a GPU
    try:
        settings = TrainSettings(**OPTIONS, epochs=3, ema_momentum=0.5, clip_norm=10.0)
        model = network()
        fitted = training.fit(model, slices(0), slices(1), settings)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")  # its smallest number is 6e-8; bfloat16's is float32's
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    assert {layer.compute_dtype for layer in fitted.model.layers} == {"float32"}
    again = validation_scores(fitted.model, slices(1), batch_size=2)
    assert again["foreground_iou"] == pytest.approx(fitted.best_score, abs=0.05)
    fitted.model.save(tmp_path / "model.keras")
    assert b"mixed_" not in keras.saving.load_model(tmp_path / "model.keras").to_json().encode()
