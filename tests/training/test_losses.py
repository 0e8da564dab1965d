"""Losses by hand, at the ends of the number range, and in a training."""

import math
import os
import subprocess
import sys
from functools import partial
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest
from keras import ops

from kits_ml import runtime
from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS, PART_WEIGHTS, parse_class_weights
from kits_ml.errors import InputError
from kits_ml.training.losses import PARTS, boundary, make_loss, overlap, pixels
from kits_ml.training.losses.supervision import head_weights

# two pixels: the first is kidney, the second background
LABELS = np.array([[[1, 0]]], np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]]], np.float32)
# the same as two slices of one pixel
SLICES = LABELS.reshape(2, 1, 1), PROBABILITIES.reshape(2, 1, 1, 3)
NAMES = list(LOSS_PARTS)


def _value(loss, labels=LABELS, probabilities=PROBABILITIES) -> float:
    found = loss(ops.convert_to_tensor(labels), ops.convert_to_tensor(probabilities))
    assert found.shape == ()
    return float(ops.convert_to_numpy(found))


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels]


def test_categorical_crossentropy():
    # -(log 0.7 + log 0.6) / 2
    assert _value(pixels.categorical_crossentropy) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)


def test_class_weights_make_a_weighted_mean():
    loss = partial(pixels.categorical_crossentropy, class_weights=(0.5, 3, 9))
    expected = -(3 * math.log(0.7) + 0.5 * math.log(0.6)) / 3.5
    assert _value(loss) == pytest.approx(expected)
    assert _value(partial(loss, class_weights=(1, 6, 18))) == pytest.approx(expected)  # all doubled
    assert _value(partial(loss, class_weights=(0, 0, 1))) == 0  # no tumour there, and nothing else counts


def test_focal():
    # kidney 0.3^2 log 0.7, background 0.4^2 log 0.6
    kidney, background = -(0.3**2) * math.log(0.7), -(0.4**2) * math.log(0.6)
    assert _value(pixels.focal) == pytest.approx((kidney + background) / 2, rel=1e-5)
    weighted = partial(pixels.focal, class_weights=(1, 4, 0))
    assert _value(weighted) == pytest.approx((4 * kidney + background) / 5, rel=1e-5)
    assert _value(partial(pixels.focal, gamma=0)) == pytest.approx(_value(pixels.categorical_crossentropy))


def test_topk_crossentropy_is_the_mean_of_the_worst():
    kidney, background = -math.log(0.7), -math.log(0.6)
    for percent in (1, 50):  # of two pixels one: rounded up
        assert _value(partial(pixels.topk_crossentropy, percent=percent)) == pytest.approx(background)
    assert _value(partial(pixels.topk_crossentropy, percent=100)) == pytest.approx((kidney + background) / 2)
    weighted = partial(pixels.topk_crossentropy, percent=50, class_weights=(1, 3, 1))
    assert _value(weighted) == pytest.approx(3 * kidney)  # 3 * 0.357 is more than 0.511


def test_soft_dice():
    # kidney: (2 * 0.7 + 1) / (1 + (0.7 + 0.3) + 1) = 2.4 / 3; tumour: (0 + 1) / (0 + 0.2 + 1) = 1 / 1.2
    assert _value(overlap.soft_dice) == pytest.approx(1 - (2.4 / 3 + 1 / 1.2) / 2, rel=1e-5)
    # with 0.5: (1.4 + 0.5) / (2 + 0.5) and 0.5 / 0.7
    assert _value(partial(overlap.soft_dice, smoothing=0.5)) == pytest.approx(
        1 - (1.9 / 2.5 + 0.5 / 0.7) / 2, rel=1e-5
    )


def test_soft_dice_of_each_slice():
    loss = partial(overlap.soft_dice, per_slice=True)
    # slice 1, kidney: 2.4 / 2.7, tumour: 1 / 1.1; slice 2, kidney: 1 / 1.3, tumour: 1 / 1.1
    assert _value(loss, *SLICES) == pytest.approx(1 - (2.4 / 2.7 + 1 / 1.1 + 1 / 1.3 + 1 / 1.1) / 4, rel=1e-5)
    # kidney in slice 1 is all that the labels show
    assert _value(partial(loss, skip_absent=True), *SLICES) == pytest.approx(1 - 2.4 / 2.7, rel=1e-5)
    # as one batch the slices are the two pixels above
    assert _value(overlap.soft_dice, *SLICES) == pytest.approx(_value(overlap.soft_dice))


