"""How sure a network is of each voxel, kept in a byte a voxel while a scan is segmented."""

from __future__ import annotations

import numpy as np

from kits_ml.errors import InputError

#: Surer than this, a voxel's entropy is less than half a step of 1/255: not worth its logarithms.
_CERTAIN = 1 - 1e-4


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon's entropy in units of its largest value: 0 is certain, 1 all classes alike.

    Args:
        probabilities: `(classes, ...)`, at least two classes, summing to 1 over the first axis. A class of
            probability 0 adds nothing.

    Returns:
        `(...)` float32 in [0, 1].
    """
    p = np.clip(np.asarray(probabilities, np.float32), 1e-12, 1)
    entropy = -(p * np.log(p)).sum(axis=0) / np.log(len(p))
    return np.clip(entropy, 0, 1).astype(np.float32)


def normalised_spread(variance: np.ndarray) -> np.ndarray:
    """How far several predictions are apart: 0 all say the same, 1 they are as different as they can be.

    The square root of the variance summed over the classes, in units of its largest value: where certain predictions
    share themselves out evenly among the C classes, that sum is 1 - 1/C.

    Args:
        variance: `(classes, ...)`, of each class's probability between the predictions (mean of squares minus square
            of the mean).

    Returns:
        `(...)` float32 in [0, 1].
    """
    variance = np.asarray(variance, np.float32)
    largest = 1 - 1 / len(variance)
    return np.sqrt(np.clip(variance.sum(axis=0) / largest, 0, 1)).astype(np.float32)


class UncertaintyMeter:
    """Keeps entropy and confidence of a scan as it is segmented; what `Predictor.segment` calls `observe`.

    Two bytes a voxel, three with the spread. Where the network's window does not reach, all is certain background.

    Args:
        shape: of the scan, `(slices, rows, columns)`.

    Attributes:
        entropy: `(slices, rows, columns)` uint8, `normalised_entropy` from 0 to 255.
        confidence: the same, the probability of the most probable class: 85 (a third) to 255.
        spread: the same, `normalised_spread` between ensemble members or augmentations; None where `add_variance`
            was never called.
    """

    def __init__(self, shape: tuple[int, int, int]):
        if len(shape) != 3:
            raise InputError(f"shape: found {shape}, expected (slices, rows, columns)")
        self.entropy = np.zeros(shape, np.uint8)
        self.confidence = np.full(shape, 255, np.uint8)
        self.spread: np.ndarray | None = None

    def __call__(self, index: int, inside: tuple[slice, slice], probabilities: np.ndarray) -> None:
        """Keeps a slice.

        Args:
            index: which slice.
            inside: the rows and columns that the probabilities are of.
            probabilities: `(classes, rows, columns)` of that window.
        """
        highest = probabilities.max(axis=0)
        self.confidence[index, *inside] = _to_byte(highest)
        doubtful = highest < _CERTAIN
        entropy = np.zeros(highest.shape, np.uint8)
        entropy[doubtful] = _to_byte(normalised_entropy(probabilities[:, doubtful]))
        self.entropy[index, *inside] = entropy

    def add_variance(self, index: int, inside: tuple[slice, slice], variance: np.ndarray) -> None:
        """Keeps how far several predictions of a slice are apart.

        Args:
            index, inside: as above.
            variance: `(classes, rows, columns)` between the predictions; see `normalised_spread`.
        """
        if self.spread is None:
            self.spread = np.zeros(self.entropy.shape, np.uint8)
        self.spread[index, *inside] = _to_byte(normalised_spread(variance))


def mean_of(byte_map: np.ndarray, mask: np.ndarray) -> float | None:
    """Mean of an 8-bit map within a mask of the same shape, in [0, 1]; None where the mask is empty."""
    values = byte_map[mask]
    return float(values.mean(dtype=np.float64)) / 255 if values.size else None


def _to_byte(values: np.ndarray) -> np.ndarray:
    """[0, 1] to the nearest of 0..255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
