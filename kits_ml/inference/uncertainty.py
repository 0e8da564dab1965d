"""How sure a network is of each voxel, kept in a byte a voxel while a scan is segmented."""

from __future__ import annotations

import math
import tempfile
import weakref
from pathlib import Path

import numpy as np

from kits_ml import files
from kits_ml.errors import InputError
from kits_ml.inference.pieces import slabs

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

    Two bytes a voxel, three with the spread, in a file without a name in the system's temporary folder, which is gone
    with the meter. Each map is mapped anew whenever it is asked for: what is read of it counts as memory of the
    process as long as that array lives. Where the network's window does not reach, all is certain background.

    Args:
        shape: of the scan, `(slices, rows, columns)`.

    Raises:
        OSError: no room for the file.
    """

    def __init__(self, shape: tuple[int, int, int]):
        if len(shape) != 3 or 0 in shape:
            raise InputError(f"shape: found {shape}, expected (slices, rows, columns)")
        self.shape = tuple(int(size) for size in shape)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the meter
        weakref.finalize(self, self._file.close)
        self._num_maps = 0
        self._reserve(2)
        for part in slabs(self.shape):
            self.confidence[part] = 255

    @property
    def entropy(self) -> np.ndarray:
        """`(slices, rows, columns)` uint8, `normalised_entropy` from 0 to 255."""
        return self._map(0)

    @property
    def confidence(self) -> np.ndarray:
        """The same, the probability of the most probable class: 85 (a third) to 255."""
        return self._map(1)

    @property
    def spread(self) -> np.ndarray | None:
        """The same, `normalised_spread` between ensemble members or augmentations.

        None where `add_variance` was never called.
        """
        return self._map(2) if self._num_maps > 2 else None

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
        if self._num_maps < 3:
            self._reserve(3)
        self._map(2)[index, *inside] = _to_byte(normalised_spread(variance))

    def means(self, label_map: np.ndarray, label: int) -> dict[str, float | None]:
        """Means of the maps over the voxels of a label, a slab at a time.

        Args:
            label_map: of the scan's shape.
            label: one of its values.

        Returns:
            By name (`confidence`, `entropy` and, where it is known, `spread`) in [0, 1]; None where no voxel has the
            label.
        """
        names = ["confidence", "entropy"] + ["spread"] * (self._num_maps > 2)
        totals, num_voxels = dict.fromkeys(names, 0), 0
        for part in slabs(self.shape):
            mask = label_map[part] == label
            num_voxels += int(np.count_nonzero(mask))
            for name in names:
                totals[name] += int(getattr(self, name)[part][mask].sum(dtype=np.int64))
        return {name: total / num_voxels / 255 if num_voxels else None for name, total in totals.items()}

    def _reserve(self, num_maps: int) -> None:
        """Makes room for that many maps, zeros."""
        num_voxels = math.prod(self.shape)
        start, end = self._num_maps * num_voxels, num_maps * num_voxels
        with files.naming_full_disk(Path(tempfile.gettempdir())):  # it need not be the outputs' disk that is full
            self._file.truncate(end)
            files.reserve(self._file.fileno(), start, end)
        self._num_maps = num_maps

    def _map(self, number: int) -> np.ndarray:
        offset = number * math.prod(self.shape)
        return np.memmap(self._file, np.uint8, "r+", offset=offset, shape=self.shape).view(np.ndarray)


def _to_byte(values: np.ndarray) -> np.ndarray:
    """[0, 1] to the nearest of 0..255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
