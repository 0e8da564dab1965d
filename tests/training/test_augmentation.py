"""What is drawn depends on seed and draw alone, and happens as often as the settings say."""

import dataclasses

import numpy as np
import pytest
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from kits_ml.config import AugmentationSettings, TrainSettings
from kits_ml.errors import InputError
from kits_ml.training import augmentation, batches, sampling
from kits_ml.training.augmentation import Augmentation, augment, draw_intensity, draw_spatial
from kits_ml.training.intensity import IntensityChange

DEFAULT = AugmentationSettings()
PROBABILITIES = [name for name in AugmentationSettings.names() if name.endswith("_probability")]
NEVER = AugmentationSettings(**dict.fromkeys(PROBABILITIES, 0.0))
ALWAYS = AugmentationSettings(**dict.fromkeys(PROBABILITIES, 1.0))


def _stack(num_slices: int = 12, *, size: int = 32) -> batches.SliceArrays:
    rng = np.random.default_rng(0)
    labels = np.zeros((num_slices, size, size), np.uint8)
    for number, one in enumerate(labels[num_slices // 3 :]):
        one[8:20, 10 : 18 + number % 4] = 1
        one[10:14, 12:16] = 2 if number % 2 else 1
    grey = (60 + 70 * labels + rng.normal(0, 5, labels.shape)).astype(np.uint8)
    return batches.SliceArrays(
        grey=grey, labels=labels, cases=("a",) * (num_slices // 2) + ("b",) * (num_slices // 2)
    )


def _loader(*, cls=batches.ShuffledBatches, settings=ALWAYS, seed=0, workers=1, **options):
    loader = cls(
        _stack(), batch_size=4, steps_per_epoch=5, seed=seed, augment=Augmentation(settings, seed=seed), **options
    )
    loader.workers = workers
    return loader


def _epochs(loader, num_epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All batches of some epochs, as Keras fetches them with the loader's workers."""
    found = []
    adapter = PyDatasetAdapter(loader)
    for epoch in range(loader.epoch, loader.epoch + num_epochs):
        loader.epoch = epoch  # as FollowEpochs does
        adapter.on_epoch_begin()
        found += list(adapter._get_iterator())
        adapter.on_epoch_end()
    return found


def _assert_equal(found, expected):
    assert len(found) == len(expected)
    for (image, labels), (image_expected, labels_expected) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, image_expected)
        np.testing.assert_array_equal(labels, labels_expected)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (batches.ShuffledBatches, {"input_slices": 3}),
        (sampling.BalancedBatches, {}),
        (sampling.ForegroundBatches, {"foreground_fraction": 0.33}),
    ],
)
@pytest.mark.parametrize("threads", [{"num_threads": 4}, {"workers": 4}, {"num_threads": 3, "workers": 2}])
def test_several_threads_make_what_one_makes(cls, options, threads):
    one, several = (_epochs(_loader(cls=cls, **options, **chosen), 2) for chosen in ({}, threads))
    assert len(one) == 10
    _assert_equal(several, one)


def test_a_training_that_goes_on_in_the_middle_makes_what_it_would_have_made():
    whole = _epochs(_loader(), 3)
    rest = _loader(workers=4)
    rest.epoch = 2
    _assert_equal(_epochs(rest, 1), whole[10:])


def test_the_batch_size_does_not_matter():
    images = np.random.default_rng(0).random((6, 16, 16, 1), np.float32)
    labels = np.zeros((6, 16, 16), np.uint8)
    change = Augmentation(ALWAYS, seed=3)
    whole = change(images, labels, first_draw=10)
    parts = [change(images[two : two + 2], labels[two : two + 2], first_draw=10 + two) for two in (0, 2, 4)]
    np.testing.assert_array_equal(whole[0], np.concatenate([part[0] for part in parts]))


def test_seeds_and_draws_differ():
    images, labels = np.random.default_rng(0).random((1, 16, 16, 1), np.float32), np.zeros((1, 16, 16), np.uint8)
    found = [
        Augmentation(ALWAYS, seed=seed)(images, labels, first_draw=draw)[0]
        for seed, draw in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len({one.tobytes() for one in found}) == 4


def test_off_and_never_leave_the_slices_as_they_are():
    image, label_map = np.random.default_rng(0).random((16, 16, 1), np.float32), np.ones((16, 16), np.uint8)
    for seed in range(20):
        found = augment(image, label_map, NEVER, np.random.default_rng(seed))
        assert found[0] is image
        assert found[1] is label_map
    plain = list(batches.ShuffledBatches(_stack(), batch_size=4, steps_per_epoch=5, seed=0))
    _assert_equal(list(_loader(settings=NEVER)), plain)
    off = TrainSettings(augmentation=False, batch_size=4, steps_per_epoch=5, seed=0)
    _assert_equal(list(sampling.make_batches(_stack(), off)), plain)


@pytest.mark.parametrize("input_slices", [1, 3])
def test_what_comes_out_is_what_a_network_takes(input_slices):
    for images, labels in _loader(input_slices=input_slices):
        assert images.shape == (4, 32, 32, input_slices)
        assert labels.shape == (4, 32, 32)
        assert (images.dtype, labels.dtype) == (np.float32, np.uint8)
        assert images.min() >= 0
        assert images.max() <= 1
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_smaller_outputs_get_the_changed_labels():
    _, labels = _loader(label_sizes=[32, 16])[0]
    whole = _loader()[0][1]
    np.testing.assert_array_equal(labels[0], whole)
    np.testing.assert_array_equal(labels[1], batches.shrink_labels(whole, 16))


def _changed(settings: AugmentationSettings, *, num_draws: int) -> dict[str, float]:
    """How often each change happens."""
    spatial = [draw_spatial(settings, np.random.default_rng(seed)) for seed in range(num_draws)]
    intensity = [draw_intensity(settings, np.random.default_rng([1, seed])) for seed in range(num_draws)]
    neutral = IntensityChange()
    happened = {
        "flip_left_right": [one.flip_left_right for one in spatial],
        "flip_up_down": [one.flip_up_down for one in spatial],
        "rotation": [one.rotation_degrees != 0 for one in spatial],
        "scale": [one.scale != 1 for one in spatial],
        "shift": [one.shift != (0, 0) for one in spatial],
        "elastic": [one.bending is not None for one in spatial],
        "brightness": [one.brightness != neutral.brightness for one in intensity],
        "contrast": [one.contrast != neutral.contrast for one in intensity],
        "gamma": [one.gamma != neutral.gamma for one in intensity],
        "blur": [one.blur_sigma_px != neutral.blur_sigma_px for one in intensity],
        "low_resolution": [one.coarseness != neutral.coarseness for one in intensity],
        "noise": [one.noise_std != neutral.noise_std for one in intensity],
    }
    return {f"{name}_probability": float(np.mean(values)) for name, values in happened.items()}


def test_changes_happen_as_often_as_the_settings_say():
    settings = dataclasses.replace(DEFAULT, flip_up_down_probability=0.1)
    found = _changed(settings, num_draws=1000)
    assert list(found) == PROBABILITIES
    for name, share in found.items():
        expected = getattr(settings, name)
        # of 1000 draws at 0.5 the share is known to 0.016; four times that
        assert share == pytest.approx(expected, abs=0.064), name


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_probability_of_0_means_never_and_of_1_always_and_is_for_one_change_alone(name):
    only = dataclasses.replace(NEVER, **{name: 1.0})
    assert _changed(only, num_draws=10) == dict.fromkeys(PROBABILITIES, 0.0) | {name: 1.0}


def test_strengths_keep_to_their_ranges():
    drawn = [
        (draw_spatial(ALWAYS, np.random.default_rng(seed)), draw_intensity(ALWAYS, np.random.default_rng(seed)))
        for seed in range(500)
    ]
    ranges = {
        "rotation": ([one.rotation_degrees for one, _ in drawn], -15, 15),
        "scale": ([one.scale for one, _ in drawn], 1 / 1.3, 1.3),
        "shift": ([share for one, _ in drawn for share in one.shift], -0.1, 0.1),
        "brightness": ([one.brightness for _, one in drawn], 1 / 1.25, 1.25),
        "contrast": ([one.contrast for _, one in drawn], 1 / 1.25, 1.25),
        "gamma": ([one.gamma for _, one in drawn], 1 / 1.4, 1.4),
        "blur": ([one.blur_sigma_px for _, one in drawn], 0, 1),
        "coarseness": ([one.coarseness for _, one in drawn], 1, 2),
        "noise": ([one.noise_std for _, one in drawn], 0, 0.05),
    }
    for name, (values, low, high) in ranges.items():
        assert low <= min(values) < low + 0.02 * (high - low), name  # 500 draws come near both ends
        assert high - 0.02 * (high - low) < max(values) <= high, name
    assert np.mean([one.scale < 1 for one, _ in drawn]) == pytest.approx(0.5, abs=0.09)
    bending = np.stack([one.bending for one, _ in drawn])
    assert bending.shape == (500, augmentation.BENDING_POINTS, augmentation.BENDING_POINTS, 2)
    assert bending.std() == pytest.approx(0.01, rel=0.02)


def test_switching_one_change_off_leaves_the_others():
    without = dataclasses.replace(ALWAYS, rotation_probability=0.0, gamma_factor=1.0)
    for seed in range(5):
        found = draw_spatial(without, np.random.default_rng(seed))
        expected = draw_spatial(ALWAYS, np.random.default_rng(seed))
        assert found.rotation_degrees == 0 != expected.rotation_degrees
        assert (found.scale, found.shift, found.flip_left_right) == (
            expected.scale,
            expected.shift,
            expected.flip_left_right,
        )
        shaded, expected = (draw_intensity(one, np.random.default_rng(seed)) for one in (without, ALWAYS))
        assert shaded == dataclasses.replace(expected, gamma=1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotation_probability", 1.1), ("scale_factor", 0.5), ("noise_std", -0.1), ("augmentation", "light")],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name}: found"):
        AugmentationSettings(**{name: value})
