"""Entropy, confidence and spread are what their formulas say, a byte a voxel, on the scan's grid."""

import errno
import os
import tempfile

import numpy as np
import pytest

from kits_ml.errors import InputError
from kits_ml.inference import pieces
from kits_ml.inference.uncertainty import UncertaintyMeter, normalised_entropy, normalised_spread


def _pixels(*probabilities) -> np.ndarray:
    """`(classes, 1, pixels)` float32."""
    return np.array(probabilities, np.float32).T[:, None]


def test_entropy_is_0_for_certainty_and_1_for_ignorance():
    # half and half: ln 2 / ln 3 = 0.6309
    found = normalised_entropy(_pixels([1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]))
    np.testing.assert_allclose(found, [[0, 1, 0.6309]], atol=1e-4)


def test_spread_is_0_for_agreement_and_1_for_an_even_share_of_certainties():
    three = np.eye(3, dtype=np.float32)  # three members, each certain of another class
    np.testing.assert_allclose(normalised_spread(three.var(axis=0)[:, None]), 1, rtol=1e-6)
    np.testing.assert_allclose(normalised_spread(np.zeros((3, 2, 2))), 0)
    # two members at 0.9 and 0.7 for class 0, the rest class 1: variance 0.01 each, sqrt(0.02 / (2/3)) = 0.1732
    two = np.array([[0.9, 0.1, 0], [0.7, 0.3, 0]])
    np.testing.assert_allclose(normalised_spread(two.var(axis=0)[:, None]), 0.1732, atol=1e-4)


def test_the_meter_keeps_what_it_is_shown():
    meter = UncertaintyMeter((2, 3, 4))
    meter(1, (slice(1, 2), slice(1, 4)), _pixels([1, 0, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6]))
    # 0.6309 * 255 = 160.9; (0.2 ln 5 + 0.2 ln 5 + 0.6 ln (1 / 0.6)) / ln 3 = 0.8650, * 255 = 220.6
    assert meter.entropy[1].tolist() == [[0, 0, 0, 0], [0, 0, 161, 221], [0, 0, 0, 0]]
    assert meter.confidence[1].tolist() == [[255] * 4, [255, 255, 128, 153], [255] * 4]
    assert not meter.entropy[0].any()
    assert (meter.confidence[0] == 255).all()
    assert meter.entropy.dtype == np.uint8
    assert meter.spread is None


def test_certain_pixels_lose_nothing_to_rounding():
    confident = _pixels(*[[1 - p, p / 2, p / 2] for p in np.geomspace(1e-6, 0.5, 50)])
    meter = UncertaintyMeter((1, 1, 50))
    meter(0, (slice(0, 1), slice(0, 50)), confident)
    np.testing.assert_array_equal(meter.entropy[0], np.rint(normalised_entropy(confident) * 255))


def test_the_spread_is_kept_where_it_is_given():
    meter = UncertaintyMeter((2, 1, 2))
    variance = np.eye(3).var(axis=0)[:, None, None] * np.array([[1.0, 0.25]])  # a quarter: half the spread
    meter.add_variance(1, (slice(0, 1), slice(0, 2)), variance)
    assert meter.spread.tolist() == [[[0, 0]], [[255, 128]]]


def test_a_mean_over_nothing_is_none():
    meter = UncertaintyMeter((1, 1, 3))
    meter.entropy[:] = [0, 255, 51]
    label_map = np.array([[[0, 1, 1]]], np.uint8)
    assert meter.means(label_map, 1) == {"confidence": 1.0, "entropy": pytest.approx((1 + 0.2) / 2)}
    assert meter.means(label_map, 2) == {"confidence": None, "entropy": None}


@pytest.mark.parametrize("slab_voxels", [1, 40, 1 << 23])
def test_means_are_the_same_in_slabs(slab_voxels, monkeypatch):
    monkeypatch.setattr(pieces, "SLAB_VOXELS", slab_voxels)
    rng = np.random.default_rng(0)
    meter = UncertaintyMeter((7, 4, 5))
    meter.add_variance(3, (slice(4), slice(5)), rng.random((3, 4, 5)) / 9)
    meter.confidence[:], meter.entropy[:] = rng.integers(0, 256, (2, 7, 4, 5))
    label_map = rng.integers(0, 3, (7, 4, 5))
    for label in range(3):
        for name, mean in meter.means(label_map, label).items():
            assert mean == pytest.approx(getattr(meter, name)[label_map == label].mean() / 255)


def test_the_file_is_gone_with_the_meter():
    meter = UncertaintyMeter((2, 3, 4))
    meter.add_variance(1, (slice(3), slice(4)), np.full((3, 3, 4), 0.1))
    kept = meter.entropy
    kept[1] = 7
    assert (meter.entropy[1] == 7).all()
    assert not meter.entropy[0].any()
    file = meter._file
    del meter
    assert file.closed
    assert kept[1, 0, 0] == 7  # what was asked for lives on


def test_no_room_is_said_at_once(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    meter = UncertaintyMeter((2, 3, 4))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    for ask, options in ((UncertaintyMeter, [(2, 3, 4)]), (meter.add_variance, [0, (slice(3), slice(4)), None])):
        with pytest.raises(OSError, match="No space left") as caught:
            ask(*options)
        assert caught.value.filename == tempfile.gettempdir()  # not the outputs' folder


def test_a_shape_that_is_none():
    with pytest.raises(InputError, match=r"shape: found \(3, 4\), expected \(slices, rows, columns\)"):
        UncertaintyMeter((3, 4))