def test_tversky():
    # kidney: TP 0.7, FP 0.3, FN 0.3; tumour: FP 0.2. One pixel of smoothing to twice TP
    loss = partial(overlap.tversky, alpha=0.2, beta=0.9)
    kidney = (2 * 0.7 + 1) / (2 * (0.7 + 0.2 * 0.3 + 0.9 * 0.3) + 1)
    tumour = 1 / (2 * 0.2 * 0.2 + 1)
    assert _value(loss) == pytest.approx(1 - (kidney + tumour) / 2, rel=1e-5)
    assert _value(partial(loss, skip_absent=True)) == pytest.approx(1 - kidney, rel=1e-5)
    assert _value(partial(loss, alpha=0.5, beta=0.5)) == _value(overlap.soft_dice)


def test_focal_tversky():
    index = [(1.4 + 1) / (2 * (0.7 + 0.2 * 0.3 + 0.9 * 0.3) + 1), 1 / (2 * 0.2 * 0.2 + 1)]
    loss = partial(overlap.focal_tversky, alpha=0.2, beta=0.9, gamma=2)
    assert _value(loss) == pytest.approx((math.sqrt(1 - index[0]) + math.sqrt(1 - index[1])) / 2, rel=1e-5)
    plain = _value(partial(overlap.tversky, alpha=0.2, beta=0.9))
    assert _value(partial(loss, gamma=1)) == pytest.approx(plain, rel=1e-6)


def test_generalized_dice():
    # three background pixels and one kidney pixel: weights 1 / 9 and 1, tumour as kidney
    labels = np.array([[[0, 0, 0, 1]]])
    probabilities = np.array([[[[0.9, 0.1, 0], [0.8, 0.1, 0.1], [1, 0, 0], [0.3, 0.5, 0.2]]]], np.float32)
    background, kidney = 2.7, 0.5
    upper = 2 * (background / 9 + kidney)
    lower = (3 + 3.0) / 9 + (1 + 0.7)
    assert _value(overlap.generalized_dice, labels, probabilities) == pytest.approx(
        1 - upper / (lower + 0.3), rel=1e-5
    )
    skipping = partial(overlap.generalized_dice, skip_absent=True)
    assert _value(skipping, labels, probabilities) == pytest.approx(1 - upper / lower, rel=1e-5)


def test_generalized_dice_of_each_slice():
    # slice 1 is kidney, slice 2 background, one pixel each: all weights are 1, the lower half 1 + 1
    loss = partial(overlap.generalized_dice, per_slice=True)
    assert _value(loss, *SLICES) == pytest.approx(1 - (2 * 0.7 / 2 + 2 * 0.6 / 2) / 2, rel=1e-5)


def _square(first: int) -> np.ndarray:
    """A kidney of 5 x 5 in 16 x 16, its boundary 16 pixels."""
    labels = np.zeros((1, 16, 16), np.uint8)
    labels[0, 4:9, first : first + 5] = 1
    return labels


def test_boundaries_meet_within_the_tolerance():
    true, moved = _square(3), _one_hot(_square(5))
    assert _value(partial(boundary.boundary_f1, tolerance=2), true, moved) == pytest.approx(0, abs=1e-6)
    # without tolerance: of two rings of 16 the upper and lower sides share 3 pixels each, and the columns 5 and 7
    # cross no side of the other but at those; precision = recall = (6 + 1) / (16 + 1), and tumour costs nothing
    assert _value(partial(boundary.boundary_f1, tolerance=0), true, moved) == pytest.approx(
        (1 - 7 / 17) / 2, rel=1e-5
    )


