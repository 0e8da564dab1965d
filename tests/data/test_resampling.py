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


def test_a_window_by_hand():
    # samples 0 to 3 in a window from -1 to 5, shrunk to 3: the outputs cover -1..1, 1..3 and 3..5
    found = resampling.window_weights((-1.0, 5.0), (0, 4), 3)
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0.5]])
    np.testing.assert_array_equal(resampling.window_index((-1.0, 5.0), 3), [0, 2, 4])  # under 0, 2 and 4
    # enlarged twice: the middles lie at 0.25, 0.75, 1.25 and 1.75, those of the samples at 0.5 and 1.5
    found = resampling.window_weights((0.0, 2.0), (0, 2), 4)
    np.testing.assert_allclose(found, [[0.75, 0], [0.75, 0.25], [0.25, 0.75], [0, 0.75]])


@given(st.integers(1, 70), st.integers(1, 70), st.floats(-30, 30), st.floats(0.1, 90))
def test_windows_keep_the_mean_and_are_undone(size, size_out, start, length):
    window, inside = (start, start + length), (0, size)
    weights = resampling.window_weights(window, inside, size_out)
    step = length / size_out
    middles = start + (np.arange(size_out) + 0.5) * step
    reach = max(step, 1) / 2 + 0.5
    clear = (middles - reach >= 0) & (middles + reach <= size)
    np.testing.assert_allclose(weights.sum(axis=1)[clear], 1, atol=1e-4)
    assert weights.min(initial=0) >= 0
    assert weights.sum(axis=1).max() <= 1 + 1e-4
    # a ramp keeps its values at the outputs' middles; its steps cost a mean over part of one at most an eighth
    np.testing.assert_allclose((weights @ (np.arange(size) + 0.5))[clear], middles[clear], atol=0.13)
    back = resampling.window_inverse_weights(window, inside, size_out)
    taken = resampling.window_index(window, size_out)
    places = np.arange(size)
    between = (places >= taken[0]) & (places <= taken[-1])
    np.testing.assert_allclose((back @ taken)[between], places[between], atol=1e-2)
