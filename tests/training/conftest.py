"""Slices that a network can learn from in seconds."""

from collections.abc import Sequence

import numpy as np

from kits_ml.training.batches import SliceArrays


def squares(seed: int, *, cases: Sequence[str] = "aaaaaabbbbbb") -> SliceArrays:
    """Bright squares in noise, 32 x 32: kidney where brighter, tumour where brightest; a slice for each letter."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((len(cases), 32, 32), np.uint8)
    for one in labels:
        row, column = rng.integers(2, 16, 2)
        one[row : row + 12, column : column + 12] = 1
        one[row + 2 : row + 8, column + 2 : column + 8] = 2
    grey = (60 + 70 * labels + rng.normal(0, 5, labels.shape)).astype(np.uint8)
    return SliceArrays(grey=grey, labels=labels, cases=tuple(cases))