def test_a_boundary_that_is_not_there():
    nothing, kidney = np.zeros((1, 16, 16), np.uint8), _square(3)
    # missed: recall (0 + 1) / (16 + 1), precision (0 + 1) / (0 + 1); invented: the other way round
    f1 = 2 * (1 / 17) / (1 + 1 / 17)
    assert _value(boundary.boundary_f1, kidney, _one_hot(nothing)) == pytest.approx((1 - f1) / 2, rel=1e-5)
    assert _value(boundary.boundary_f1, nothing, _one_hot(kidney)) == pytest.approx((1 - f1) / 2, rel=1e-5)
    skipping = partial(boundary.boundary_f1, skip_absent=True)
    assert _value(skipping, kidney, _one_hot(nothing)) == pytest.approx(1 - f1, rel=1e-5)
    assert _value(skipping, nothing, _one_hot(kidney)) == 0


@pytest.mark.parametrize(
    "loss", [overlap.soft_dice, overlap.tversky, overlap.focal_tversky, overlap.generalized_dice]
)
def test_nothing_to_find_and_nothing_found_costs_nothing(loss):
    nothing = np.zeros((2, 4, 4), np.uint8)
    for per_slice in (False, True):
        for skip_absent in (False, True):
            chosen = partial(loss, per_slice=per_slice, skip_absent=skip_absent)
            assert _value(chosen, nothing, _one_hot(nothing)) == pytest.approx(0, abs=1e-6)


def test_the_compound_is_the_weighted_sum():
    parts = _value(pixels.categorical_crossentropy), _value(overlap.soft_dice)
    assert _value(make_loss(LossSettings())) == pytest.approx(sum(parts))
    settings = LossSettings(pixel_weight=0.5, overlap_weight=2)
    assert _value(make_loss(settings)) == pytest.approx(0.5 * parts[0] + 2 * parts[1])
    settings = LossSettings(loss="categorical_crossentropy")
    assert _value(make_loss(settings)) == parts[0]


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        (
            {"loss": "focal", "focal_gamma": 3, "class_weights": "1,2,3"},
            partial(pixels.focal, gamma=3, class_weights=(1, 2, 3)),
        ),
        ({"loss": "topk_crossentropy", "topk_percent": 50}, partial(pixels.topk_crossentropy, percent=50)),
        ({"loss": "tversky", "tversky_alpha": 0.1, "tversky_beta": 2}, partial(overlap.tversky, alpha=0.1, beta=2)),
        ({"loss": "focal_tversky", "focal_tversky_gamma": 2.5}, partial(overlap.focal_tversky, gamma=2.5)),
        ({"loss": "generalized_dice", "overlap_per_slice": True}, partial(overlap.generalized_dice, per_slice=True)),
        (
            {"loss": "dice", "overlap_per_slice": True, "overlap_smoothing": 0.1, "skip_absent_classes": True},
            partial(overlap.soft_dice, per_slice=True, smoothing=0.1, skip_absent=True),
        ),
        (
            {"loss": "dice_crossentropy_boundary", "pixel_weight": 0, "overlap_weight": 0, "boundary_tolerance": 0},
            partial(boundary.boundary_f1, tolerance=0),
        ),
    ],
)  # fmt: skip
def test_settings_reach_the_function(settings, function):
    labels, probabilities = _random(4)
    found = _value(make_loss(LossSettings(**settings)), labels, probabilities)
    assert found == pytest.approx(_value(function, labels, probabilities), rel=1e-6)
    default = _value(make_loss(LossSettings(loss=settings["loss"])), labels, probabilities)
    assert found != pytest.approx(default, rel=1e-3)


def test_the_tables_name_the_same_losses_and_parts():
    assert get_args(get_type_hints(LossSettings)["loss"]) == tuple(LOSS_PARTS)
    assert {part for parts in LOSS_PARTS.values() for part in parts} == set(PART_WEIGHTS) == set(PARTS)


def _random(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 3, (2, size, size)).astype(np.uint8),
        rng.dirichlet([1, 1, 1], (2, size, size)).astype(np.float32),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_something(name):
    loss = make_loss(LossSettings(loss=name))
    labels, _ = _random(8)
    assert _value(loss, labels, _one_hot(labels)) == pytest.approx(0, abs=1e-5)
    assert 0.5 < _value(loss, labels, _one_hot((labels + 1) % 3)) < 72  # 69.08 is -log 1e-30


