"""The weight matrices are PyTorch's interpolation, written as matrices."""

import numpy as np
import pytest
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


@given(SIZES, SIZES)
def test_linear_is_pytorchs(size_in, size_out):
    samples = np.random.default_rng(0).random(size_in, np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(samples)[None, None], size=size_out, mode="linear")
    np.testing.assert_allclose(resampling.linear_weights(size_in, size_out) @ samples, expected[0, 0], atol=1e-5)


@given(st.integers(1, 900), st.integers(1, 600))
def test_nearest_is_pytorchs(size_in, size_out):
    samples = torch.arange(size_in, dtype=torch.float32)[None, None]
    expected = torch.nn.functional.interpolate(samples, size=size_out, mode="nearest")[0, 0]
    np.testing.assert_array_equal(resampling.nearest_index(size_in, size_out), expected.numpy().astype(int))


def test_area_by_hand():
    # 3 samples to 2: the first covers samples 0 and 1 (1.5 of them), the second 1 and 2
    np.testing.assert_allclose(resampling.area_weights(3, 2), [[0.5, 0.5, 0], [0, 0.5, 0.5]])


@pytest.mark.parametrize("weights", [resampling.area_weights(7, 5), resampling.linear_weights(5, 7)])
def test_a_flat_image_stays_flat(weights):
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_both_axes():
    slices = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    resized = resampling.resize_slices(slices, resampling.area_weights(4, 2), resampling.area_weights(6, 3))
    # each output pixel is the mean of a 2 x 2 square: the first of 0, 1, 6, 7
    assert resized.shape == (2, 2, 3)
    assert resized[0, 0, 0] == 3.5
