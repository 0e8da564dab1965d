"""Each change of the grey values does what its arithmetic says, within [0, 1]."""

import numpy as np
import pytest

from kits_ml.training.intensity import IntensityChange, blur, coarsen, shade, with_contrast


def _noise(low: float = 0, high: float = 1, *, size: int = 64, num_slices: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (size, size, num_slices)).astype(np.float32)


def _shade(image: np.ndarray, seed: int = 0, **change: float) -> np.ndarray:
    return shade(image, IntensityChange(**change), np.random.default_rng(seed))


def test_nothing_to_change():
    image = _noise()
    assert _shade(image) is image


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 2},
        {"contrast": 3},
        {"gamma": 0.7},
        {"blur_sigma_px": 0.8},
        {"coarseness": 1.7},
        {"noise_std": 0.3},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("num_slices", [1, 3, 5])
def test_shape_type_and_range_stay(change, num_slices):
    image = _noise(num_slices=num_slices)
    kept = image.copy()
    found = _shade(image, **change)
    assert found.shape == image.shape
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.abs(found - image).max() > 0.01
    np.testing.assert_array_equal(image, kept)


def test_brightness_multiplies():
    image = _noise()
    np.testing.assert_allclose(_shade(image, brightness=1.2), np.minimum(1.2 * image, 1), rtol=1e-6)


def test_contrast_multiplies_the_distance_from_the_mean():
    image = np.array([[0.4, 0.6], [0.5, 0.5]], np.float32)[..., None]  # mean 0.5
    np.testing.assert_allclose(with_contrast(image, 1.5)[..., 0], [[0.35, 0.65], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(with_contrast(image, 0.5)[..., 0], [[0.45, 0.55], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(with_contrast(image, 10)[..., 0], [[0, 1], [0.5, 0.5]], atol=1e-6)


def test_gamma_is_a_power():
    image = _noise()
    np.testing.assert_allclose(_shade(image, gamma=2), image**2, rtol=1e-6)
    np.testing.assert_allclose(_shade(image, gamma=0.5) ** 2, image, rtol=1e-5)
    np.testing.assert_array_equal(_shade(np.float32([[[0], [1]]]), gamma=1.4), np.float32([[[0], [1]]]))


def test_noise_has_its_standard_deviation_and_each_neighbour_its_own():
    image = np.full((128, 128, 3), 0.5, np.float32)
    added = _shade(image, noise_std=0.05) - image
    # of 16384 draws the standard deviation is known to 0.05 / sqrt(2 x 16384) = 0.0003, the mean to 0.0004
    np.testing.assert_allclose(added.std(axis=(0, 1)), 0.05, atol=0.0015)
    np.testing.assert_allclose(added.mean(axis=(0, 1)), 0, atol=0.002)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.04
    np.testing.assert_array_equal(_shade(image, noise_std=0.05), image + added)
    assert not np.array_equal(_shade(image, seed=1, noise_std=0.05), image + added)


def test_blur_is_gaussian():
    point = np.zeros((33, 33, 1), np.float32)
    point[16, 16] = 1
    found = blur(point, sigma_px=1.5)[..., 0]
    assert found.sum() == pytest.approx(1, abs=1e-4)
    squared = (np.arange(33) - 16.0) ** 2
    assert (found.sum(axis=0) * squared).sum() == pytest.approx(1.5**2, rel=0.02)  # the variance
    np.testing.assert_allclose(found, found.T, atol=1e-7)


def test_coarse_pixels_are_means():
    image = _noise(size=32)
    means = image.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    found = coarsen(image, 2)[..., 0]
    # what is finer than two pixels is gone: the deviation of the means of four is half that of the pixels
    assert found.std() < 0.75 * image.std()
    assert found.std() == pytest.approx(means.std(), rel=0.25)
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 32, dtype=np.float32)[:, None, None], (32, 32, 1))
    np.testing.assert_allclose(coarsen(ramp, 2)[4:-4], ramp[4:-4], atol=0.005)  # what is smooth stays


def test_the_coarsest_slice_is_one_pixel():
    image = _noise(size=4)
    np.testing.assert_allclose(coarsen(image, 8), np.full((4, 4, 1), image.mean()), atol=1e-5)
