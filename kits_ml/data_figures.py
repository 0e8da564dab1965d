"""A page of plots about a folder of cases, before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from kits_ml import labels
from kits_ml.data.findings import LEVELS, Finding
from kits_ml.data.fingerprint import HISTOGRAM_EDGES_HU, Fingerprint

#: The HU range is drawn between these; what lies beyond is drawn at the edge, with a mark.
DRAWN_HU = (-3100.0, 3300.0)

#: How many kinds of findings the page has room for.
MOST_RULES = 12

_KEPT, _LEFT_OUT = "#0072B2", "#BBBBBB"
_LEVEL_COLOURS = {"error": "#D55E00", "warning": "#E69F00", "note": "#56B4E9"}
_WHOLE_IMAGE = "0.45"


def overview(
    fingerprints: Sequence[Fingerprint],
    findings: Sequence[Finding],
    *,
    left_out: Collection[str] = (),
    title: str = "",
) -> Figure:
    """Slice counts, spacing, HU ranges, volumes, HU distributions and findings on one page.

    Args:
        fingerprints: at least one.
        findings: remarks on these and perhaps on unreadable cases.
        left_out: names of cases that a selection leaves out: drawn in grey.
        title: above the page.
    """
    figure = Figure(figsize=(15, 8.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    panels = figure.subplots(2, 3).ravel()
    kept = [one for one in fingerprints if one.case not in left_out]
    others = [one for one in fingerprints if one.case in left_out]
    chosen = f": {len(kept)} selected (blue), {len(others)} left out (grey)" if others else ""
    figure.suptitle(f"{title}, {_cases(len(fingerprints))}{chosen}".removeprefix(", "), fontsize=14)
    _slice_counts(panels[0], kept, others)
    _spacings(panels[1], kept, others)
    _hu_ranges(panels[2], fingerprints, left_out)
    _volumes(panels[3], fingerprints)
    _hu_distributions(panels[4], fingerprints)
    _findings(panels[5], findings)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _slice_counts(axes: Axes, kept: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> None:
    counts = [[one.slices for one in group] for group in (kept, others)]
    everything = np.concatenate(counts)
    low, high = int(everything.min()), int(everything.max())
    # whole numbers fall in the middle of bins that are a whole number of slices wide
    width = max(1, -(-(high - low + 1) // 24))
    edges = np.arange(low, high + width + 1, width) - 0.5
    axes.hist(counts, bins=edges, stacked=True, color=[_KEPT, _LEFT_OUT], edgecolor="white", linewidth=0.5)
    axes.set(title=f"slices: median {np.median(everything):g}, {low} to {high}", xlabel="slices", ylabel="cases")
    axes.set_xlim(max(0, min(edges[0], low - 2.5)), max(edges[-1], high + 2.5))
    _whole_ticks(axes.xaxis, axes.yaxis)


def _spacings(axes: Axes, kept: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> None:
    """In-plane against through-plane; points on the same spot grow."""
    for group, colour in ((others, _LEFT_OUT), (kept, _KEPT)):
        spots = Counter((round(one.row_spacing_mm, 2), round(one.slice_spacing_mm, 2)) for one in group)
        if spots:
            across, along = zip(*spots, strict=True)
            sizes = [24 + 12 * (count - 1) for count in spots.values()]
            axes.scatter(across, along, s=sizes, color=colour, alpha=0.75, edgecolor="white", linewidth=0.4)
    everything = [*kept, *others]
    median = np.median([(one.row_spacing_mm, one.slice_spacing_mm) for one in everything], axis=0)
    axes.set(
        title=f"spacing: median {median[0]:.2f} mm in plane, {median[1]:.2g} mm between slices",
        xlabel="pixel size (mm)",
        ylabel="slice spacing (mm)",
    )
    axes.set_ylim(0, 1.08 * max(one.slice_spacing_mm for one in everything))
    axes.set_xlim(*_around([one.row_spacing_mm for one in everything], 0.06))
    axes.grid(alpha=0.25)


def _hu_ranges(axes: Axes, fingerprints: Sequence[Fingerprint], left_out: Collection[str]) -> None:
    """A bar a case from its lowest to its highest HU, in order of the highest; a triangle where it goes on."""
    ordered = sorted(fingerprints, key=lambda one: (one.hu.max, -one.hu.min))
    lowest, highest = DRAWN_HU
    ranges = np.clip([(one.hu.min, one.hu.max) for one in ordered], lowest, highest)
    colours = [_LEFT_OUT if one.case in left_out else _KEPT for one in ordered]
    # without gaps: more bars than pixels would otherwise show a pattern that is not in the data
    places = np.arange(len(ordered))
    axes.bar(places, ranges[:, 1] - ranges[:, 0], bottom=ranges[:, 0], width=1.0, color=colours)
    for beyond, edge, marker in (
        ([one.hu.max > highest for one in ordered], highest, "^"),
        ([one.hu.min < lowest for one in ordered], lowest, "v"),
    ):
        marked = places[beyond]
        if len(marked):  # an empty line that is not clipped would upset the layout
            axes.plot(
                marked, [edge] * len(marked), marker, color=_LEVEL_COLOURS["error"], markersize=5, clip_on=False
            )
    beside = max(0, 5 - len(ordered))  # a few cases are not drawn as one block
    extremes = min(one.hu.min for one in ordered), max(one.hu.max for one in ordered)
    axes.set(
        title=f"HU range of each case: {extremes[0]:g} to {extremes[1]:g}",
        xlabel="cases, by highest HU",
        ylabel="HU",
        xlim=(-0.5 - beside, len(ordered) - 0.5 + beside),
        xticks=[],
    )
    axes.axhline(0, color="0.3", linewidth=0.6)


def _volumes(axes: Axes, fingerprints: Sequence[Fingerprint]) -> None:
    """Kidney (with tumour) and tumour, on a logarithmic axis, for they differ by a factor of a thousand."""
    found = {
        "kidney and tumour": ([one.kidney_ml for one in fingerprints if one.kidney_ml > 0], labels.KIDNEY),
        "tumour": ([one.tumour_ml for one in fingerprints if one.tumour_ml > 0], labels.TUMOUR),
    }
    everything = [value for values, _ in found.values() for value in values]
    axes.set(title="labelled volume", xlabel="ml", ylabel="cases")
    if not everything:
        axes.text(0.5, 0.5, "nothing is labelled", ha="center", transform=axes.transAxes, color="0.4")
        return
    low, high = np.floor(np.log10(min(everything))), np.ceil(np.log10(max(everything)))
    edges = np.logspace(low, max(high, low + 1), 31)
    for name, (values, label) in found.items():
        if values:
            text = f"{name}: {_cases(len(values))}, median {np.median(values):.3g} ml"
            axes.hist(values, bins=edges, color=_colour(label), alpha=0.65, label=text)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _whole_ticks(axes.yaxis)
    _legend(axes)


def _hu_distributions(axes: Axes, fingerprints: Sequence[Fingerprint]) -> None:
    """The median case's distribution with the band of the middle 90 % of cases: each case counts the same."""
    edges = np.array(HISTOGRAM_EDGES_HU)
    centres = (edges[:-1] + edges[1:]) / 2
    tops: list[float] = []
    for name, attribute, colour in (
        ("kidney without tumour", "kidney_hu", _colour(labels.KIDNEY)),
        ("tumour", "tumour_hu", _colour(labels.TUMOUR)),
        ("whole image", "hu", _WHOLE_IMAGE),
    ):
        counts = [getattr(one, attribute).counts for one in fingerprints if getattr(one, attribute) is not None]
        shares = np.array([np.array(one) / sum(one) for one in counts if sum(one)])
        if not len(shares):
            continue
        low, middle, high = 100 * np.percentile(shares, [5, 50, 95], axis=0)
        axes.fill_between(centres, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(centres, middle, color=colour, linewidth=2, label=name)
        if attribute != "hu" or not tops:  # the air of a clipped image may tower over all else
            tops.append(high.max())
    axes.set(
        title="HU by region: median case, middle 90 % of cases",
        xlabel="HU",
        ylabel="% of the voxels in this range, by 10 HU",
        xlim=(edges[0], edges[-1]),
    )
    axes.set_ylim(0, max(tops, default=1.0))
    _legend(axes, loc="upper right")


def _findings(axes: Axes, findings: Sequence[Finding]) -> None:
    cases = Counter((finding.level, finding.rule) for finding in findings)
    ordered = sorted(cases.items(), key=lambda item: (LEVELS.index(item[0][0]), -item[1]))[:MOST_RULES]
    axes.set(title="findings", xlabel="cases")
    if not ordered:
        axes.text(0.5, 0.5, "nothing to remark", ha="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[], xlabel="")
        return
    names = [rule.replace("_", " ") for (_, rule), _ in ordered]
    bars = axes.barh(
        names, [count for _, count in ordered], color=[_LEVEL_COLOURS[level] for (level, _), _ in ordered]
    )
    axes.bar_label(bars, padding=3)
    axes.set_ylim(max(len(names), 6) - 0.4, -0.6)  # the gravest on top, and thin bars where there are few
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    _whole_ticks(axes.xaxis)
    levels = [level for level in LEVELS if any(level == found for (found, _), _ in ordered)]
    handles = [bars[[level for (level, _), _ in ordered].index(level)] for level in levels]
    axes.legend(handles, levels, frameon=False, loc="lower right")


def _around(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits with a margin, also where all values are the same."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = max(0.05 * (high - low), least)
    return low - margin, high + margin


def _legend(axes: Axes, *, loc: str = "upper left") -> None:
    """A legend above the data."""
    axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc=loc)


def _cases(number: int) -> str:
    return f"{number} case{'s' * (number != 1)}"


def _whole_ticks(*drawn) -> None:
    for axis in drawn:
        axis.set_major_locator(MaxNLocator(integer=True))


def _colour(label: int) -> tuple[float, float, float]:
    red, green, blue = labels.LABEL_COLOURS[label]
    return red / 255, green / 255, blue / 255
