"""Batches hold what the store holds, in an order that the seed alone decides."""

import dataclasses

import keras
import numpy as np
import pytest

from kits_ml.config import PrepareSettings
from kits_ml.training import batches
from kits_ml.workflows.prepare import prepare


def _slices(num_slices: int) -> batches.SliceArrays:
    grey = np.arange(num_slices, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    return batches.SliceArrays(grey=grey, labels=grey % 3, cases=("a",) * num_slices)


def _batches(num_slices: int = 10, **options) -> batches.ShuffledBatches:
    values = {"batch_size": 4, "steps_per_epoch": 5, "seed": 0, **options}
    return batches.ShuffledBatches(_slices(num_slices), **values)


def _label_sum(labels, predicted):
    """The first pixel's label, twice the mean over two slices: their sum; the prediction does not count."""
    return 2 * keras.ops.mean(keras.ops.cast(labels[:, 0, 0], "float32")) + 0 * keras.ops.sum(predicted)


def test_each_pass_takes_every_slice_once():
    drawn = np.concatenate([_batches().positions(step) for step in range(5)])  # 5 x 4 = 2 passes over 10
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_the_seed_decides_the_order():
    first, again, other = (_batches(seed=seed).positions(3).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_epochs_go_on_where_the_last_ended():
    loader = _batches()
    loader.epoch = 1
    image, labels = loader[2]
    chosen = loader.positions(7)
    np.testing.assert_allclose(image[:, 0, 0, 0] * 255, chosen, rtol=1e-6)
    np.testing.assert_array_equal(labels[:, 0, 0], chosen % 3)
    assert image.shape == (4, 4, 4, 1)
    assert image.dtype == np.float32


def test_a_batch_larger_than_the_data_goes_round():
    assert sorted(_batches(num_slices=3, batch_size=6).positions(0)) == [0, 0, 1, 1, 2, 2]


def _store(folder, make_case, **changes):
    for number in range(5):
        make_case(folder / "cases", f"case_{number:05d}", seed=number)
    settings = PrepareSettings(
        **{"data": str(folder / "cases"), "prepared": str(folder / "prepared"), "num_workers": 1, **changes}
    )
    return prepare(settings).store


@pytest.mark.parametrize("image_size", [32, 48])
def test_slices_are_read_case_by_case(image_size, tmp_path, make_case):
    store = _store(tmp_path, make_case, image_size=image_size)
    found = batches.read_slices(store, ["case_00003", "case_00001"])
    assert found.ranges() == {"case_00001": slice(0, 6), "case_00003": slice(6, 12)}
    for number, position in enumerate(store.positions_of(["case_00001", "case_00003"])):
        grey, labels = store.read_slice(store.index[position])
        assert grey.shape == (image_size, image_size)
        np.testing.assert_array_equal(found.with_neighbours(np.array([number]), 1)[0, ..., 0], grey)
        np.testing.assert_array_equal(found.labels_of(np.array([number]))[0], labels)
    # of the 6 slices of a case the middle 4 show a kidney, and 2 of them a tumour as well
    assert batches.describe(found) == {
        "num_slices": 12,
        "num_cases": 2,
        "slices_with_kidney": 8,
        "slices_with_tumour": 4,
    }


def test_pixels_by_the_index_are_those_of_the_labels(tmp_path, make_case):
    found = batches.read_slices(_store(tmp_path, make_case, image_size=32), ["case_00003", "case_00001"])
    counted = dataclasses.replace(found, pixels=None)
    np.testing.assert_array_equal(found.pixels_per_class, counted.pixels_per_class)
    assert batches.describe(found) == batches.describe(counted)


def test_neighbours_may_lie_beyond_the_margin(tmp_path, make_case):
    store = _store(tmp_path, make_case, image_size=32)
    names = ["case_00001", "case_00002"]
    found = batches.read_slices(store, names, margin_mm=0)  # slices 1 to 4 of the 6 of each case show a kidney
    assert found.ranges() == {"case_00001": slice(0, 4), "case_00002": slice(4, 8)}
    seen = found.with_neighbours(np.arange(8), 3)
    rows = [store.index[position] for position in store.positions_of(names)]
    for number, middle in enumerate([1, 2, 3, 4, 7, 8, 9, 10]):
        for channel in range(3):
            expected, _ = store.read_slice(rows[middle + channel - 1])
            np.testing.assert_array_equal(seen[number, ..., channel], expected)


def test_an_epoch_can_begin_at_any_step():
    loader = _batches()  # 5 steps an epoch
    loader.epoch = 1
    whole = [loader[step] for step in range(5)]
    for first in range(5):
        loader.first_step = first
        assert loader.num_batches == 5 - first
        for step in range(5 - first):
            np.testing.assert_array_equal(loader[step][0], whole[first + step][0])
            np.testing.assert_array_equal(loader[step][1], whole[first + step][1])


def test_draws_are_counted_over_the_whole_training():
    loader = _batches()
    assert loader.draws(0).tolist() == [0, 1, 2, 3]
    assert loader.draws(7).tolist() == [28, 29, 30, 31]
    np.testing.assert_array_equal(loader.batch(7)[1][:, 0, 0], loader.positions(7) % 3)


@pytest.mark.parametrize("initial_epoch", [0, 1])
def test_keras_takes_each_batch_once_and_in_order(initial_epoch):
    means = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            means.append(float(logs["loss"]))  # of the epoch so far

    # the loss is the sum of the two slices' numbers, so it tells which came
    slices = dataclasses.replace(_slices(10), labels=_slices(10).grey)
    loader = batches.ShuffledBatches(slices, batch_size=2, steps_per_epoch=3, seed=0)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    model.compile(optimizer="sgd", loss=_label_sum, jit_compile=False)
    model.fit(
        loader,
        epochs=2,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[batches.FollowEpochs(loader), Watch()],
    )
    sums = [int(loader.positions(step).sum()) for step in range(10)]
    expected = [np.mean(sums[first : step + 1]) for first in (0, 3) for step in range(first, first + 3)]
    assert means == pytest.approx(expected[3 * initial_epoch :], rel=1e-5)


def test_the_batches_do_not_depend_on_threads():
    one, several = (_batches(num_threads=num_threads) for num_threads in (1, 3))
    for step in (0, 1, 2, 4, 3):
        for first, second in zip(one[step], several[step], strict=True):
            np.testing.assert_array_equal(first, second)


def test_neighbours_are_of_the_same_case():
    grey = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    slices = batches.SliceArrays(grey=grey, labels=grey, cases=("a", "a", "a", "b", "b"))
    found = slices.with_neighbours(np.array([3, 1, 2]), 3)
    assert found.shape == (3, 4, 4, 3)
    assert found[:, 0, 0].tolist() == [[3, 3, 4], [0, 1, 2], [1, 2, 2]]


def test_labels_for_smaller_outputs():
    image, labels = batches.ShuffledBatches(
        _slices(10), batch_size=2, steps_per_epoch=5, seed=0, input_slices=3, label_sizes=[4, 2]
    )[0]
    assert image.shape == (2, 4, 4, 3)
    assert [one.shape for one in labels] == [(2, 4, 4), (2, 2, 2)]
    one = np.arange(16).reshape(1, 4, 4)
    assert batches.shrink_labels(one, 2).tolist() == [[[5, 7], [13, 15]]]
    np.testing.assert_array_equal(batches.shrink_labels(one, 4), one)
