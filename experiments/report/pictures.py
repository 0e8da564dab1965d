"""The essay's figures: results of stages in, SVG or PNG out. Narrow, so that a phone can show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kits_ml import figures
from kits_ml.evaluation.misreading import misread_iou_of_background, misread_iou_of_pixel_error

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}

Result = Mapping[str, Any]


def closed_forms(readings: Result, rule: Result | None) -> bytes:
    """What MeanIoU and the honest mean IoU read of an empty prediction, over the foreground's part.

    The scale is broken: one reads a third and the other nearly 1.
    """
    fractions = np.linspace(0, 0.05, 101)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.8), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        percent = 100 * fractions
        axes.plot(percent, [misread_iou_of_background(one) for one in fractions], color=ORANGE, label="MeanIoU reads")
        below.plot(percent, (1 - fractions) / 3, color=BLUE, label="honest mean IoU")
        reported = readings["theory"]["reported"]
        axes.axhline(reported, color=GREY, linestyle="dotted")
        axes.annotate(f"the report's {reported}", (5, reported), ha="right", va="bottom", color=GREY)
        marks = {"our test slices": readings["foreground_fraction"]}
        marks |= {f"the rule's {rule['num_kept']} KiTS19 cases": rule["foreground_fraction"]} if rule else {}
        marks |= {"where it reads as reported": readings["theory"]["pixel_error_of_reported"]}
        for (name, fraction), shape in zip(marks.items(), "osD", strict=False):
            label = f"{name}: {100 * fraction:.2f} %"
            axes.plot(100 * fraction, misread_iou_of_background(fraction), shape, color=ORANGE, label=label)
        axes.set(ylabel="reading", ylim=(0.92, 1.002), xlim=(0, 5))
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(bottom=False)
        below.set(xlabel="foreground, % of the pixels", ylabel="reading", ylim=(0.3, 0.35))
        figure.legend(frameon=False, fontsize=9, loc="outside lower center")
        return figures.to_svg(figure)


def pixel_errors(readings: Result) -> bytes:
    """What MeanIoU reads over the part of wrong pixels, with the report's reading and our network's."""
    ways, theory = readings["ways"], readings["theory"]
    points = {
        "the report's": theory["pixel_error_of_reported"],
        "an empty prediction": ways["nothing"]["pixel_error"],
        "our network": ways["trained, hardened"]["pixel_error"],
    }
    limit = min(max(0.05, 1.1 * max(points.values())), 1.0)
    errors = np.linspace(0, limit, 101)
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 3.4)
        axes.plot(100 * errors, [misread_iou_of_pixel_error(one) for one in errors], color=ORANGE)
        for (name, error), shape in zip(points.items(), "Dos", strict=True):
            reading = misread_iou_of_pixel_error(error)
            label = f"{name}: {100 * error:.2f} % wrong, {reading:.3f}"
            axes.plot(100 * error, reading, shape, color=ORANGE if shape != "s" else BLUE, clip_on=False, label=label)
        axes.set(xlabel="wrong pixels, %", ylabel="MeanIoU, hard predictions", xlim=(0, 100 * limit))
        axes.legend(frameon=False, fontsize=9, loc="lower left")
        return figures.to_svg(figure)


def learning_curve(exact: Result, reported: float) -> bytes:
    """The report's accuracy curve, drawn again, and the honest scores of the same training."""
    shown = {
        "as_reported/mean_iou": ("MeanIoU, training", ORANGE, "solid"),
        "as_reported/val_mean_iou": ("MeanIoU, validation", ORANGE, "dashed"),
        "val_dice_kidney": ("kidney Dice per patient", GREEN, "dashed"),
        "val_foreground_iou": ("foreground IoU per patient", BLUE, "dashed"),
        "val_dice_tumour": ("tumour Dice per patient", "black", "dashed"),
    }
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 4.2)
        for name, (label, colour, style) in shown.items():
            values = exact["history"][name]
            axes.plot(range(1, len(values) + 1), values, color=colour, linestyle=style, marker="o", ms=4, label=label)
        axes.axhline(reported, color=GREY, linestyle="dotted", label=f"the report's {reported}")
        axes.set(xlabel="epoch", ylabel="score", ylim=(-0.02, 1.05))
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
        return figures.to_svg(figure)


def ways(readings: Result) -> bytes:
    """The six predictions: what MeanIoU reads, the honest mean IoU, and Dice of the patients who show the region."""
    rows = readings["ways"]
    scores = {
        "MeanIoU as reported": ([one["as_reported"] for one in rows.values()], ORANGE, "o"),
        "honest mean IoU": ([one["mean_iou_pooled"] for one in rows.values()], BLUE, "s"),
        "kidney Dice": ([one["dice_kidney"]["mean"] for one in rows.values()], GREEN, "D"),
        "tumour Dice": ([one["dice_tumour"]["mean"] for one in rows.values()], "black", "^"),
    }
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 3.6)
        _lanes(axes, list(rows))
        for label, (values, colour, shape) in scores.items():
            fill = {"mfc": "none", "mew": 1.8, "ms": 10} if shape == "o" else {"ms": 6}  # where several are 1
            axes.plot(values, range(len(rows)), shape, color=colour, label=label, **fill)
        axes.set(xlabel="reading", xlim=(-0.03, 1.03))
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
        return figures.to_svg(figure)


