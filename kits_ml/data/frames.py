"""The in-plane window of a scan that becomes the network's square, and what undoes it.

A position along an axis is counted in pixels of the scan: pixel `k` reaches from `k` to `k + 1`. There are two ways
to fill the square:

    stretch   the crop box is resized to the square, as the report does: each scan has its own spacing and aspect
    spacing   the square covers `image_size * pixel_spacing_mm` millimetres around the middle of the crop box; beyond
              the scan there is air. Where the box is larger than that, the spacing of this scan is enlarged until
              the box fits, so that no part of it is ever left out

Either way labels are put back where they were taken from, so that restoring does not shift them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kits_ml.config import PreprocessingSettings
from kits_ml.data import resampling
from kits_ml.data.body_box import Box, find_body_box
from kits_ml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The in-plane window of a scan that was resized to the network's square; all that undoes the preparation.

    Attributes:
        shape: `(slices, rows, columns)` of the scan.
        rows, columns: where the window begins and ends, pixels of the scan. Whole numbers, and inside the scan, where
            the window was stretched; else fractions that may be negative or lie beyond the scan.
        image_size: rows and columns after resizing, pixels.
        lowest_hu, highest_hu: extremes inside the window, which the contrast step refers to.
        pixel_spacing_mm: rows and columns of the square are this far apart; None where the window was stretched.
    """

    shape: tuple[int, int, int]
    rows: tuple[float, float]
    columns: tuple[float, float]
    image_size: int
    lowest_hu: float
    highest_hu: float
    pixel_spacing_mm: float | None = None

    @property
    def inside(self) -> tuple[slice, slice]:
        """The rows and columns of the scan that the window shows, wholly or in part."""
        return tuple(
            slice(max(math.floor(first), 0), min(math.ceil(last), size))
            for (first, last), size in zip((self.rows, self.columns), self.shape[1:], strict=True)
        )

    def crop(self, array: np.ndarray) -> np.ndarray:
        """`(slices, rows, columns)` -> what the window shows of each slice; a view."""
        return array[:, *self.inside]

    def image_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """What resizes the rows and the columns of `crop`: `(image_size, rows)` and `(image_size, columns)`.

        Rows of the weights sum to 1, or to less where the window goes past the scan: grey values are padded with 0.
        """
        return tuple(
            resampling.area_weights(inside.stop - inside.start, self.image_size)
            if self.pixel_spacing_mm is None
            else resampling.window_weights(window, (inside.start, inside.stop), self.image_size)
            for window, inside in zip((self.rows, self.columns), self.inside, strict=True)
        )

    def label_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Which row and which column of the scan each row and column of the square takes its label from.

        Returns:
            Two arrays `(image_size,)` int64; negative, or at least the scan's size, where the window goes past it.
        """
        return tuple(
            window[0] + resampling.nearest_index(window[1] - window[0], self.image_size)
            if self.pixel_spacing_mm is None
            else resampling.window_index(window, self.image_size)
            for window in (self.rows, self.columns)
        )

    def inverse_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """What takes the square's rows and columns back to those of `crop`; rows of the weights sum to 1."""
        return tuple(
            resampling.nearest_inverse_weights(self.image_size, inside.stop - inside.start)
            if self.pixel_spacing_mm is None
            else resampling.window_inverse_weights(window, (inside.start, inside.stop), self.image_size)
            for window, inside in zip((self.rows, self.columns), self.inside, strict=True)
        )

    def note(self, settings: PreprocessingSettings) -> str:
        """What the user should be told of the frame; empty if nothing."""
        if self.pixel_spacing_mm is None or self.pixel_spacing_mm == settings.pixel_spacing_mm:
            return ""
        side_mm = settings.image_size * settings.pixel_spacing_mm
        return (
            f"the crop does not fit into {side_mm:g} x {side_mm:g} mm: pixels of {self.pixel_spacing_mm:.3g} mm "
            f"instead of {settings.pixel_spacing_mm:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Frame:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def find_frame(
    image: np.ndarray, settings: PreprocessingSettings, *, spacing_mm: Sequence[float] | None = None
) -> Frame:
    """Finds the window of a scan.

    Args:
        image: `(slices, rows, columns)` in HU.
        settings: `crop` says around what the window lies, `framing` how it fills the square.
        spacing_mm: distance between slices, rows and columns; needed for the framing `spacing` only.

    Raises:
        InputError: no voxel lies above `foreground_hu`, or the spacing is needed and missing or no spacing.
    """
    if settings.framing == "spacing":
        spacing_mm = _checked_spacing(spacing_mm)
    box = _foreground_box(image, settings)
    if settings.crop == "body":
        box = find_body_box(image) or box
    rows, columns, pixel_spacing_mm = box[0], box[1], None
    if settings.framing == "spacing":
        rows, columns, pixel_spacing_mm = _spaced_window(box, settings, spacing_mm[1:])
    frame = Frame(
        shape=tuple(int(size) for size in image.shape),
        rows=rows,
        columns=columns,
        image_size=settings.image_size,
        lowest_hu=0.0,
        highest_hu=0.0,
        pixel_spacing_mm=pixel_spacing_mm,
    )
    return _with_extremes(frame, image, settings)


