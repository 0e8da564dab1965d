"""Pieces found slab by slab are those of the whole mask, and near is what lies near, brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from kits_ml.inference import pieces
from kits_ml.inference.nearness import Nearness
from kits_ml.inference.pieces import Pieces

_masks = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7))


@pytest.fixture(autouse=True, scope="module")
def small_slabs():
    """So that a small mask has several slabs."""
    before, pieces.SLAB_VOXELS = pieces.SLAB_VOXELS, 30
    yield
    pieces.SLAB_VOXELS = before


@settings(max_examples=150, deadline=None)
@given(_masks, st.booleans())
def test_slabs_give_the_pieces_of_the_whole(mask, corners):
    found = Pieces(mask.__getitem__, mask.shape, corners=corners)
    expected, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3 if corners else 1))
    numbers = np.concatenate([part for _, part in found.numbers()])
    assert found.count == count
    # the same partition: each pair of numbers stands together or not at all
    assert len(np.unique(np.stack([numbers.ravel(), expected.ravel()]), axis=1).T) == len(np.unique(expected))
    assert found.num_voxels[1:].tolist() == np.bincount(numbers.ravel(), minlength=count + 1)[1:].tolist()
    faces = np.ones(mask.shape, bool)
    faces[1:-1, 1:-1, 1:-1] = False
    assert set(np.flatnonzero(found.at_the_border())) == set(np.unique(numbers[faces])) - {0}


@settings(max_examples=100, deadline=None)
@given(_masks, st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3), st.sampled_from([0.0, 1.0, 1.5, 4.0]))
def test_near_is_what_lies_near(mask, spacing_mm, distance_mm):
    near = np.concatenate(
        [Nearness(mask, spacing_mm=spacing_mm, distance_mm=distance_mm)(part) for part in pieces.slabs(mask.shape)]
    )
    every = np.argwhere(np.ones(mask.shape, bool))
    marked = np.argwhere(mask)
    steps = np.abs(every[:, None] - marked[None])
    touching = (steps.max(axis=-1, initial=0) <= 1).any(axis=1)
    within = (((steps * spacing_mm) ** 2).sum(axis=-1) <= distance_mm**2 + 1e-9).any(axis=1)
    np.testing.assert_array_equal(near.ravel(), touching | within)


@pytest.mark.parametrize(
    ("spacing_mm", "distance_mm", "reach"),
    [
        (float(np.float32(0.4)), 4.0, 10),  # ten slices further: 4.00000006 mm
        (5.0000002, 10.0, 2),  # two slices further: 10.0000004 mm
    ],
)
def test_slices_that_are_just_within_reach_stay_so_when_spacings_are_rounded(spacing_mm, distance_mm, reach):
    mask = np.zeros((reach + 3, 1, 1), bool)
    mask[0] = True
    nearness = Nearness(mask, spacing_mm=(spacing_mm, 1.0, 1.0), distance_mm=distance_mm)
    assert nearness(slice(0, reach + 3)).ravel().tolist() == [True] * (reach + 1) + [False] * 2


def test_nothing_has_no_pieces():
    found = Pieces(np.zeros((4, 5, 6), bool).__getitem__, (4, 5, 6))
    assert found.count == 0
    assert not found.meeting(np.ones((4, 5, 6), bool).__getitem__).any()
