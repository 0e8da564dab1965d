"""Figures: arrays in, matplotlib figures out, without a window or pyplot's global state.

Slices are drawn as radiologists look at them: the patient's left is on the right, the spine below.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kits_ml import files, labels

#: The window in which slices are drawn, in HU: the range KiTS's own baselines clip to.
WINDOW_HU = (-79.0, 304.0)

#: Line styles tell truth from prediction, colours tell kidney from tumour: either is enough without the other.
_STYLES = {"truth": "solid", "prediction": (0, (3, 1.5))}

#: Of Okabe and Ito's palette, which differs for colour-blind readers too.
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_MARGIN_MM = 25.0


def learning_curves(history: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Loss on the left, overlap scores on the right, against the epoch.

    Args:
        history: values by name, one an epoch (Keras's `History.history`). Names with `loss` go left, others with
            `dice` or `iou` right, the rest is not drawn; `val_` ones are dashed in the colour of their twin. NaN
            leaves a gap.
        title: above both.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    figure.suptitle(title)
    losses = {key: values for key, values in history.items() if "loss" in key.lower()}
    overlaps = {key: values for key, values in history.items() if "dice" in key.lower() or "iou" in key.lower()}
    overlaps = {key: values for key, values in overlaps.items() if key not in losses}
    for axes, chosen, name in zip(panels, (losses, overlaps), ("loss", "Dice, IoU"), strict=True):
        stems = list(dict.fromkeys(key.removeprefix("val_") for key in chosen))
        for key, values in chosen.items():
            colour = _LINE_COLOURS[stems.index(key.removeprefix("val_")) % len(_LINE_COLOURS)]
            style = "dashed" if key.startswith("val_") else "solid"
            marker = "o" if len(values) == 1 else None
            axes.plot(range(1, len(values) + 1), values, color=colour, linestyle=style, marker=marker, label=key)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if chosen:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        else:
            _say(axes, "nothing recorded")
    panels[1].set_ylim(-0.02, 1.02)
    return figure


def box_plot_of_scores(
    scores: Mapping[str, Mapping[str, Sequence[float]]], *, name: str = "Dice", title: str = ""
) -> Figure:
    """A box and every case's point, for each region and, beside each other, each model.

    Args:
        scores: by region, then by model: one value a case. NaN (undefined) is left out and counted under the box.
        name: what the values are, for the axis; `Dice` and `IoU` are drawn over [0, 1].
        title: above the figure.
    """
    num_boxes = max(1, sum(len(models) for models in scores.values()))
    figure = Figure(figsize=(max(4.0, 1.3 * num_boxes + 1.5), 4.5), layout="constrained")
    panels = figure.subplots(1, max(1, len(scores)), sharey=True, squeeze=False)[0]
    figure.suptitle(title)
    rng = np.random.default_rng(0)  # spreads points sideways, the same way each time
    for axes, (region, models) in zip(panels, scores.items(), strict=False):
        ticks = []
        for place, (model, raw) in enumerate(models.items()):
            values = np.asarray(raw, float)
            defined = values[~np.isnan(values)]
            colour = _LINE_COLOURS[place % len(_LINE_COLOURS)]
            if len(defined):
                axes.boxplot(
                    [defined], positions=[place], widths=0.5, showfliers=False, medianprops={"color": "black"}
                )
                axes.plot(place + rng.uniform(-0.15, 0.15, len(defined)), defined, "o", color=colour, ms=4, alpha=0.6)
            undefined = f"\n{len(values) - len(defined)} undefined" if len(defined) < len(values) else ""
            ticks.append(f"{model}\nn = {len(defined)}{undefined}")
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set(title=region, xlim=(-0.6, max(len(ticks), 1) - 0.4))
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(name)
    if name.lower().endswith(("dice", "iou")):
        panels[0].set_ylim(-0.02, 1.02)
    return figure


def overlay(
    image_slice: np.ndarray,
    label_map_true: np.ndarray | None,
    label_map_pred: np.ndarray | None,
    *,
    axes: Axes,
    spacing_mm: tuple[float, float],
    title: str = "",
) -> None:
    """Draws one axial slice with the contours of truth (solid) and prediction (dashed).

    Args:
        image_slice: `(rows, columns)` in HU, drawn in `WINDOW_HU`.
        label_map_true: `(rows, columns)` with values 0, 1, 2; None where there is no truth.
        label_map_pred: the same for the prediction.
        axes: where to draw.
        spacing_mm: distance between rows and columns: a body is drawn as wide as it is.
        title: above the slice.
    """
    rows_mm, columns_mm = spacing_mm
    axes.imshow(image_slice, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=rows_mm / columns_mm)
    for whose, label_map in (("truth", label_map_true), ("prediction", label_map_pred)):
        if label_map is None:
            continue
        for region, members in labels.REGIONS.items():
            mask = labels.region_mask(label_map, region)
            if mask.any():
                contour(axes, mask, colour=label_colour(members[0]), style=_STYLES[whose])
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def overlay_of_case(
    image: np.ndarray,
    label_map_true: np.ndarray | None,
    label_map_pred: np.ndarray | None,
    *,
    spacing_mm: tuple[float, float, float],
    title: str = "",
) -> Figure:
    """A row of up to four telling slices of a case, see `telling_slices`, each around the kidneys.

    Args:
        image: `(slices, rows, columns)` in HU.
        label_map_true: the same shape, values 0, 1, 2; None where there is no truth.
        label_map_pred: the same for the prediction.
        spacing_mm: distance between slices, rows and columns.
        title: above the row.

    Raises:
        ValueError: a label map whose shape is not the image's.
    """
    given = [label_map for label_map in (label_map_true, label_map_pred) if label_map is not None]
    for label_map in given:
        if label_map.shape != image.shape:
            raise ValueError(f"label map of shape {label_map.shape}, expected the image's {image.shape}")
    slices = telling_slices(label_map_true, label_map_pred) or {len(image) // 2: "nothing labelled"}
    rows, columns = labelled_view([label_map[list(slices)] for label_map in given], image.shape[1:], spacing_mm[1:])
    shown = image[:1, rows, columns]
    aspect = shown.shape[1] * spacing_mm[1] / (shown.shape[2] * spacing_mm[2])
    height = min(max(3.2 * aspect, 1.5), 8.0) + 1.1
    figure = Figure(figsize=(max(4.0, 3.2 * len(slices) + 0.4), height), layout="constrained")
    figure.suptitle(title)
    for axes, (index, reason) in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices.items(), strict=True):
        part = (index, rows, columns)
        overlay(
            image[part],
            None if label_map_true is None else label_map_true[part],
            None if label_map_pred is None else label_map_pred[part],
            axes=axes,
            spacing_mm=spacing_mm[1:],
            title=f"slice {index}: {reason}",
        )
    _legend(figure, truth=label_map_true is not None, prediction=label_map_pred is not None)
    return figure


def telling_slices(
    label_map_true: np.ndarray | None, label_map_pred: np.ndarray | None, *, most: int = 4
) -> dict[int, str]:
    """The slices to look at first, with the reason, in order of the slices.

    Where the tumour's cross-section is largest, where the kidney's is, where truth and prediction differ most, and
    where the predicted tumour is largest. Without truth, the prediction alone decides. A slice comes once.

    Args:
        label_map_true: `(slices, rows, columns)` with values 0, 1, 2, or None.
        label_map_pred: the same for the prediction.
        most: how many slices at most.
    """
    areas: list[tuple[str, np.ndarray]] = []
    for region, whose, label_map in (
        ("tumour", "", label_map_true),
        ("kidney", "", label_map_true),
        ("tumour", "predicted ", label_map_pred),
        ("kidney", "predicted ", label_map_pred),
    ):
        if label_map is not None:
            areas.append((f"largest {whose}{region}", _areas(labels.region_mask(one, region) for one in label_map)))
    if label_map_true is not None and label_map_pred is not None:
        pairs = zip(label_map_true, label_map_pred, strict=True)
        areas.insert(2, ("largest difference", _areas(true != pred for true, pred in pairs)))
    chosen: dict[int, str] = {}
    for reason, area in areas:
        if area.any() and len(chosen) < most:
            chosen.setdefault(int(area.argmax()), reason)
    return dict(sorted(chosen.items()))


def _areas(masks: Iterable[np.ndarray]) -> np.ndarray:
    """How many pixels each slice's mask has; slice by slice, so that there is no second volume in memory."""
    return np.array([np.count_nonzero(one) for one in masks])


