"""Training learns, keeps the best weights, and stops on a loss that is no number."""

import dataclasses

import keras
import numpy as np
import pytest

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.training import fit as training
from kits_ml.training.losses import make_loss
from kits_ml.training.metrics import case_scores, validation_scores
from kits_ml.training.sampling import SAMPLINGS
from tests.training.conftest import squares

SETTINGS = TrainSettings(
    image_size=32, base_filters=4, depth=2, epochs=4, steps_per_epoch=12, batch_size=4, learning_rate=1e-2
)


def _fit(settings=SETTINGS, **options):
    runtime.configure(precision="float32")
    runtime.seed_everything(settings.seed)
    model = models.build(settings)
    return model, training.fit(model, squares(0), squares(1), settings, **options)


def test_it_learns_and_the_model_holds_the_best_weights():
    model, fitted = _fit()
    assert fitted.history["loss"][-1] < 0.75 * fitted.history["loss"][0]
    assert fitted.best_score == max(fitted.history[training.SELECTION_METRIC]) > 0.5
    assert fitted.history[training.SELECTION_METRIC][fitted.best_epoch] == fitted.best_score
    again = validation_scores(model, squares(1), batch_size=4)
    assert again["foreground_iou"] == pytest.approx(fitted.best_score, abs=1e-3)


def test_what_is_kept_knows_nothing_of_its_training(tmp_path):
    _, fitted = _fit(dataclasses.replace(SETTINGS, epochs=1, steps_per_epoch=3))
    fitted.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")  # with keras alone, which does not know our losses
    image = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(image), fitted.model.predict_on_batch(image))
    assert getattr(again, "optimizer", None) is None


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_validation_sees_one_size_of_batches_and_each_slice_once(batch_size):
    shapes, seen = [], []

    class Network:
        input_shape = (None, 32, 32, 1)

        def predict_on_batch(self, images):
            shapes.append(images.shape)
            return np.stack([1 - images[..., 0], images[..., 0], 0 * images[..., 0]], axis=-1)

    slices = squares(1)
    found = validation_scores(Network(), slices, batch_size=batch_size, observe=lambda labels, _: seen.append(labels))
    assert set(shapes) == {(batch_size, 32, 32, 1)}
    np.testing.assert_array_equal(np.concatenate(seen), slices.labels_of(np.arange(len(slices))))
    assert found == validation_scores(Network(), slices, batch_size=7)


def test_the_same_seed_gives_the_same_course():
    short = dataclasses.replace(SETTINGS, epochs=1, steps_per_epoch=3)
    first, second = (_fit(short)[1].history for _ in range(2))
    assert first == second


def test_augmentation_changes_what_is_learned_from_and_not_what_is_scored():
    short = dataclasses.replace(SETTINGS, epochs=1, steps_per_epoch=3)
    _, plain = _fit(dataclasses.replace(short, augmentation=False))
    model, varied = _fit(short)
    assert plain.history["loss"] != varied.history["loss"]
    again = validation_scores(model, squares(1), batch_size=4)
    assert again["foreground_iou"] == pytest.approx(varied.best_score, abs=1e-6)


def test_each_sampling_draws_other_batches():
    short = dataclasses.replace(SETTINGS, epochs=1, steps_per_epoch=3)
    histories = [_fit(dataclasses.replace(short, sampling=sampling))[1].history for sampling in SAMPLINGS]
    assert len({tuple(history["loss"]) for history in histories}) == 3


def test_callbacks_see_the_validation_scores():
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    _fit(dataclasses.replace(SETTINGS, epochs=1, steps_per_epoch=2), callbacks=[callback])
    expected = {
        *("dice_kidney", "iou_kidney", "dice_tumour", "iou_tumour"),
        *(f"{score}_label_{label}" for score in ("dice", "iou") for label in (0, 1, 2)),
        *("foreground_iou", "mean_iou_with_background"),
    }
    assert {name.removeprefix("val_") for name in seen[0] if name.startswith("val_")} == expected


def test_a_loss_that_is_no_number_stops_the_training():
    slices = squares(0)
    model = models.build(SETTINGS)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(InputError, match=r"the loss became nan in epoch 1, step 1; try a smaller learning_rate"):
        training.fit(model, slices, slices, SETTINGS)


def test_case_scores_by_hand():
    # rows true, columns predicted: 100 background pixels, 10 kidney (4 taken for tumour), 5 tumour (1 missed)
    scores = case_scores(np.array([[100, 0, 0], [0, 6, 4], [1, 0, 4]]))
    assert scores["dice_kidney"] == 2 * 14 / (15 + 14)  # kidney or tumour: 15 true, 14 predicted, 14 both
    assert scores["dice_tumour"] == 2 * 4 / (5 + 8)
    assert scores["iou_label_1"] == 6 / 10
    assert scores["foreground_iou"] == (14 / 15 + 4 / 9) / 2
    assert scores["mean_iou_with_background"] == pytest.approx((100 / 101 + 6 / 10 + 4 / 9) / 3)


def test_nothing_predicted_is_no_success():
    # what the report's metric read as 0.985: 1 % foreground, nothing found
    scores = case_scores(np.array([[990, 0, 0], [8, 0, 0], [2, 0, 0]]))
    assert scores["foreground_iou"] == 0
    assert scores["mean_iou_with_background"] == pytest.approx(0.99 / 3)


@pytest.mark.parametrize("architecture", ["nnunet", "unet_plus_plus"])
def test_deep_supervision_leaves_a_model_of_one_output(architecture, tmp_path):
    settings = dataclasses.replace(
        SETTINGS, architecture=architecture, deep_supervision=True, depth=3, input_slices=3, epochs=2
    )
    runtime.configure(precision="float32")
    keras.utils.set_random_seed(0)
    model = models.build(settings)
    validation = squares(1)
    fitted = training.fit(model, squares(0), validation, settings)
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    assert fitted.model.output_shape == (None, 32, 32, 3)

    fitted.model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    scores = validation_scores(reloaded, validation, batch_size=4)
    assert scores["foreground_iou"] == pytest.approx(fitted.best_score, abs=1e-6)
    assert scores["foreground_iou"] == pytest.approx(max(fitted.history["val_foreground_iou"]), abs=1e-6)


@pytest.mark.parametrize("how", ["resolution", "equal"])
def test_each_output_counts_by_its_weight(how):
    inputs = keras.Input((8, 8, 1))
    large = keras.layers.Conv2D(3, 1, activation="softmax")(inputs)
    small = keras.layers.AveragePooling2D(2)(large)
    model = keras.Model(inputs, [large, small])
    settings = TrainSettings(deep_supervision_weights=how)
    training._compile(model, settings, label_sizes=[8, 4], metrics=None)
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    labels = [np.random.default_rng(0).integers(0, 3, (2, 8, 8)), np.zeros((2, 4, 4), int)]  # which cost unlike
    loss = make_loss(settings)
    each = [float(loss(*pair)) for pair in zip(labels, model.predict_on_batch(images), strict=True)]
    weights = {"resolution": (2 / 3, 1 / 3), "equal": (1 / 2, 1 / 2)}[how]
    expected = sum(weight * one for weight, one in zip(weights, each, strict=True))
    assert each[0] != pytest.approx(each[1], rel=0.01)
    assert model.test_on_batch(images, labels, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
