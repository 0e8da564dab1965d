"""The mean over areas, exact and in one pass: grey values are made, added up and rounded while they are in the cache.

As matrix products (`resampling.area_weights`) the same takes a hundred times the additions, for an output pixel
covers two or three samples in each direction and not a whole line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kits_ml.data import blocks, resampling

#: Whole numbers below this are exact in float32, and so are their sums, in any order.
_EXACT = 1 << 24


def area_means(
    columns_first: np.ndarray, size_out: int, to_grey: Callable[[np.ndarray, np.ndarray], None]
) -> np.ndarray:
    """Turns values into grey and resizes by mode `area`, see `resampling.area_windows`.

    Grey values are rounded to a small fraction of one before they are added, so that sums are exact: the result does
    not depend on how the samples lie in memory, nor on the processor.

    Args:
        columns_first: `(columns, rows, slices)`; quickest with the slices together in memory, as in KiTS19's files.
        size_out: rows and columns of the result.
        to_grey: writes the grey values in [0, 255] of the first array into the second, float32.

    Returns:
        `(size_out, size_out, slices)` uint8, columns first as the input, rounded to the nearest.
    """
    if columns_first.strides[2] != columns_first.itemsize:
        columns_first = blocks.turn(columns_first, out=np.empty(columns_first.shape, columns_first.dtype))
    num_columns, num_rows, num_slices = columns_first.shape
    starts, stops = resampling.area_windows(num_columns, size_out)
    rows = _RowSums(num_rows, size_out, num_slices)
    scale = np.float32(2 ** int(np.log2(_EXACT / (256 * rows.most * (stops - starts).max()))))
    result = np.empty((size_out, size_out, num_slices), np.uint8)
    sums: dict[int, np.ndarray] = {}
    for column, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        sums = {
            source: sums[source] if source in sums else rows.add_up(columns_first[source], to_grey, scale)
            for source in range(start, stop)
        }
        total = sum(list(sums.values())[1:], start=sums[start])
        total = total / (rows.counts[:, None] * (np.float32(stop - start) * scale))
        result[column] = np.rint(total, out=total)
    return result


class _RowSums:
    """Adds up the rows that each output row covers.

    Attributes:
        counts: rows that each output row covers, `(size_out,)` float32.
        most: the largest of them.
    """

    def __init__(self, num_rows: int, size_out: int, num_slices: int):
        starts, stops = resampling.area_windows(num_rows, size_out)
        self.counts = (stops - starts).astype(np.float32)
        self.most = int(self.counts.max())
        # an output row that covers fewer rows than others adds the row of zeros behind the last
        self._rows = [np.where(starts + step < stops, starts + step, num_rows) for step in range(self.most)]
        self._grey = np.zeros((num_rows + 1, num_slices), np.float32)
        self._taken = np.empty((size_out, num_slices), np.float32)

    def add_up(
        self, column: np.ndarray, to_grey: Callable[[np.ndarray, np.ndarray], None], scale: np.float32
    ) -> np.ndarray:
        """`(rows, slices)` in HU -> sums of `(size_out, slices)` in grey values times `scale`, whole numbers."""
        grey = self._grey[:-1]
        to_grey(column, grey)
        grey *= scale
        np.rint(grey, out=grey)
        total = self._grey.take(self._rows[0], axis=0)
        for rows in self._rows[1:]:
            total += self._grey.take(rows, axis=0, out=self._taken, mode="clip")
        return total