def _foreground_box(image: np.ndarray, settings: PreprocessingSettings) -> Box:
    """The smallest box in the slices' plane around all voxels above `foreground_hu`: tissue, bone and table."""
    highest = image.max(axis=0)  # over the slices, which lie together in memory
    any_row, any_column = ((highest > settings.foreground_hu).any(axis=axis) for axis in (1, 0))
    if not any_row.any():
        raise InputError(
            f"no foreground: all voxels are at most {settings.foreground_hu:g} HU (found up to {highest.max():g}), "
            "expected a body; is the image in HU?"
        )
    rows, columns = (
        (int(used[0]), int(used[-1]) + 1) for used in (np.flatnonzero(any_row), np.flatnonzero(any_column))
    )
    return rows, columns


def _spaced_window(
    box: Box, settings: PreprocessingSettings, spacing_mm: Sequence[float]
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """A square window around the middle of a box, and its pixels' size; larger than asked where the box is.

    Args:
        box: first and one past the last row and column.
        spacing_mm: distance between rows and between columns.
    """
    sides_mm = [(last - first) * mm for (first, last), mm in zip(box, spacing_mm, strict=True)]
    pixel_spacing_mm = max(settings.pixel_spacing_mm, *(side_mm / settings.image_size for side_mm in sides_mm))
    windows = []
    for (first, last), mm in zip(box, spacing_mm, strict=True):
        middle, half = (first + last) / 2, settings.image_size * pixel_spacing_mm / mm / 2
        # an enlarged window ends at the box exactly, not a rounding error inside it
        windows.append((min(middle - half, float(first)), max(middle + half, float(last))))
    return windows[0], windows[1], float(pixel_spacing_mm)


def _with_extremes(frame: Frame, image: np.ndarray, settings: PreprocessingSettings) -> Frame:
    """Fills in the lowest and highest HU inside the window; padding counts as the lower end of the HU window."""
    window = frame.crop(image)
    lowest, highest = float(window.min()), float(window.max())
    ends = zip((frame.rows, frame.columns), frame.shape[1:], strict=True)
    if any(first < 0 or last > size for (first, last), size in ends):
        lowest, highest = min(lowest, settings.window_min_hu), max(highest, settings.window_min_hu)
    return replace(frame, lowest_hu=lowest, highest_hu=highest)


def _checked_spacing(spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
    if spacing_mm is None or len(spacing_mm) == 0:
        raise InputError(
            "spacing_mm: found none, expected the distances between slices, rows and columns in mm; "
            "slices are prepared at a common spacing (framing: spacing)"
        )
    spacing_mm = tuple(float(value) for value in spacing_mm)
    if len(spacing_mm) != 3 or not all(0 < value < math.inf for value in spacing_mm):
        raise InputError(f"spacing_mm: found {spacing_mm}, expected three distances above 0 mm")
    return spacing_mm
