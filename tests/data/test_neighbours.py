"""A slice's neighbours are of its own case, and the end slices are repeated."""

import numpy as np
import pytest

from kits_ml.data.neighbours import neighbour_positions, stack_neighbours


def test_positions_stay_in_the_case():
    # two cases: slices 0 to 2, and 3 to 4
    found = neighbour_positions(
        np.array([0, 2, 3, 4]), first=np.array([0, 0, 3, 3]), last=np.array([2, 2, 4, 4]), num_slices=5
    )
    assert found.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [3, 3, 3, 4, 4], [3, 3, 4, 4, 4]]


@pytest.mark.parametrize("num_slices", [1, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
@pytest.mark.parametrize("block_sizes", [[11], [4, 4, 3], [1] * 11, [8, 3], [1]])
def test_stacks_do_not_depend_on_blocks_and_batches(num_slices, batch_size, block_sizes):
    total = sum(block_sizes)
    case = np.random.default_rng(0).integers(0, 255, (total, 2, 3)).astype(np.uint8)
    blocks = iter(np.split(case, np.cumsum(block_sizes)[:-1]))
    batches = list(stack_neighbours(blocks, num_slices=num_slices, batch_size=batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    positions = np.arange(total)
    around = neighbour_positions(
        positions, first=0 * positions, last=0 * positions + total - 1, num_slices=num_slices
    )
    np.testing.assert_array_equal(np.concatenate(batches), np.moveaxis(case[around], 1, -1))


def test_blocks_are_taken_as_they_are_needed():
    taken = []

    def blocks():
        for number in range(100):
            taken.append(number)
            yield np.zeros((2, 1, 1), np.uint8)

    next(stack_neighbours(blocks(), num_slices=3, batch_size=4))
    assert len(taken) == 3  # the slice before, four slices and the one after: 1 + 2 x 3 = 7 of 6
