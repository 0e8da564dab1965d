"""What the two faults of the preparation look like: one slice of a synthetic patient, prepared right and wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from faults import clipped_grey, mean_of_numbers, rounded, unclipped_grey
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import frames, preprocessing
from kits_ml.labels import KIDNEY, LABEL_COLOURS, TUMOUR

#: Pixels of the prepared slice around the invented kidney that are shown.
ZOOM = 30

_COLOURS = ListedColormap([tuple(part / 255 for part in LABEL_COLOURS[label]) for label in sorted(LABEL_COLOURS)])


def draw(folder: Path) -> bytes:
    """Draws the first case of a folder, its slice where rounding makes most kidney out of nothing.

    Returns:
        PNG. Above, the slice clipped before gamma, not clipped, and not clipped with the scan's whole range spread
        over the grey levels; below, a part of it with right labels, with the mean of their numbers, and that rounded.
    """
    settings = PreprocessingSettings()
    case = case_files.find_cases(folder)[0]
    image, label_map = (one.array for one in case_files.load_case(case))
    frame = frames.find_frame(image, settings)
    means = mean_of_numbers(label_map, frame)
    invented = (rounded(means) == KIDNEY) & (mean_of_numbers(label_map == KIDNEY, frame) == 0)
    index = int(invented.sum(axis=(1, 2)).argmax())
    hu = frame.crop(image)[index]
    ends = {"lowest_hu": frame.lowest_hu, "highest_hu": frame.highest_hu}
    unclipped = unclipped_grey(hu, **ends, settings=settings)
    low, high = (float(unclipped_grey(np.array(end), **ends, settings=settings)) for end in ends.values())
    right = preprocessing.prepare_labels(label_map[index : index + 1], frame)[0]
    zoom = _around(invented[index])
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots(2, 3, height_ratios=(0.6, 1))
    _show(axes[0, 0], clipped_grey(hu, settings=settings), "clipped", cmap="gray", vmin=0, vmax=1)
    _show(axes[0, 1], unclipped, "unclipped", cmap="gray", vmin=0, vmax=1)
    _show(axes[0, 2], unclipped, "its whole range", cmap="gray", vmin=low, vmax=high)
    look = {"vmin": 0, "vmax": TUMOUR, "interpolation": "nearest"}
    _show(axes[1, 0], right[zoom], "nearest", cmap=_COLOURS, **look)
    _show(axes[1, 1], means[index][zoom], "mean of numbers", cmap="viridis", **look)
    _show(axes[1, 2], rounded(means)[index][zoom], "that, rounded", cmap=_COLOURS, **look)
    payload = io.BytesIO()
    figure.savefig(payload, format="png", dpi=150)
    return payload.getvalue()


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around the middle of a mask."""
    middles = [int(np.flatnonzero(mask.any(axis=1 - axis)).mean()) if mask.any() else 0 for axis in (0, 1)]
    starts = [min(max(middle - ZOOM // 2, 0), size - ZOOM) for middle, size in zip(middles, mask.shape, strict=True)]
    return slice(starts[0], starts[0] + ZOOM), slice(starts[1], starts[1] + ZOOM)


def _show(axes: Axes, picture: np.ndarray, title: str, **look) -> None:
    axes.imshow(picture, **look)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
