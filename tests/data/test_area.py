"""Adding up whole numbers gives the same as MONAI's mode `area`, whatever the sizes and memory orders."""

import numpy as np
import pytest

from kits_ml.data import area, blocks, resampling


def _as_they_are(values: np.ndarray, out: np.ndarray) -> None:
    out[:] = values


@pytest.mark.parametrize(
    ("rows", "columns", "size_out"), [(4, 4, 2), (5, 3, 4), (17, 33, 32), (64, 97, 5), (7, 9, 20)]
)
def test_same_as_the_matrix_products(rows, columns, size_out):
    samples = np.random.default_rng(0).integers(0, 256, (3, rows, columns)).astype(np.float32)
    row_weights, column_weights = (resampling.area_weights(size, size_out).astype(float) for size in (rows, columns))
    expected = row_weights @ samples @ column_weights.T
    found = area.area_means(samples.transpose(2, 1, 0), size_out, _as_they_are).transpose(2, 1, 0)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5 + 1e-4  # the nearest


def test_a_mean_by_hand():
    # three samples onto two: the middle one counts in both. (10 + 20) / 2 = 15, (20 + 60) / 2 = 40
    columns_first = np.tile(np.float32([10, 20, 60]), (3, 1)).T[:, :, None]
    np.testing.assert_array_equal(area.area_means(columns_first, 2, _as_they_are)[..., 0], [[15, 15], [40, 40]])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_memory_order_does_not_change_a_bit(order):
    samples = np.random.default_rng(1).uniform(0, 255, (31, 29, 6)).astype(np.float32)
    other = np.ascontiguousarray(samples.transpose(order)).transpose(np.argsort(order))
    expected = area.area_means(samples, 13, _as_they_are)
    np.testing.assert_array_equal(area.area_means(other, 13, _as_they_are), expected)
    np.testing.assert_array_equal(area.area_means(samples[:, :, :2], 13, _as_they_are), expected[:, :, :2])


@pytest.mark.parametrize("num_slices", [1, 3, 32])
def test_blocks_are_the_slices(num_slices):
    array = np.arange(7 * 10 * 9, dtype=np.int16).reshape(9, 10, 7).T
    found = [block.copy() for block in blocks.contiguous_blocks(array, num_slices)]
    assert all(block.flags.c_contiguous for block in found)
    assert [len(block) for block in found[:-1]] == [num_slices] * (len(found) - 1)
    np.testing.assert_array_equal(np.concatenate(found), array)