def save_figure(path: str | Path, figure: Figure, *, dpi: int = 120) -> None:
    """Writes a figure as PNG; the file appears whole or not at all.

    Args:
        path: ends in `.png`.
        figure: what to draw.
        dpi: pixels an inch.
    """
    files.write_bytes(Path(path), to_png(figure, dpi=dpi))


def to_png(figure: Figure, *, dpi: int = 120) -> bytes:
    """A figure as PNG."""
    payload = io.BytesIO()
    figure.savefig(payload, format="png", dpi=dpi)
    return payload.getvalue()


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG, letters as outlines; the same figure gives the same bytes."""
    payload = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kits_ml", "svg.fonttype": "path"}):
        figure.savefig(payload, format="svg", metadata={"Date": None})
    return payload.getvalue()


def contour(axes: Axes, mask: np.ndarray, *, colour: object, style: object, width: float = 1.3) -> None:
    """Outlines a mask; a frame of background closes outlines at the edge of the picture."""
    rows, columns = mask.shape
    framed = np.pad(mask, 1).astype(np.uint8)
    axes.contour(
        np.arange(-1, columns + 1),
        np.arange(-1, rows + 1),
        framed,
        levels=[0.5],
        colors=[colour],
        linestyles=[style],
        linewidths=width,
    )


def labelled_view(
    label_maps: Sequence[np.ndarray], shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> tuple[slice, slice]:
    """Rows and columns around all that is labelled, with a margin; everything if nothing is."""
    seen = np.zeros(shape, bool)
    for label_map in label_maps:
        for one in label_map:
            seen |= one != 0
    view = []
    for axis, size_mm in enumerate(spacing_mm):
        hits = np.flatnonzero(seen.any(axis=1 - axis))
        margin = math.ceil(_MARGIN_MM / size_mm)
        view.append(slice(max(0, hits[0] - margin), hits[-1] + 1 + margin) if len(hits) else slice(None))
    return view[0], view[1]


def _legend(figure: Figure, *, truth: bool, prediction: bool) -> None:
    lines = {
        f"{region}, {whose}": Line2D([], [], color=label_colour(members[0]), linestyle=_STYLES[whose])
        for region, members in labels.REGIONS.items()
        for whose, there in (("truth", truth), ("prediction", prediction))
        if there
    }
    if lines:
        figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside lower center",
            ncols=len(lines) if len(figure.axes) > 2 else 2,
            frameon=False,
        )


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="0.4")


def label_colour(label: int) -> tuple[float, float, float]:
    """A label's colour as matplotlib wants it, each part in [0, 1]."""
    red, green, blue = labels.LABEL_COLOURS[label]
    return red / 255, green / 255, blue / 255
