"""Several networks as one: the mean of their softmax on the scan's own grid, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kits_ml.data import training_range
from kits_ml.errors import InputError
from kits_ml.inference.predictor import Predictor
from kits_ml.inference.segmenting import (
    Observer,
    SliceMoments,
    SliceProbabilities,
    Window,
    checked_image,
    segment_slices,
    wants_variance,
)
from kits_ml.labels import BACKGROUND, LABEL_NAMES

#: What an ensemble knows of its members, all of them together.
_SHARED = ("architecture", "run_id", "data_digest")


class Ensemble:
    """Predictors whose probabilities are averaged, each member counting the same.

    Members may differ in all but their labels: each prepares the scan as it was trained, and what it says is put back
    on the scan's grid before the mean is taken. So no more than a slice of each is kept. Where a member's window does
    not reach, it says background.

    Args:
        members: two or more.

    Raises:
        InputError: members that call their labels differently.
    """

    def __init__(self, members: Sequence[Predictor]):
        if len(members) < 2:
            raise ValueError(f"ensemble: found {len(members)} members, expected two or more")
        self.members = list(members)
        self.description = describe_members([one.description for one in self.members])

    def segment(
        self,
        image: np.ndarray,
        *,
        spacing_mm: Sequence[float] | None = None,
        progress: str | None = None,
        observe: Observer | None = None,
    ) -> np.ndarray:
        """Segments a volume; see `Predictor.segment`. Members whose preparation needs it must be given a spacing.

        The variance that is observed is that between the members and, where they are augmented, that within them.
        """
        image = checked_image(image)
        slices = self._moments(image, spacing_mm, with_variance=wants_variance(observe))
        return segment_slices(slices, shape=image.shape, progress=progress, observe=observe)

    def probabilities(
        self, image: np.ndarray, *, spacing_mm: Sequence[float] | None = None
    ) -> Iterator[SliceProbabilities]:
        """Yields the members' mean for each slice, in order; see `Predictor.probabilities`."""
        for window, mean, _ in self._moments(checked_image(image), spacing_mm, with_variance=False):
            yield window, mean

    def _moments(
        self, image: np.ndarray, spacing_mm: Sequence[float] | None, *, with_variance: bool
    ) -> Iterator[SliceMoments]:
        streams = [one.moments(image, spacing_mm=spacing_mm, with_variance=with_variance) for one in self.members]
        for slices in zip(*streams, strict=True):
            window, aligned = align([(inside, mean) for inside, mean, _ in slices])
            yield window, aligned.mean(axis=0), total_variance(slices, window, aligned) if with_variance else None


def total_variance(slices: Sequence[SliceMoments], window: Window, aligned: np.ndarray) -> np.ndarray:
    """The variance of all predictions of a slice, each member counting the same (the law of total variance).

    Args:
        slices: of the members; one without variance, which is a single prediction, has none in itself.
        window, aligned: their means on common rows and columns, see `align`; beyond its window a member has none.

    Returns:
        The variance between the members' means and the mean of those within: `(classes, rows, columns)` float32.
    """
    total = aligned.var(axis=0)
    for inside, _, within in slices:
        if within is not None:
            total[:, *_within(inside, window)] += within / len(slices)
    return total


def align(slices: Sequence[SliceProbabilities]) -> tuple[Window, np.ndarray]:
    """Several networks' probabilities of one slice on common rows and columns.

    Args:
        slices: at least one; their windows may differ.

    Returns:
        The smallest window that holds all of theirs, and `(networks, classes, rows, columns)` float32; one whose
        window ends before says background with probability 1.

    Raises:
        InputError: different numbers of classes.
    """
    num_classes = {len(probabilities) for _, probabilities in slices}
    if len(num_classes) > 1:
        raise InputError(f"ensemble: members with {sorted(num_classes)} classes, expected the same number of each")
    window = _around([inside for inside, _ in slices])
    num_rows, num_columns = (one.stop - one.start for one in window)
    aligned = np.zeros((len(slices), num_classes.pop(), num_rows, num_columns), np.float32)
    aligned[:, BACKGROUND] = 1
    for one, (inside, probabilities) in zip(aligned, slices, strict=True):
        one[:, *_within(inside, window)] = probabilities
    return window, aligned


def describe_members(descriptions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of an ensemble: what any member has seen, it has seen.

    Args:
        descriptions: of the members, see `Predictor`.

    Returns:
        `architecture`, `run_id` and `data_digest` of all, `seen_cases` and `seen_slices` of any, `postprocessing`
        where all have the same, and as `training` what they have in common, see `training_range.common_range`.

    Raises:
        InputError: members that call their labels differently.
    """
    names = [_label_names(one) for one in descriptions]
    for number, found in enumerate(names[1:], start=2):
        if found != names[0]:
            raise InputError(
                f"ensemble: model {number} has the labels {found}, expected those of the first, {names[0]}"
            )
    shared = {
        key: ", ".join(dict.fromkeys(str(one[key]) for one in descriptions if one.get(key) is not None))
        for key in _SHARED
    }
    description: dict[str, Any] = {key: value for key, value in shared.items() if value}
    for key in ("seen_cases", "seen_slices"):
        description[key] = {
            name if number == 1 else f"{name}, model {number}": value
            for number, one in enumerate(descriptions, start=1)
            for name, value in one.get(key, {}).items()
        }
    stored = descriptions[0].get("postprocessing")
    if stored is not None and all(one.get("postprocessing") == stored for one in descriptions):
        description["postprocessing"] = stored
    if training := training_range.common_range([one.get("training") for one in descriptions]):
        description["training"] = training
    return description


def _label_names(description: Mapping[str, Any]) -> dict[str, str]:
    names = description.get("label_names") or LABEL_NAMES
    return {str(value): str(name) for value, name in names.items()}


def _within(inside: Window, window: Window) -> Window:
    """A window's rows and columns, counted from the start of another that holds it."""
    return tuple(
        slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(inside, window, strict=True)
    )


def _around(windows: Sequence[Window]) -> Window:
    return tuple(
        slice(min(one.start for one in parts), max(one.stop for one in parts)) for parts in zip(*windows, strict=True)
    )
