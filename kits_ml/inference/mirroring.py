"""Test-time augmentation: mean and spread of what a network says of a slice and of its mirror images."""

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


def moments_over_mirrored(
    network: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, augmentation: str, *, with_variance: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Asks a network about mirrored batches: mean and variance of its answers, each mirrored back.

    The squares are summed up pass by pass (Youngs and Cramer, Technometrics 13 (1971)), so that neither all answers
    are kept nor a small variance is lost in the difference of two large numbers.

    Args:
        network: from `(batch, rows, columns, slices)` to class probabilities `(batch, rows, columns, classes)`.
        batch: what it takes.
        augmentation: one of `MIRRORED_AXES`.
        with_variance: whether the variance is wanted.

    Returns:
        The mean, `(batch, rows, columns, classes)` float32, which still sums to 1; and of the same shape the variance
        of each class's probability (the mean of squared distances from the mean, at most 1/4). The variance is None
        where nobody wants it, and for a single pass, of which there is none.
    """
    passes = MIRRORED_AXES[augmentation]
    if len(passes) == 1:
        return np.asarray(network(batch)), None
    total = squares = None
    for number, axes in enumerate(passes, start=1):
        answer = np.asarray(network(np.ascontiguousarray(np.flip(batch, axes))), np.float32)
        mirrored_back = np.flip(answer, axes)
        total = mirrored_back.copy() if total is None else np.add(total, mirrored_back, out=total)
        if with_variance and number == 1:
            squares = np.zeros_like(total)
        elif with_variance:
            distance = number * mirrored_back - total
            squares += np.square(distance, out=distance) / np.float32(number * (number - 1))
    num_passes = np.float32(len(passes))
    return total / num_passes, None if squares is None else squares / num_passes
