"""Pictures of a prediction on its scan: an axial montage, coronal views and contours.

Slices are drawn as radiologists look at them: the patient's left is on the right; in a coronal view the head is up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from kits_ml import figures, labels

#: How strongly labels cover what lies below them.
OPACITY = 0.35
#: Axial slices in the montage, at most.
MOST_SLICES = 12
#: Coronal views nearer to each other than this look alike: one is enough.
APART_MM = 15.0
_MOST_COLUMNS = 4
_PANEL_INCHES = 2.6


def montage(image: np.ndarray, label_map: np.ndarray, *, spacing_mm: Sequence[float]) -> Figure:
    """Axial slices with filled labels, evenly spread over what is labelled, around it; over all if nothing is.

    Args:
        image: `(slices, rows, columns)` in HU.
        label_map: the same shape, values 0, 1, 2.
        spacing_mm: distance between slices, rows and columns.
    """
    labelled = [index for index, one in enumerate(label_map) if one.any()] or range(len(label_map))
    chosen = np.unique(np.rint(np.linspace(labelled[0], labelled[-1], MOST_SLICES)).astype(int))
    rows, columns = figures.labelled_view([label_map], image.shape[1:], spacing_mm[1:])
    panels = [
        (image[index, rows, columns], label_map[index, rows, columns], f"slice {index}") for index in chosen.tolist()
    ]
    return _panels(panels, spacing_mm=spacing_mm[1:])


def coronal(image: np.ndarray, label_map: np.ndarray, *, spacing_mm: Sequence[float]) -> Figure:
    """Coronal views with filled labels: where most kidney is cut, and where most tumour is, if that is elsewhere.

    Slices are interpolated to the spacing of the columns (linearly; labels to the nearest), so that a pixel is as
    high as it is wide.

    Args:
        image, label_map, spacing_mm: as above.
    """
    slices_mm, rows_mm, columns_mm = spacing_mm
    chosen: dict[int, str] = {}
    for region in labels.REGIONS:
        by_row = sum(labels.region_mask(one, region).sum(axis=1) for one in label_map)
        if by_row.any() and all(abs(by_row.argmax() - row) * rows_mm > APART_MM for row in chosen):
            chosen[int(by_row.argmax())] = f"most {region}"
    chosen = chosen or {image.shape[1] // 2: "middle"}
    panels = []
    for row, reason in sorted(chosen.items()):
        view = _isotropic(image[:, row], slices_mm / columns_mm, order=1)
        seen = _isotropic(label_map[:, row], slices_mm / columns_mm, order=0)
        panels.append((view, seen, f"row {row}: {reason}"))
    return _panels(panels, spacing_mm=(columns_mm, columns_mm), panel_inches=2 * _PANEL_INCHES)


def _isotropic(plane: np.ndarray, factor: float, *, order: int) -> np.ndarray:
    """A plane `(slices, columns)` with `factor` times as many slices; their centres keep their place."""
    return ndimage.zoom(plane, (factor, 1), order=order, mode="nearest", grid_mode=True)


def _panels(
    panels: Sequence[tuple[np.ndarray, np.ndarray, str]],
    *,
    spacing_mm: Sequence[float],
    panel_inches: float = _PANEL_INCHES,
) -> Figure:
    num_columns = min(len(panels), _MOST_COLUMNS)
    num_rows = math.ceil(len(panels) / num_columns)
    height, width = panels[0][0].shape
    aspect = height * spacing_mm[0] / (width * spacing_mm[1])
    figure = Figure(
        figsize=(panel_inches * num_columns, num_rows * (panel_inches * aspect + 0.25) + 0.35), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    all_axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, (view, seen, title) in zip(all_axes, panels, strict=False):
        _draw(axes, view, seen, aspect=spacing_mm[0] / spacing_mm[1])
        axes.set_title(title, fontsize=8, color="0.25", pad=2)
    for axes in all_axes:
        axes.set_axis_off()
    names = {labels.LABEL_NAMES[label]: figures.label_colour(label) for label in (labels.KIDNEY, labels.TUMOUR)}
    figure.legend(
        [Patch(facecolor=colour, alpha=0.8) for colour in names.values()],
        list(names),
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=8,
    )
    return figure


def _draw(axes: Axes, view: np.ndarray, seen: np.ndarray, *, aspect: float) -> None:
    low, high = figures.WINDOW_HU
    axes.imshow(view, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    cover = np.zeros((*seen.shape, 4))
    for label in (labels.KIDNEY, labels.TUMOUR):
        mask = seen == label
        if mask.any():
            cover[mask] = (*figures.label_colour(label), OPACITY)
            figures.contour(axes, mask, colour=figures.label_colour(label), style="solid", width=0.8)
    axes.imshow(cover, aspect=aspect, interpolation="nearest")
