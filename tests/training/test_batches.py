"""Batches hold what the store holds, in an order that the seed alone decides."""

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
    loader.go_to(1)
    image, labels = loader[2]
    chosen = loader.positions(7)
    np.testing.assert_allclose(image[:, 0, 0, 0] * 255, chosen, rtol=1e-6)
    np.testing.assert_array_equal(labels[:, 0, 0], chosen % 3)
    assert image.shape == (4, 4, 4, 1)
    assert image.dtype == np.float32


def test_a_batch_larger_than_the_data_goes_round():
    assert sorted(_batches(num_slices=3, batch_size=6).positions(0)) == [0, 0, 1, 1, 2, 2]


def test_slices_are_read_case_by_case(tmp_path, make_case):
    for number in range(5):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number)
    settings = PrepareSettings(
        data=str(tmp_path / "cases"), prepared=str(tmp_path / "prepared"), image_size=32, num_workers=1
    )
    store = prepare(settings).store
    found = batches.read_slices(store, ["case_00003", "case_00001"], description="read")
    assert found.ranges() == {"case_00001": slice(0, 6), "case_00003": slice(6, 12)}
    for number, row in enumerate(store.rows_of(["case_00001", "case_00003"])):
        grey, labels = store.read_slice(row)
        np.testing.assert_array_equal(found.grey[number], grey)
        np.testing.assert_array_equal(found.labels[number], labels)
    described = batches.describe(found)
    assert (described["num_slices"], described["num_cases"]) == (12, 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_order_does_not_depend_on_threads(workers):
    loader = _batches()
    loader.workers = workers
    assert [loader.positions(step).tolist() for step in range(3)] == [
        _batches().positions(step).tolist() for step in range(3)
    ]


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
