"""Few slices show a tumour; each way of drawing shows as many as it promises, by the seed and the step alone."""

import numpy as np
import pytest

from kits_ml import runtime
from kits_ml.config import TrainSettings
from kits_ml.data.slices import pixels_per_class
from kits_ml.errors import InputError
from kits_ml.training import batches, sampling
from kits_ml.training.batches import SliceArrays

# 12 slices: 0-6 show nothing, 7-10 kidney, 11 kidney and tumour
LABELS = np.zeros((12, 4, 4), np.uint8)
LABELS[7:, 1] = 1
LABELS[11, 2] = 2
PIXELS = np.array(pixels_per_class(LABELS))
SLICES = SliceArrays(grey=LABELS + np.arange(12, dtype=np.uint8)[:, None, None], labels=LABELS, cases=("a",) * 12)


def _batches(**options) -> sampling.BalancedBatches:
    return sampling.BalancedBatches(SLICES, **{"batch_size": 6, "steps_per_epoch": 4, "seed": 0, **options})


def _foreground(slices=SLICES, **options) -> sampling.ForegroundBatches:
    values = {"batch_size": 6, "steps_per_epoch": 4, "seed": 0, "foreground_fraction": 0.33, **options}
    return sampling.ForegroundBatches(slices, **values)


def test_slices_stand_where_their_highest_label_is():
    groups = {label: group.tolist() for label, group in sampling.group_by_class(PIXELS).items()}
    assert groups == {2: [11], 1: [7, 8, 9, 10], 0: [0, 1, 2, 3, 4, 5, 6]}


def test_a_slice_shows_every_class_that_it_has_pixels_of():
    shown = {label: found.tolist() for label, found in sampling.slices_showing(PIXELS).items()}
    assert shown == {1: [7, 8, 9, 10, 11], 2: [11]}
    assert sampling.slices_showing(PIXELS[:7]) == {}


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


@pytest.mark.parametrize("make", [_batches, _foreground])
def test_the_seed_and_the_step_decide(make):
    first, again, other = [make(seed=seed).positions(5).tolist() for seed in (1, 1, 2)]
    assert first == again
    assert first != other
    loader = make(seed=1)  # a training that goes on in its second epoch draws what it would have drawn
    loader.epoch = 1
    np.testing.assert_array_equal(loader[1][1], LABELS[first])


@pytest.mark.parametrize(
    ("kept", "expected"), [(slice(0, 11), [2, 2]), (slice(0, 7), [4]), (slice(11, 12), [0, 0, 4])]
)
def test_a_class_that_no_slice_shows_is_left_out(kept, expected):
    drawn = sampling.balanced_positions(sampling.group_by_class(PIXELS[kept]), np.arange(4), seed=0)
    assert np.bincount(LABELS[kept][drawn].max(axis=(1, 2))).tolist() == expected


@pytest.mark.parametrize(
    # nnU-Net's third: 0.33 x 8 = 2.64, 0.33 x 2 = 0.66, and 0.25 x 8 is two exactly, 0.1 x 30 three
    ("fraction", "batch_size", "expected"),
    [(0.33, 8, 3), (0.33, 2, 1), (0.25, 8, 2), (0.1, 30, 3), (0.0, 8, 0), (1.0, 8, 8)],
)
def test_at_least_the_asked_share_is_forced(fraction, batch_size, expected):
    loader = _foreground(foreground_fraction=fraction, batch_size=batch_size)
    assert loader.num_forced == expected
    for step in range(20):
        drawn = loader.positions(step)
        assert len(drawn) == batch_size
        assert (drawn[loader.forced] >= 7).all()


def test_each_device_gets_its_share_of_what_is_forced():
    loader = _foreground(foreground_fraction=0.5, batch_size=8)
    assert [int((loader.forced // 2 == device).sum()) for device in range(4)] == [1, 1, 1, 1]


def test_forced_slices_show_a_tumour_as_often_as_a_kidney():
    drawn = np.concatenate([_foreground(foreground_fraction=1.0).positions(step) for step in range(200)])
    # tumour is picked for half the draws, and there is only slice 11; of the other half one in five is slice 11 too
    assert np.mean(drawn == 11) == pytest.approx(0.5 + 0.5 / 5, abs=0.05)  # 1,200 draws: standard error 0.014
    assert set(drawn) == set(range(7, 12))


def test_the_slices_that_are_not_forced_come_in_turn():
    loader = _foreground()  # 2 of 6 forced, so 4 a batch come in turn: 3 batches are a pass over 12
    free = np.concatenate([np.delete(loader.positions(step), loader.forced) for step in range(6)]).reshape(2, 12)
    assert (np.sort(free) == np.arange(12)).all()
    assert free[0].tolist() != free[1].tolist()


def test_only_the_class_that_is_there_is_forced():
    kidneys = SliceArrays(grey=LABELS[:11], labels=LABELS[:11], cases=("a",) * 11)
    loader = _foreground(kidneys)
    drawn = np.concatenate([loader.positions(step)[loader.forced] for step in range(20)])
    assert set(drawn) == {7, 8, 9, 10}


def test_no_foreground_to_force():
    nothing = SliceArrays(grey=LABELS[:7], labels=LABELS[:7], cases=("a",) * 7)
    with pytest.raises(InputError, match="none of 7 training slices shows kidney or tumour"):
        _foreground(nothing)
    assert sorted(_foreground(nothing, foreground_fraction=0.0, batch_size=7).positions(0)) == list(range(7))


@pytest.mark.parametrize(
    ("kind", "cores", "wanted", "expected"),
    [("cpu", 64, 0, 1), ("gpu", 16, 0, 8), ("gpu", 4, 0, 3), ("gpu", 1, 0, 1), ("gpu", 16, 2, 2), ("cpu", 2, 5, 5)],
)
def test_a_gpu_gets_more_threads_that_make_batches(kind, cores, wanted, expected, monkeypatch):
    monkeypatch.setattr(runtime, "accelerator", lambda: runtime.Accelerator(kind, ("0",)))
    monkeypatch.setattr(runtime.os, "cpu_count", lambda: cores)
    threads = []
    monkeypatch.setattr(batches, "Ahead", lambda make, *, num_threads: threads.append(num_threads))
    sampling.make_batches(SLICES, TrainSettings(num_loader_threads=wanted))
    assert threads == [expected]


@pytest.mark.parametrize(("name", "cls"), sampling.SAMPLINGS.items())
def test_settings_choose_the_way(name, cls):
    settings = TrainSettings(sampling=name, batch_size=5, steps_per_epoch=2, seed=3, augmentation=False)
    loader = sampling.make_batches(SLICES, settings)
    loader.epoch = 2  # of 2 steps each
    assert type(loader) is cls
    np.testing.assert_array_equal(loader[1][1], LABELS[loader.positions(5)])
    assert (loader.num_batches, loader.seed) == (2, 3)


def test_a_fraction_that_would_not_count_is_refused():
    assert TrainSettings(sampling="foreground", foreground_fraction=0.5).foreground_fraction == 0.5
    with pytest.raises(InputError, match=r"foreground_fraction: found 0\.5 with sampling shuffled"):
        TrainSettings(foreground_fraction=0.5)
