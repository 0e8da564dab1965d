"""The weight matrices are PyTorch's interpolation, written as matrices."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from kits_ml.data import resampling

SIZES = st.integers(1, 70)


@given(SIZES, SIZES)
def test_area_is_pytorchs(size_in, size_out):
    samples = np.random.default_rng(0).random(size_in, np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(samples)[None, None], size=size_out, mode="area")
    found = resampling.area_weights(size_in, size_out) @ samples
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-6)


@given(st.integers(1, 900), st.integers(1, 600))
def test_nearest_is_pytorchs(size_in, size_out):
    samples = torch.arange(size_in, dtype=torch.float32)[None, None]
    expected = torch.nn.functional.interpolate(samples, size=size_out, mode="nearest")[0, 0]
    np.testing.assert_array_equal(resampling.nearest_index(size_in, size_out), expected.numpy().astype(int))


def test_area_by_hand():
    # 3 samples to 2: the first covers samples 0 and 1 (1.5 of them), the second 1 and 2
    np.testing.assert_allclose(resampling.area_weights(3, 2), [[0.5, 0.5, 0], [0, 0.5, 0.5]])


@given(SIZES, SIZES)
def test_a_flat_image_stays_flat(size_in, size_out):
    for weights in (
        resampling.area_weights(size_in, size_out),
        resampling.nearest_inverse_weights(size_in, size_out),
    ):
        assert weights.shape == (size_out, size_in)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


@given(st.integers(1, 70), st.integers(1, 70))
def test_restoring_gives_back_the_samples_that_were_taken(size, resized_size):
    taken = resampling.nearest_index(size, resized_size)
    ramp = np.arange(size, dtype=np.float32)  # each value says where it came from
    restored = resampling.nearest_inverse_weights(resized_size, size) @ ramp[taken]
    inside = slice(taken[0], taken[-1] + 1)
    np.testing.assert_allclose(restored[inside], ramp[inside], atol=1e-3)


def test_restoring_by_hand():
    # 4 samples were taken from 0 and 2: what lies between is their mean, what lies beyond is the last
    np.testing.assert_allclose(resampling.nearest_inverse_weights(2, 4), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]])


def test_both_axes():
    slices = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    resized = resampling.resize_slices(slices, resampling.area_weights(4, 2), resampling.area_weights(6, 3))
    # each output pixel is the mean of a 2 x 2 square: the first of 0, 1, 6, 7
    assert resized.shape == (2, 2, 3)
    assert resized[0, 0, 0] == 3.5
