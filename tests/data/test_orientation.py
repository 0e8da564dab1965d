"""Arrays and voxel sizes are turned together, and back."""

import numpy as np
import pytest

from kits_ml.data import orientation
from kits_ml.errors import InputError


@pytest.mark.parametrize("codes", ["RAS", "IPL", "SRP"])
def test_reorient_is_undone_by_its_opposite(codes):
    array = np.arange(24).reshape(2, 3, 4)
    there = orientation.reorient(array, source="IPL", target=codes)
    np.testing.assert_array_equal(orientation.reorient(there, source=codes, target="IPL"), array)


@pytest.mark.parametrize("codes", ["RAX", "RRS", "RA", "ras", ""])
def test_reorient_refuses_codes_that_are_none(codes):
    with pytest.raises(InputError, match="expected three axis codes"):
        orientation.reorient(np.zeros((2, 3, 4)), source=codes, target="IPL")


@pytest.mark.parametrize(
    ("codes", "expected"), [("IPL", (5, 2, 3)), ("SAR", (5, 2, 3)), ("RAS", (3, 2, 5)), ("LSP", (3, 5, 2))]
)
def test_sizes_follow_their_axes(codes, expected):
    # slices 5 mm apart (I/S), rows 2 mm (P/A), columns 3 mm (L/R)
    assert orientation.reorient_spacing((5, 2, 3), source="IPL", target=codes) == expected
    assert orientation.reorient_spacing(expected, source=codes, target="IPL") == (5, 2, 3)


def test_two_sizes_are_refused():
    with pytest.raises(InputError, match="spacing_mm: found 2 values, expected 3"):
        orientation.reorient_spacing((1, 2), source="RAS", target="IPL")