def tumour_labels(labels: Result) -> bytes:
    """Dice of interpolated tumour labels against the right ones, a point a patient, over the tumour's size."""
    sizes, rounded, cut = np.array(labels["by_case"], float).T
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 3.4)
        axes.plot(sizes, rounded, "o", color=BLUE, ms=4, alpha=0.6, label="rounded")
        axes.plot(sizes, cut, "s", color=ORANGE, ms=4, alpha=0.6, label="cut off")
        axes.set(xscale="log", xlabel="pixels of tumour, all slices of a patient", ylabel="Dice of the labels")
        axes.set_ylim(top=1.02)
        axes.legend(frameon=False)
        return figures.to_svg(figure)


def grey_values(grey: Result) -> bytes:
    """The grey value of the kidney over the scan's brightest voxel, clipped and not."""
    curves = grey["curves"]
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 4.0)
        axes.axhspan(0, 1, color="0.93")
        axes.plot(curves["highest_hu"], curves["unclipped"]["kidney"], color=ORANGE, label="a kidney of 180 HU")
        for source, shape in (("phantom", "o"), ("real", "*")):
            rows = [row for row in grey["cases"] if row["source"] == source]
            if rows:
                x, size = [row["highest_hu"] for row in rows], 11 if shape == "*" else 5
                for key, colour in (("unclipped", ORANGE), ("clipped", BLUE)):
                    label = f"{source}, {key}"
                    axes.plot(x, [row[key] for row in rows], shape, color=colour, ms=size, alpha=0.7, label=label)
        axes.text(3000, 0.97, "what a PNG shows", ha="right", va="top", color=GREY, fontsize=9)
        axes.set(xlabel="brightest voxel of the scan, HU", ylabel="grey value (0 black, 1 white)")
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
        return figures.to_svg(figure)


def leakage(results: Mapping[str, Result]) -> bytes:
    """Dice of patients whom the network knows by other slices, and of the same patients when they are new to it."""
    lanes = [(source, region) for source in results for region in ("kidney", "tumour")]
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 1.6 + 0.7 * len(lanes))
        _lanes(axes, [f"{source}, {region}" for source, region in lanes])
        for kind, colour, shape, shift in (("shuffled", ORANGE, "o", -0.12), ("new", BLUE, "s", 0.12)):
            found = [results[source][f"dice_{region}"][kind] for source, region in lanes]
            label = {"shuffled": "patients known by other slices", "new": "the same patients, when new"}[kind]
            _intervals(axes, found, np.arange(len(lanes)) + shift, colour=colour, shape=shape, label=label)
        axes.set(xlabel="Dice per patient, mean and 95 % interval", xlim=(-0.02, 1.02))
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=1)
        return figures.to_svg(figure)


def mending(rows: Sequence[Result]) -> bytes:
    """Each step of the series: the report's metric on its own validation, and Dice of held-out patients."""
    places = np.arange(len(rows))
    with rc_context(STYLE):
        figure, axes = _axes(4.6, 1.8 + 0.62 * len(rows))
        _lanes(axes, [row["title"].replace(" of each batch ", "\nof each batch ") for row in rows])
        axes.plot(
            [row["as_reported"]["hardened"] for row in rows],
            places - 0.2,
            "o",
            color=ORANGE,
            ms=5,
            label="MeanIoU as reported, hard predictions",
        )
        for region, colour, shape, shift in (("kidney", GREEN, "s", 0.0), ("tumour", "black", "D", 0.2)):
            found = [row["test"][f"dice_{region}"] for row in rows]
            label = f"{region} Dice, held-out patients"
            _intervals(axes, found, places + shift, colour=colour, shape=shape, label=label)
            if len(rows[0]["by_seed"][f"dice_{region}"]) > 1:
                each = np.array([row["by_seed"][f"dice_{region}"] for row in rows], float)
                axes.plot(each, places + shift + 0.09, shape, color=colour, mfc="none", ms=2.5, mew=0.7)
        axes.set(xlabel="score; bars: 95 % interval over patients", xlim=(-0.02, 1.02))
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=1)
        return figures.to_svg(figure)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _lanes(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [_in_lines(name) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def _in_lines(name: str, most: int = 18) -> str:
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _intervals(axes: Axes, found: Sequence[Result], places: np.ndarray, **look: Any) -> None:
    """Means with their intervals; an interval that cannot be told is left out."""
    means = np.array([one["mean"] for one in found], float)
    low, high = (np.array([one[key] for one in found], float) for key in ("ci_low", "ci_high"))
    reach = np.nan_to_num(np.clip([means - low, high - means], 0, None))
    axes.errorbar(
        means, places, xerr=reach, fmt=look["shape"], color=look["colour"], ms=5, capsize=2, label=look["label"]
    )
