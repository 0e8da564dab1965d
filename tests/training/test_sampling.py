"""Few slices show a tumour; balanced batches show one as often as not, and every slice gets its turn."""

import numpy as np
import pytest

from kits_ml.training import sampling
from kits_ml.training.batches import SliceArrays

# 12 slices: 0-6 show nothing, 7-10 kidney, 11 kidney and tumour
LABELS = np.zeros((12, 4, 4), np.uint8)
LABELS[7:, 1] = 1
LABELS[11, 2] = 2


def _batches(**options) -> sampling.BalancedBatches:
    slices = SliceArrays(grey=LABELS + np.arange(12, dtype=np.uint8)[:, None, None], labels=LABELS, cases=("a",) * 12)
    return sampling.BalancedBatches(slices, **{"batch_size": 6, "steps_per_epoch": 4, "seed": 0, **options})


def test_slices_stand_where_their_highest_label_is():
    groups = {label: group.tolist() for label, group in sampling.group_by_class(LABELS).items()}
    assert groups == {2: [11], 1: [7, 8, 9, 10], 0: [0, 1, 2, 3, 4, 5, 6]}


def test_each_batch_holds_as_many_of_each():
    for step in range(9):
        drawn = _batches().positions(step)
        assert len(drawn) == 6
        shown = LABELS[drawn].max(axis=(1, 2))
        assert np.bincount(shown).tolist() == [2, 2, 2]  # 6 slices, 3 groups


def test_a_batch_that_three_does_not_divide_is_made_up_for_by_the_next():
    loader = _batches(batch_size=4)
    shown = [np.bincount(LABELS[loader.positions(step)].max(axis=(1, 2))).tolist() for step in range(3)]
    # draws 0-3: tumour, kidney, nothing, tumour; 4-7: kidney, nothing, tumour, kidney; 8-11: nothing, tumour, ...
    assert shown == [[1, 1, 2], [1, 2, 1], [2, 1, 1]]


def test_no_slice_comes_again_before_all_of_its_group_came():
    drawn = np.concatenate([_batches().positions(step) for step in range(14)])  # 14 x 2 = 28 of each group
    background, kidney = drawn[drawn < 7], drawn[(drawn >= 7) & (drawn < 11)]
    assert len(background) == len(kidney) == 28
    passes = background.reshape(4, 7)  # 28 draws are 4 passes over 7 slices ...
    assert (np.sort(passes) == np.arange(7)).all()
    assert len({tuple(one) for one in passes}) == 4  # ... in different orders
    assert (np.sort(kidney.reshape(7, 4)) == np.arange(7, 11)).all()


def test_the_seed_and_the_step_decide():
    first, again, other = [_batches(seed=seed).positions(5).tolist() for seed in (1, 1, 2)]
    assert first == again
    assert first != other
    loader = _batches(seed=1)  # a training that goes on in its second epoch draws what it would have drawn
    loader.epoch = 1
    np.testing.assert_array_equal(loader[1][1], LABELS[first])


@pytest.mark.parametrize(
    ("kept", "expected"), [(slice(0, 11), [2, 2]), (slice(0, 7), [4]), (slice(11, 12), [0, 0, 4])]
)
def test_a_class_that_no_slice_shows_is_left_out(kept, expected):
    drawn = sampling.balanced_positions(sampling.group_by_class(LABELS[kept]), first=0, num_draws=4, seed=0)
    assert np.bincount(LABELS[kept][drawn].max(axis=(1, 2))).tolist() == expected
