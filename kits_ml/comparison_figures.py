"""Figures of a comparison of algorithms on the same patients: arrays in, matplotlib figures out.

Blue is better and orange is worse (Okabe and Ito's palette, which colour-blind readers tell apart), and what a colour
says is written beside it too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

#: What was shown of an algorithm against another, and its colour.
VERDICT_COLOURS: Mapping[str, str] = {
    "better": "#0072B2",
    "better by ranks": "#0072B2",
    "worse": "#D55E00",
    "worse by ranks": "#D55E00",
    "not one way": "#222222",
    "equivalent": "#00795A",
    "open": "#666666",
}

_MANY = 8  # from here on cells are smaller and panels stand below each other

_INK, _GRID, _BAND = "#222222", "#DDDDDD", "#E4E4E4"
_DIVERGING = LinearSegmentedColormap.from_list("worse_to_better", ["#D55E00", "#FFFFFF", "#0072B2"])
_SHARES = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#0072B2"])


def forest(
    names: Sequence[str],
    means: np.ndarray,
    intervals: np.ndarray,
    *,
    verdicts: Sequence[str],
    margin: float,
    label: str,
) -> Figure:
    """Mean differences from the control with their intervals, and the band of differences that count as none.

    Args:
        names: of the algorithms, from top to bottom.
        means: `(num_algorithms,)`.
        intervals: `(num_algorithms, 2)`, lower and upper bound.
        verdicts: keys of `VERDICT_COLOURS`, written at the right.
        margin: of equivalence, in the unit of the means.
        label: of the axis.
    """
    figure = Figure(figsize=(7.5, 1.5 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-margin, margin, color=_BAND, lw=0, label=f"margin of equivalence (±{margin:g})")
    axes.axvline(0, color=_INK, lw=0.8)
    for place, (mean, bounds, verdict) in enumerate(zip(means, intervals, verdicts, strict=True)):
        colour = VERDICT_COLOURS[verdict]
        axes.plot(bounds, [place, place], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(mean, place, "o", color=colour, ms=6.5)
        axes.annotate(verdict, (1.02, place), xycoords=axes.get_yaxis_transform(), va="center", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _clean(axes, grid="x")
    axes.set_xlabel(label)
    figure.legend(loc="outside upper right", frameon=False, fontsize=9)
    return figure


def case_differences(
    differences: Mapping[str, np.ndarray], *, verdicts: Mapping[str, str], margin: float, label: str
) -> Figure:
    """Every patient's difference from the control, sorted: one panel an algorithm, on one scale.

    Args:
        differences: `(num_cases,)` by algorithm.
        verdicts: a key of `VERDICT_COLOURS` by algorithm.
        margin: of equivalence.
        label: of the vertical axis.
    """
    num_columns = min(4, max(1, len(differences)))
    num_rows = math.ceil(len(differences) / num_columns)
    figure = Figure(figsize=(max(4.0, 2.5 * num_columns + 0.6), 2.7 * num_rows + 0.4), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, raw) in zip(panels, differences.items(), strict=False):
        values = np.sort(raw)
        axes.axhspan(-margin, margin, color=_BAND, lw=0)
        axes.axhline(0, color=_INK, lw=0.8)
        colour = VERDICT_COLOURS[verdicts[name]]
        axes.vlines(np.arange(len(values)) + 1, 0, values, color=colour, lw=_stem(len(values)))
        axes.axhline(values.mean(), color=_INK, lw=1.2, ls=(0, (4, 2)))
        axes.set_title(f"{name}\n{verdicts[name]}", fontsize=10, color=colour)
        counts = f"{(values < 0).sum()} lower, {(values > 0).sum()} higher"
        axes.text(0.97, 0.04, counts, transform=axes.transAxes, ha="right", fontsize=8.5, color=_INK)
        _clean(axes, grid="y")
        axes.tick_params(labelbottom=True)
    for axes in panels[len(differences) :]:
        axes.set_axis_off()
    figure.supxlabel("patients, sorted   (dashed: mean; grey: margin of equivalence)", fontsize=9.5)
    figure.supylabel(label, fontsize=9.5)
    return figure


def significance_map(
    names: Sequence[str],
    differences: np.ndarray,
    p_values: np.ndarray,
    *,
    alpha: float,
    label: str,
    higher_is_better: bool = True,
) -> Figure:
    """All pairs: the mean difference of row minus column, coloured where the test shows one.

    Args:
        names: of the algorithms.
        differences: `(num_algorithms, num_algorithms)`, row minus column.
        p_values: the same shape, corrected for the number of pairs.
        alpha: pairs with a p below are coloured: blue where the row is better.
        label: what the differences are of.
        higher_is_better: False for distances.
    """
    cell = 1.05 if len(names) <= _MANY else 0.8
    size = cell * len(names) + 1.6
    figure = Figure(figsize=(max(4.8, size + 0.8), max(3.6, 0.7 * size + 0.6)), layout="constrained")
    axes = figure.subplots()
    merits = differences if higher_is_better else -differences
    shown = np.where(p_values < alpha, merits, 0.0)
    limit = np.abs(merits).max() or 1.0
    axes.imshow(shown, cmap=_DIVERGING, vmin=-1.6 * limit, vmax=1.6 * limit, aspect="auto")  # pale: text lies on it
    for row, column in np.ndindex(differences.shape):
        if row == column:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=_BAND, lw=0))
            continue
        p_value = p_values[row, column]
        text = f"{differences[row, column]:+.3f}\n".replace("-", "−") + (
            "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        )
        weight = "bold" if p_value < alpha else "normal"
        colour = _INK if p_value < alpha else "#666666"
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, weight=weight, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    _tile(axes, len(names))
    axes.set_xlabel(
        f"{label}, row minus column;\nbold: p < {alpha:g} after Holm over all pairs; blue: the row is better"
    )
    return figure


def critical_difference_diagram(
    names: Sequence[str], mean_ranks: np.ndarray, *, critical_difference: float, alpha: float
) -> Figure:
    """Mean ranks on a line; a bar joins those that lie within Nemenyi's critical difference (Demšar 2006).

    Args:
        names: of the algorithms.
        mean_ranks: `(num_algorithms,)`, 1 is best.
        critical_difference: how far mean ranks must lie apart to differ.
        alpha: of the test.
    """
    order = np.argsort(mean_ranks, kind="stable")
    ranks, num = np.asarray(mean_ranks)[order], len(names)
    groups = _groups(ranks, critical_difference)
    num_left = math.ceil(num / 2)
    first_label = 0.75 + 0.34 * len(groups)
    bottom = first_label + 0.62 * (num_left - 1) + 0.5
    figure = Figure(figsize=(7.5, 0.85 + 0.5 * (bottom + 1.5)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    reach = 0.55 * (num - 1)
    axes.set_xlim(1 - reach, num + reach)
    axes.set_ylim(bottom, -2.0)
    axes.plot([1, num], [0, 0], color=_INK, lw=1.2)
    for tick in range(1, num + 1):
        axes.plot([tick, tick], [0, -0.18], color=_INK, lw=1.2)
        axes.text(tick, -0.3, str(tick), ha="center", va="bottom", fontsize=10)
    axes.plot([1, 1 + critical_difference], [-1.3, -1.3], color=_INK, lw=1.6)
    for end in (1, 1 + critical_difference):
        axes.plot([end, end], [-1.42, -1.18], color=_INK, lw=1.6)
    axes.text(
        1 + critical_difference / 2,
        -1.5,
        f"critical difference {critical_difference:.2f} (α = {alpha:g})",
        ha="center" if critical_difference > 0.3 * num else "left",
        va="bottom",
        fontsize=9.5,
    )
    for place, (index, rank) in enumerate(zip(order, ranks, strict=True)):
        left = place < num_left
        height = first_label + 0.62 * (place if left else num - 1 - place)
        end = 1 - 0.06 * num if left else num + 0.06 * num
        axes.plot([rank, rank, end], [0, height, height], color=_INK, lw=0.9)
        text = f"{names[index]}  {rank:.2f}" if left else f"{rank:.2f}  {names[index]}"
        axes.text(
            end + (-0.02 if left else 0.02) * num,
            height,
            text,
            ha="right" if left else "left",
            va="center",
            fontsize=10,
        )
    for level, (start, stop) in enumerate(groups):
        ends = (ranks[start] - 0.02 * num, ranks[stop] + 0.02 * num)
        axes.plot(ends, [0.42 + 0.34 * level] * 2, color=VERDICT_COLOURS["better"], lw=4, solid_capstyle="round")
    return figure


def rank_distributions(
    names: Sequence[str], distributions: Mapping[str, np.ndarray], *, ranks: Mapping[str, np.ndarray]
) -> Figure:
    """How often each algorithm takes each rank when patients are drawn again.

    Args:
        names: of the algorithms.
        distributions: `(num_algorithms, num_algorithms)` by method: shares of algorithm (row) and rank (column).
        ranks: `(num_algorithms,)` by method: with all patients; sorts the algorithms, and frames cells.
    """
    num = len(names)
    stacked = num > _MANY
    num_rows, num_columns = (len(distributions), 1) if stacked else (1, len(distributions))
    width, height = 0.62 * num + 0.09 * max(map(len, names)) + 0.5, 0.42 * num + 1.1
    figure = Figure(figsize=(max(5.5, width * num_columns), height * num_rows + 0.4), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, (method, shares) in zip(panels, distributions.items(), strict=True):
        order = np.argsort(ranks[method], kind="stable")
        axes.imshow(shares[order], cmap=_SHARES, vmin=0, vmax=1, aspect="auto")
        for place, index in enumerate(order):
            for column in np.flatnonzero(np.round(shares[index], 2)):
                share = shares[index, column]
                colour = "white" if share > 0.75 else _INK
                axes.text(column, place, f"{share:.0%}", ha="center", va="center", fontsize=9, color=colour)
            axes.add_patch(_frame(place, ranks[method][index] - 1))
        axes.set_xticks(range(num), range(1, num + 1))
        axes.set_yticks(range(num), [names[index] for index in order])
        axes.set(xlabel="rank")
        axes.set_title(method.replace("_", " "), fontsize=10)
        _tile(axes, num)
    figure.supxlabel("share of bootstrap samples of patients; framed: the rank with all patients", fontsize=9.5)
    return figure


def _groups(ranks: np.ndarray, critical_difference: float) -> list[tuple[int, int]]:
    """First and last place of each longest run of sorted ranks that lie within the critical difference."""
    groups: list[tuple[int, int]] = []
    for start in range(len(ranks)):
        stop = int(np.flatnonzero(ranks - ranks[start] < critical_difference)[-1])
        if stop > start and (not groups or stop > groups[-1][1]):
            groups.append((start, stop))
    return groups


def _frame(row: int, column: int) -> Rectangle:
    return Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=_INK, lw=1.3)


def _tile(axes: Axes, num: int) -> None:
    """White lines between the cells of a square table, and nothing around it."""
    axes.set_xticks(np.arange(num + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=_GRID, lw=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _stem(num_cases: int) -> float:
    """Line width that leaves a gap between as many bars in a panel."""
    return float(np.clip(110 / num_cases, 0.5, 8))


def _clean(axes: Axes, *, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999")
    axes.grid(axis=grid, color=_GRID, lw=0.7)
    axes.set_axisbelow(True)
