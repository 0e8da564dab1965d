"""How far a softmax can be believed: of the voxels it calls 70 % tumour, 70 % should be tumour.

Probabilities are those on the scan's own grid, after the preparation is undone: their argmax is the label map that is
scored. They are counted slice by slice, so that no volume of them is ever in memory. Where the network's window does
not reach, the prediction is certain background.

Two domains, for nearly every voxel of a scan is background that nobody would doubt, which flatters as pixel accuracy
does: `kidneys` is the box around what the reference labels with `MARGIN_MM` on every side, `scan` is everything. Both
are chosen without a look at the prediction.

Sources: Guo et al., ICML 2017 (expected calibration error, 15 bins); class by class as in Kull et al., NeurIPS 2019;
Brier, Monthly Weather Review 1950.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits_ml.errors import InputError
from kits_ml.labels import BACKGROUND, NUM_CLASSES

NUM_BINS = 15
MARGIN_MM = 20.0
DOMAINS = ("kidneys", "scan")

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Sums over the voxels of a case; those of several cases add up.

    Attributes:
        num_voxels: `(domains, classes, bins)` int64, voxels by the probability that the class was given.
        num_hits: those of them that are of the class.
        probabilities: `(domains, classes, bins)` float64, their summed probabilities.
        squared_errors: `(domains, classes)` float64, summed squares of probability minus truth (0 or 1).
    """

    num_voxels: np.ndarray
    num_hits: np.ndarray
    probabilities: np.ndarray
    squared_errors: np.ndarray

    def ece(self) -> np.ndarray:
        """Expected calibration error of each class by itself, `(domains, classes)` in [0, 1]; NaN without voxels."""
        gaps = np.abs(self.probabilities - self.num_hits).sum(axis=-1)
        return _ratio(gaps, self.num_voxels.sum(axis=-1))

    def brier(self) -> np.ndarray:
        """Mean squared error of each class's probability, `(domains, classes)` in [0, 1]; NaN without voxels.

        Their sum over the classes is Brier's score, in [0, 2].
        """
        return _ratio(self.squared_errors, self.num_voxels.sum(axis=-1))


def pooled(calibrations: Sequence[Calibration]) -> Calibration:
    """The sums over several cases, at least one."""
    names = ("num_voxels", "num_hits", "probabilities", "squared_errors")
    return Calibration(**{name: sum(getattr(one, name) for one in calibrations) for name in names})


class CalibrationCounter:
    """Counts the probabilities of one case as they come; what `Predictor.segment` calls `observe`.

    Args:
        label_map_true: reference, `(slices, rows, columns)` with values 0, 1, 2.
        spacing_mm: distance between slices, rows and columns.
    """

    def __init__(self, label_map_true: np.ndarray, *, spacing_mm: Sequence[float]):
        self._label_map = label_map_true
        self._box = reference_box(label_map_true, spacing_mm=spacing_mm)
        shape = (len(DOMAINS), NUM_CLASSES, NUM_BINS)
        self._num_voxels, self._num_hits = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._probabilities = np.zeros(shape)
        self._squared_errors = np.zeros(shape[:2])

    def __call__(self, index: int, inside: tuple[slice, slice], probabilities: np.ndarray) -> None:
        """Counts a slice.

        Args:
            index: which slice.
            inside: the rows and columns that the probabilities are of; elsewhere all is background.
            probabilities: `(classes, rows, columns)` of that window, float32.

        Raises:
            InputError: a label that is none of 0, 1, 2.
        """
        true = self._label_map[index]
        self._count(DOMAINS.index("scan"), true, inside, probabilities)
        if self._box is not None and self._box[0].start <= index < self._box[0].stop:
            part = tuple(_overlap(*pair) for pair in zip(self._box[1:], inside, strict=True))
            shown = tuple(_shift(one, -window.start) for one, window in zip(part, inside, strict=True))
            within = tuple(_shift(one, -box.start) for one, box in zip(part, self._box[1:], strict=True))
            self._count(DOMAINS.index("kidneys"), true[self._box[1:]], within, probabilities[:, *shown])

    def result(self) -> Calibration:
        """The sums so far."""
        return Calibration(
            num_voxels=self._num_voxels,
            num_hits=self._num_hits,
            probabilities=self._probabilities,
            squared_errors=self._squared_errors,
        )

    def _count(self, domain: int, true: np.ndarray, inside: tuple[slice, slice], probabilities: np.ndarray) -> None:
        window, num_true = true[inside], np.bincount(true.ravel(), minlength=NUM_CLASSES)
        if len(num_true) > NUM_CLASSES:
            raise InputError(f"label map: found label {len(num_true) - 1}, expected 0 to {NUM_CLASSES - 1}")
        rest = num_true - np.bincount(window.ravel(), minlength=NUM_CLASSES)
        for label in range(NUM_CLASSES):
            probability = np.clip(probabilities[label].ravel(), 0, 1)
            hit = window.ravel() == label
            bins = np.minimum((probability * NUM_BINS).astype(np.intp), NUM_BINS - 1)
            keys = 2 * bins + hit
            counts = np.bincount(keys, minlength=2 * NUM_BINS).reshape(NUM_BINS, 2)
            sums = np.bincount(keys, weights=probability, minlength=2 * NUM_BINS).reshape(NUM_BINS, 2)
            self._num_voxels[domain, label] += counts.sum(axis=1)
            self._num_hits[domain, label] += counts[:, 1]
            self._probabilities[domain, label] += sums.sum(axis=1)
            squares = float(probability @ probability) - 2 * sums[:, 1].sum() + counts[:, 1].sum()
            self._squared_errors[domain, label] += squares
            self._count_certain(domain, label, rest)

    def _count_certain(self, domain: int, label: int, num_true: np.ndarray) -> None:
        """Voxels beyond the window: background with probability 1, any other label with 0."""
        certain = int(label == BACKGROUND)
        place = (NUM_BINS - 1) * certain
        self._num_voxels[domain, label, place] += num_true.sum()
        self._num_hits[domain, label, place] += num_true[label]
        self._probabilities[domain, label, place] += certain * num_true.sum()
        wrong = num_true.sum() - num_true[label] if certain else num_true[label]
        self._squared_errors[domain, label] += wrong


def reference_box(label_map_true: np.ndarray, *, spacing_mm: Sequence[float]) -> Box | None:
    """The box around all that is labelled, `MARGIN_MM` larger on every side; None where nothing is labelled.

    Args:
        label_map_true: `(slices, rows, columns)`.
        spacing_mm: distance between slices, rows and columns.
    """
    along = np.array([one.any() for one in label_map_true])
    if not along.any():
        return None
    across = np.zeros(label_map_true.shape[1:], bool)
    for index in np.flatnonzero(along):
        across |= label_map_true[index] != 0
    box = []
    for hits, mm in zip((along, across.any(axis=1), across.any(axis=0)), spacing_mm, strict=True):
        used, margin = np.flatnonzero(hits), round(MARGIN_MM / mm)
        box.append(slice(max(int(used[0]) - margin, 0), min(int(used[-1]) + 1 + margin, len(hits))))
    return tuple(box)


def _overlap(first: slice, second: slice) -> slice:
    start = max(first.start, second.start)
    return slice(start, max(start, min(first.stop, second.stop)))


def _shift(part: slice, offset: int) -> slice:
    return slice(part.start + offset, part.stop + offset)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
