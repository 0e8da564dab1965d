"""Slices that a network can learn from in seconds."""

from collections.abc import Sequence

import numpy as np

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.training.batches import SliceArrays
from kits_ml.training.fit import fit


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


def two_patients(seed: int) -> SliceArrays:
    """Two patients of four slices, 32 x 32: the same squares in each, a kidney with a tumour."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[:, 8:16, 8:16] = 1
    labels[:, 10:12, 10:12] = 2
    grey = (60 + 70 * labels + rng.normal(0, 5, labels.shape)).astype(np.uint8)
    return SliceArrays(grey=grey, labels=labels, cases=("a",) * 4 + ("b",) * 4)


def fit_two_patients(settings: TrainSettings):
    """A model trained on two such patients, and what `fit` gave; the same each time."""
    runtime.configure(precision="float32")
    runtime.seed_everything(0)
    model = models.build(settings)
    return model, fit(model, two_patients(0), two_patients(1), settings)