def _gradient(loss, labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Of the loss of softmax probabilities, with respect to the logits."""
    import tensorflow as tf

    logits = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = loss(tf.constant(labels), ops.softmax(logits, axis=-1))
    return tape.gradient(found, logits).numpy()


on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes TensorFlow's gradients")


@on_tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite_at_saturated_probabilities(name):
    # gammas below 1 and above have an infinite slope at 0, where a careless power gives 0 * inf
    loss = make_loss(LossSettings(loss=name, focal_gamma=0.5, focal_tversky_gamma=3))
    for labels in (np.arange(32).reshape(2, 4, 4) % 3, np.zeros((2, 4, 4), int)):
        for predicted in (labels, (labels + 1) % 3):
            for gap in (20, 60, 1000):  # probabilities of 2e-9, 9e-27 and 0
                logits = gap * _one_hot(predicted)
                assert math.isfinite(_value(loss, labels, np.asarray(ops.softmax(logits))))
                assert np.isfinite(_gradient(loss, labels, logits)).all()


@on_tensorflow
@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0])
def test_a_pixel_that_is_certainly_wrong_still_learns(gap):
    # tumour (2) taken for background: the slope of cross-entropy is p - y, -1 and 1 where p is 0 and 1
    found = _gradient(pixels.categorical_crossentropy, np.full((1, 1, 1), 2), np.array([[[[gap, 0, 0]]]], np.float32))
    other = math.exp(-gap) / (1 + 2 * math.exp(-gap))
    np.testing.assert_allclose(found[0, 0, 0], [1 - 2 * other, other, other - 1], rtol=1e-5, atol=1e-9)


@on_tensorflow
@pytest.mark.parametrize("per_slice", [False, True])
@pytest.mark.parametrize(
    "loss", [overlap.soft_dice, overlap.tversky, overlap.focal_tversky, overlap.generalized_dice]
)
def test_the_pull_of_an_absent_tumour_is_bounded(loss, per_slice):
    labels = np.zeros((2, 16, 16), np.uint8)
    most = 1 / 4 if loss is overlap.generalized_dice else 1 / 4 / 2  # there one fraction, else a mean of two
    for probability in (1e-6, 1e-4, 1 / 512, 1 / 256, 0.1, 0.5):  # P is 1 a batch or a slice at the third and fourth
        logits = np.tile(np.log([1 - probability, 1e-7, probability]).astype(np.float32), (2, 16, 16, 1))
        pull = np.abs(_gradient(partial(loss, per_slice=per_slice), labels, logits)[..., 2]).sum()
        assert 0 < pull <= most


def test_absent_tumours_need_not_dominate():
    # eight slices: one with 10 pixels of tumour, all found; seven without, in each 1 pixel taken for tumour
    labels = np.zeros((8, 4, 4), np.uint8)
    predicted = labels.copy()
    labels[0].flat[:10] = predicted[0].flat[:10] = 2
    predicted[1:, 0, 0] = 2
    # each slice by itself: seven times 1 - 1 / 2, the kidney costs nothing: 3.5 of 16 values
    assert _value(partial(overlap.soft_dice, per_slice=True), labels, _one_hot(predicted)) == pytest.approx(3.5 / 16)
    # as one batch: 1 - (2 * 10 + 1) / (10 + 17 + 1) = 1 / 4 for tumour, 0 for kidney
    assert _value(overlap.soft_dice, labels, _one_hot(predicted)) == pytest.approx(1 / 8)
    skipping = partial(overlap.soft_dice, per_slice=True, skip_absent=True)
    assert _value(skipping, labels, _one_hot(predicted)) == pytest.approx(0, abs=1e-6)


def test_sample_weights_are_refused():
    with pytest.raises(InputError, match=r"sample_weight: the loss dice_focal takes none; use class_weights"):
        make_loss(LossSettings(loss="dice_focal"))(LABELS, PROBABILITIES, np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, r"loss: found 'hinge', expected one of dice_crossentropy, "),
        ({"class_weights": "1,2"}, r"class_weights: found '1,2', expected 3 .*\(background, kidney, tumour\)"),
        ({"class_weights": "1,2,x"}, r"class_weights: found '1,2,x', expected 3 numbers"),
        ({"class_weights": "1,-2,3"}, r"class_weights: found '1,-2,3', .* none negative"),
        ({"class_weights": "0,0,0"}, r"class_weights: found '0,0,0', .* one above 0"),
        ({"class_weights": "1,nan,1"}, r"class_weights: found '1,nan,1'"),
        ({"class_weights": "1,1,2", "loss": "dice"}, r"class_weights: given with the loss dice, which has no cross-"),
        ({"tversky_alpha": 0.0, "tversky_beta": 0}, r"tversky_alpha: found 0 with tversky_beta 0"),
        ({"tversky_beta": -1.0}, r"tversky_beta: found -1.0, expected at least 0"),
        ({"pixel_weight": float("inf")}, r"pixel_weight: found inf, expected a finite number"),
        ({"loss": "tversky", "overlap_weight": 0}, r"overlap_weight: found 0, but nothing else is in the loss tv"),
        ({"overlap_weight": 0, "pixel_weight": 0}, r"overlap_weight: found 0, but nothing else is in the loss di"),
        ({"overlap_smoothing": 0}, r"overlap_smoothing: found 0, expected at least 1e-05"),
        ({"focal_tversky_gamma": 0.5}, r"focal_tversky_gamma: found 0.5, expected 1 to 3"),
        ({"topk_percent": 0}, r"topk_percent: found 0, expected 1 to 100"),
    ],
)  # fmt: skip
def test_bad_settings_get_one_line(change, message):
    with pytest.raises(InputError, match=message) as found:
        LossSettings(**change)
    assert "\n" not in str(found.value)


def test_class_weights_are_read():
    assert parse_class_weights("0.2, 1,3") == (0.2, 1, 3)
    assert parse_class_weights(None) is None


def test_heads_weigh_as_asked():
    assert head_weights([64, 32, 16], "resolution") == [4 / 7, 2 / 7, 1 / 7]  # halved from one to the next
    assert head_weights([32, 32], "resolution") == [0.5, 0.5]
    assert head_weights([32, 32, 32], "halving") == [4 / 7, 2 / 7, 1 / 7]
    assert head_weights([64, 32], "equal") == [0.5, 0.5]


def _fit(settings: LossSettings, *, jit_compile: bool | str) -> list[float]:
    """Losses of a network of one layer on three images, in batches of two and one."""
    runtime.configure(precision="float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", activation="softmax")(inputs))
    model.compile(keras.optimizers.Adam(0.05), loss=make_loss(settings), jit_compile=jit_compile)
    labels = np.concatenate([_square(3), _square(8), 2 * _square(5)])[:, 2:10, 3:11]
    images = labels[..., None].astype(np.float32)
    return model.fit(images, labels, epochs=12, batch_size=2, shuffle=False, verbose=0).history["loss"]


def test_a_compiled_training_lowers_the_loss():
    # top-k counts pixels of batches whose size the graph does not know
    losses = _fit(LossSettings(loss="dice_topk_crossentropy"), jit_compile=runtime.jit_compile())
    assert losses[-1] < losses[0]


EVERY_LOSS = """
import sys
import numpy as np
from kits_ml.config import LossSettings
from kits_ml.config.losses import LOSS_PARTS
from tests.training import test_losses as here
values = []
for name in LOSS_PARTS:
    for per_slice in (False, True):
        settings = LossSettings(loss=name, overlap_per_slice=per_slice, focal_gamma=1.5)
        values.append(here._value(here.make_loss(settings), *here._random(8)))
    losses = here._fit(settings, jit_compile=True if sys.argv[2] == "xla" else "auto")
    assert losses[-1] < losses[0], (name, losses)
np.save(sys.argv[1], values)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "compiler"), [("tensorflow", "xla"), ("torch", "auto"), ("jax", "auto")])
def test_every_backend_trains_with_every_loss_and_agrees(backend, compiler, tmp_path):
    pytest.importorskip(backend)
    expected = [
        _value(make_loss(LossSettings(loss=name, overlap_per_slice=per_slice, focal_gamma=1.5)), *_random(8))
        for name in LOSS_PARTS
        for per_slice in (False, True)
    ]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVERY_LOSS, tmp_path / "values.npy", compiler],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        timeout=800,
    )
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), expected, rtol=1e-4)
