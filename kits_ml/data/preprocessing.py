"""From HU to what the network sees, and back onto the scan's grid.

The report's MONAI chain, `CropForegroundd`, `ScaleIntensityRanged`, `AdjustContrastd`, `Resized`, is kept literally
as `monai_chain`. The production path computes the same in one pass over the slices, in blocks: a table from HU to
grey (the window and gamma depend on the value alone) and an area resize by matrix products. Tests hold the two
together.

Where the literal words cannot be followed: labels are resized by `nearest` (the default `area` makes fractional
labels), and intensities are clipped to the window before gamma (else one metal voxel changes the contrast of the
whole case). The slices stand as channels, as they do when the chain is run without a channel axis: so the crop is
one in-plane box for all slices, and no slice is dropped or mixed with its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kits_ml.config import PreprocessingSettings
from kits_ml.data import resampling
from kits_ml.errors import InputError

BLOCK_SLICES = 8


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The in-plane window of a scan that was resized to the network's square; all that undoes the preparation.

    Attributes:
        shape: `(slices, rows, columns)` of the scan.
        rows, columns: first and one past the last row and column of the window.
        image_size: rows and columns after resizing, pixels.
        lowest_hu, highest_hu: extremes inside the window, which the contrast step refers to.
    """

    shape: tuple[int, int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    image_size: int
    lowest_hu: float
    highest_hu: float

    @property
    def num_rows(self) -> int:
        return self.rows[1] - self.rows[0]

    @property
    def num_columns(self) -> int:
        return self.columns[1] - self.columns[0]

    def crop(self, array: np.ndarray) -> np.ndarray:
        """`(slices, rows, columns)` -> the window of each slice; a view."""
        return array[:, slice(*self.rows), slice(*self.columns)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Frame:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def find_frame(image: np.ndarray, settings: PreprocessingSettings) -> Frame:
    """Finds the window of a scan: the smallest box in the slices' plane around all voxels above `foreground_hu`.

    Args:
        image: `(slices, rows, columns)` in HU.

    Raises:
        InputError: no voxel lies above the threshold.
    """
    any_row = np.zeros(image.shape[1], bool)
    any_column = np.zeros(image.shape[2], bool)
    for block in _blocks(image):
        above = (block > settings.foreground_hu).any(axis=0)
        any_row |= above.any(axis=1)
        any_column |= above.any(axis=0)
    if not any_row.any():
        raise InputError(
            f"no foreground: all voxels are at most {settings.foreground_hu:g} HU (found up to {image.max():g}), "
            "expected a body; is the image in HU?"
        )
    rows, columns = (
        (int(used[0]), int(used[-1]) + 1) for used in (np.flatnonzero(any_row), np.flatnonzero(any_column))
    )
    window = image[:, slice(*rows), slice(*columns)]
    return Frame(
        shape=tuple(int(size) for size in image.shape),
        rows=rows,
        columns=columns,
        image_size=settings.image_size,
        lowest_hu=float(window.min()),
        highest_hu=float(window.max()),
    )


def prepare_image(image: np.ndarray, frame: Frame, settings: PreprocessingSettings) -> Iterator[np.ndarray]:
    """Yields the prepared slices, a block at a time, so that memory does not grow with the scan.

    Args:
        image: `(slices, rows, columns)` in HU.
        frame: of the same image.

    Yields:
        `(block, image_size, image_size)` uint8 grey values; 255 is the top of the window.
    """
    to_grey = _HuToGrey(frame, settings)
    row_weights = resampling.area_weights(frame.num_rows, frame.image_size)
    column_weights = resampling.area_weights(frame.num_columns, frame.image_size)
    for block in _blocks(frame.crop(image)):
        resized = resampling.resize_slices(to_grey(block), row_weights, column_weights)
        yield np.rint(resized, out=resized).astype(np.uint8)


def prepare_labels(label_map: np.ndarray, frame: Frame) -> np.ndarray:
    """Resizes a label map by nearest neighbour.

    Args:
        label_map: `(slices, rows, columns)` uint8.

    Returns:
        `(slices, image_size, image_size)` uint8.
    """
    rows = frame.rows[0] + resampling.nearest_index(frame.num_rows, frame.image_size)
    columns = frame.columns[0] + resampling.nearest_index(frame.num_columns, frame.image_size)
    return np.ascontiguousarray(label_map[:, rows[:, None], columns[None, :]])


def network_input(grey: np.ndarray) -> np.ndarray:
    """Prepared slices as the network takes them.

    Args:
        grey: `(batch, rows, columns, slices)` uint8: each slice with its neighbours, see `neighbours`.

    Returns:
        The same shape, float32 in [0, 1].
    """
    return grey.astype(np.float32) / np.float32(255)


def restore_labels(probabilities: np.ndarray, frame: Frame) -> np.ndarray:
    """Undoes the preparation for a block of slices.

    The softmax is interpolated linearly between the places that the labels were taken from, and the most probable
    class taken there: smoother and closer to the truth than resizing labels. Outside the window all is background.

    Args:
        probabilities: `(block, image_size, image_size, classes)` float32.

    Returns:
        `(block, rows, columns)` uint8 on the scan's grid.
    """
    weights = [
        resampling.nearest_inverse_weights(frame.image_size, size) for size in (frame.num_rows, frame.num_columns)
    ]
    restored = np.zeros((len(probabilities), *frame.shape[1:]), np.uint8)
    for index, one in enumerate(probabilities):
        classes_first = np.ascontiguousarray(np.moveaxis(one, -1, 0), np.float32)  # (classes, rows, columns)
        window = resampling.resize_slices(classes_first, *weights).argmax(axis=0)
        restored[index, slice(*frame.rows), slice(*frame.columns)] = window
    return restored


def monai_chain(settings: PreprocessingSettings, *, load: bool = False, with_labels: bool = True) -> Any:
    """The report's chain in MONAI's own transforms; the reference that the production path is tested against.

    Args:
        load: begin with `LoadImaged` (`image` and `label` are then paths), else they are arrays
            `(slices, rows, columns)`. The slices act as channels either way.
        with_labels: carry `label` along.

    Returns:
        A `monai.transforms.Compose` over a dict with `image` and `label`; the image comes out in [0, 1].
    """
    from monai import transforms

    keys = ["image", "label"] if with_labels else ["image"]
    modes = ["area", "nearest"][: len(keys)]
    threshold = settings.foreground_hu
    steps = [transforms.LoadImaged(keys)] if load else []
    steps += [
        transforms.CropForegroundd(
            keys, source_key="image", select_fn=lambda image: image > threshold, allow_smaller=True
        ),
        transforms.ScaleIntensityRanged(
            "image", a_min=settings.window_min_hu, a_max=settings.window_max_hu, b_min=0, b_max=1, clip=True
        ),
        transforms.AdjustContrastd("image", gamma=settings.gamma),
        transforms.Resized(keys, spatial_size=(settings.image_size, settings.image_size), mode=modes),
        transforms.ToTensord(keys),
    ]
    return transforms.Compose(steps)


class _HuToGrey:
    """HU -> grey value in [0, 255] before resizing: window, clip, gamma. A table for int16."""

    def __init__(self, frame: Frame, settings: PreprocessingSettings):
        self.settings = settings
        self.lowest, self.highest = (self._scale(np.float32(hu)) for hu in (frame.lowest_hu, frame.highest_hu))
        every_int16 = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
        self.table = self._grey(every_int16.astype(np.float32))

    def __call__(self, block: np.ndarray) -> np.ndarray:
        if block.dtype == np.int16:
            return self.table.take(block.view(np.uint16))
        return self._grey(block.astype(np.float32))

    def _scale(self, hu: np.ndarray) -> np.ndarray:
        low, high = np.float32(self.settings.window_min_hu), np.float32(self.settings.window_max_hu)
        return np.clip((hu - low) / (high - low), 0, 1)

    def _grey(self, hu: np.ndarray) -> np.ndarray:
        span = self.highest - self.lowest
        relative = np.clip((self._scale(hu) - self.lowest) / (span + np.float32(1e-7)), 0, 1)
        return (relative ** np.float32(self.settings.gamma) * span + self.lowest) * np.float32(255)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Contiguous copies of a few slices at a time (files store slices fastest, so a copy pays)."""
    for start in range(0, len(array), BLOCK_SLICES):
        yield np.ascontiguousarray(array[start : start + BLOCK_SLICES])
