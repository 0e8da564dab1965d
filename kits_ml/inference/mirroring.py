"""Test-time augmentation: the mean of what a network says of a slice and of its mirror images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

#: Axes of `(batch, rows, columns, ...)` that each pass mirrors; a pass for each entry. Left and right is what
#: training mirrors by default; front and back is for networks that were trained with `flip_up_down_probability`.
MIRRORED_AXES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "flip_left_right": ((), (2,)),
    "flip_all": ((), (1,), (2,), (1, 2)),
}


def mean_over_mirrored(
    network: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, augmentation: str
) -> np.ndarray:
    """Asks a network about mirrored batches and takes the mean of its answers, each mirrored back.

    Args:
        network: from `(batch, rows, columns, slices)` to class probabilities `(batch, rows, columns, classes)`.
        batch: what it takes.
        augmentation: one of `MIRRORED_AXES`.

    Returns:
        Probabilities, `(batch, rows, columns, classes)` float32; they still sum to 1.
    """
    passes = MIRRORED_AXES[augmentation]
    if len(passes) == 1:
        return np.asarray(network(batch))
    total = None
    for axes in passes:
        answer = np.asarray(network(np.ascontiguousarray(np.flip(batch, axes))), np.float32)
        mirrored_back = np.flip(answer, axes)
        total = mirrored_back.copy() if total is None else np.add(total, mirrored_back, out=total)
    return total / np.float32(len(passes))
