"""From a stream of slices' probabilities to a label map: what one network and several have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from tqdm import tqdm

from kits_ml.data.preprocessing import most_probable
from kits_ml.errors import InputError

#: Rows and columns of a scan.
Window = tuple[slice, slice]

#: The window that probabilities are of, and they: `(classes, rows, columns)` float32. Elsewhere all is background.
SliceProbabilities = tuple[Window, np.ndarray]

#: The same with the variance of each class's probability between several predictions, of the same shape: mirrored
#: passes, members of an ensemble. None where there is but one prediction, or nobody asked.
SliceMoments = tuple[Window, np.ndarray, np.ndarray | None]

#: Takes a slice's index, its rows and columns inside the window, and their probabilities. Where it has a method
#: `add_variance`, that is called right before with the same, but the variance, if there are several predictions.
Observer = Callable[[int, Window, np.ndarray], None]


def segment_slices(
    slices: Iterable[SliceMoments],
    *,
    shape: tuple[int, int, int],
    progress: str | None = None,
    observe: Observer | None = None,
) -> np.ndarray:
    """Takes the most probable class of each voxel; nothing but the label map is kept.

    Args:
        slices: one for each slice, in order.
        shape: of the scan, `(slices, rows, columns)`.
        progress: what the progress bar says; without, there is none.
        observe: is given each slice, and its variance if it has one and the observer wants it.

    Returns:
        Label map of the shape, uint8.
    """
    label_map = np.zeros(shape, np.uint8)  # background beyond the window
    with tqdm(total=shape[0], desc=progress, unit="slice", disable=progress is None) as bar:
        for index, (inside, probabilities, variance) in enumerate(slices):
            label_map[index, *inside] = most_probable(probabilities)
            if variance is not None and wants_variance(observe):
                observe.add_variance(index, inside, variance)
            if observe:
                observe(index, inside, probabilities)
            bar.update()
    return label_map


def wants_variance(observe: Observer | None) -> bool:
    """Whether an observer takes the variance too; else it need not be computed."""
    return getattr(observe, "add_variance", None) is not None


def observe_all(*observers: Observer | None) -> Observer | None:
    """One observer that tells several, leaving out those that are None; None if there is nobody to tell."""
    told = [one for one in observers if one is not None]
    if len(told) < 2:
        return told[0] if told else None
    return _Several(told)


class _Several:
    """Observers as one."""

    def __init__(self, observers: Sequence[Observer]):
        self._observers = observers
        self._of_variance = [one.add_variance for one in observers if wants_variance(one)]
        self.add_variance = self._add_variance if self._of_variance else None

    def __call__(self, index: int, inside: Window, probabilities: np.ndarray) -> None:
        for observe in self._observers:
            observe(index, inside, probabilities)

    def _add_variance(self, index: int, inside: Window, variance: np.ndarray) -> None:
        for add_variance in self._of_variance:
            add_variance(index, inside, variance)


def checked_image(image: np.ndarray) -> np.ndarray:
    """A volume in HU as int16 or float32; the same array where it is that already.

    Raises:
        InputError: not three axes, no numbers, NaN or infinite voxels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"image of shape {image.shape}: expected (slices, rows, columns)")
    if image.dtype == np.int16:
        return image
    if image.dtype.kind not in "iuf":
        raise InputError(f"image of type {image.dtype}: expected HU as numbers")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is counted
        image = image.astype(np.float32, copy=False)
    num_bad = sum(int(np.count_nonzero(~np.isfinite(one))) for one in image)
    if num_bad:
        raise InputError(f"image: {num_bad} voxels are NaN or infinite; expected HU values")
    return image
