"""Charts as SVG text for an HTML page: numbers in, markup out.

Colours and fonts come from the page's style sheet (`kidney`, `tumour`, `background`, `axis`, `grid`, ...), so that
they follow light and dark. Every mark has a `<title>`, which browsers show under the pointer. Kidneys are circles and
tumours squares: shape tells them apart where colour cannot.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Of a chart, in its own units: what is written is then readable on a phone, where a chart fills the width.
WIDTH, HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 12, 48

#: Part of the differences between the limits of agreement, under the normal law (Bland and Altman, Lancet 1986).
_AGREEMENT_SDS = 1.96

_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a chart.

    Attributes:
        low, high: what it spans, the ends included.
        ticks: where there is a mark with a number.
        label: what it shows, with its unit.
        log: whether equal steps are equal factors; all above 0 then.
    """

    low: float
    high: float
    ticks: Sequence[float]
    label: str
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high end; what lies beyond an end is drawn there."""
        value = min(max(value, self.low), self.high)
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return (value - low) / (high - low)


def axis_around(values: Sequence[float], *, label: str, include: Sequence[float] = ()) -> Axis:
    """A linear axis with round ticks around some finite values."""
    shown = [*values, *include] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    if low == high:
        low, high = low - 1, high + 1
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * one for one in _STEPS if size * one >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, label=label)


def log_axis_around(values: Sequence[float], *, label: str) -> Axis:
    """A logarithmic axis over whole decades around some values above 0."""
    shown = list(values) or [1.0]
    first, last = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    last = max(last, first + 1)
    ticks = [10.0**power for power in range(first, last + 1)]
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, label=label, log=True)


def share_axis(label: str) -> Axis:
    """From 0 to 1."""
    return Axis(low=0.0, high=1.0, ticks=(0, 0.2, 0.4, 0.6, 0.8, 1.0), label=label)


def box_and_points(scores: Mapping[str, Mapping[str, float]], *, axis: Axis, title: str) -> str:
    """A box (quartiles, whiskers to the last point within 1.5 of its length) and every case, region beside region.

    Args:
        scores: by region, then by case. NaN is left out and counted below the box.
        axis: of the values.
        title: what the chart shows, for those who cannot see it.
    """
    marks = [_frame(None, axis)]
    rng = np.random.default_rng(0)  # spreads points sideways, the same way each time
    for place, (region, cases) in enumerate(scores.items()):
        middle = _LEFT + (WIDTH - _LEFT - _RIGHT) * (place + 0.5) / len(scores)
        defined = {case: value for case, value in cases.items() if not math.isnan(value)}
        if defined:
            marks.append(_box(middle, np.array(list(defined.values())), axis, region))
        for (case, value), shift in zip(defined.items(), rng.uniform(-26, 26, len(defined)), strict=True):
            marks.append(_mark(middle + shift, _y(axis, value), region, f"{case}: {value:.3g}"))
        undefined = f", {len(cases) - len(defined)} undefined" if len(defined) < len(cases) else ""
        marks.append(_text(middle, HEIGHT - _BOTTOM + 18, region))
        marks.append(_text(middle, HEIGHT - _BOTTOM + 34, f"n = {len(defined)}{undefined}", "small"))
    return _svg(marks, title)


def points(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    x_axis: Axis,
    y_axis: Axis,
    title: str,
) -> str:
    """A scatter plot.

    Args:
        groups: x and y by region, then by case.
        x_axis, y_axis: what is drawn where.
        title: what the chart shows, for those who cannot see it.
    """
    marks = [_frame(x_axis, y_axis)]
    for region, cases in groups.items():
        for case, (x, y) in cases.items():
            marks.append(_mark(_x(x_axis, x), _y(y_axis, y), region, f"{case}: {x:.3g}, {y:.3g}"))
    return _svg(marks, title)


def bland_altman(pairs: Mapping[str, tuple[float, float]], *, region: str, unit: str, title: str) -> str:
    """Predicted minus true over their mean, with the mean difference and the limits of agreement.

    Args:
        pairs: true and predicted value by case.
        region: whose colour and shape the points have.
        unit: of the values.
        title: what the chart shows, for those who cannot see it.
    """
    means = {case: (true + pred) / 2 for case, (true, pred) in pairs.items()}
    differences = {case: pred - true for case, (true, pred) in pairs.items()}
    lines = agreement(list(differences.values()))
    x_axis = axis_around(list(means.values()), label=f"mean of true and predicted volume, {unit}", include=[0.0])
    y_axis = axis_around(
        list(differences.values()),
        label=f"predicted − true, {unit}",
        include=[0.0, *(value for value in lines.values() if not math.isnan(value))],
    )
    marks = [_frame(x_axis, y_axis), _level(y_axis, 0.0, "axis")]
    for name, value in lines.items():
        if not math.isnan(value):
            marks.append(
                _level(
                    y_axis,
                    value,
                    "mean" if name == "bias" else "limit",
                    f"{name}: {value:.3g} {unit}".replace("-", "−"),
                )
            )
    for case, difference in differences.items():
        tip = f"{case}: mean {means[case]:.3g} {unit}, difference {difference:+.3g} {unit}"
        marks.append(_mark(_x(x_axis, means[case]), _y(y_axis, difference), region, tip))
    return _svg(marks, title)


def agreement(differences: Sequence[float]) -> dict[str, float]:
    """The mean difference (`bias`) and the limits of agreement; NaN where there are too few values."""
    if not differences:
        return dict.fromkeys(("bias", "lower limit", "upper limit"), math.nan)
    bias = float(np.mean(differences))
    half = _AGREEMENT_SDS * float(np.std(differences, ddof=1)) if len(differences) > 1 else math.nan
    return {"bias": bias, "lower limit": bias - half, "upper limit": bias + half}


def reliability(curve: Sequence[Mapping[str, float]], *, label: str, title: str) -> str:
    """How often a label was right against the probability it was given, with intervals; the diagonal is right.

    Args:
        curve: see `summary.reliability_curve`.
        label: the label's name.
        title: what the chart shows, for those who cannot see it.
    """
    x_axis, y_axis = share_axis("predicted probability"), share_axis("how often it was so")
    ends = [(_x(x_axis, one), _y(y_axis, one)) for one in (0.0, 1.0)]
    marks = [_frame(x_axis, y_axis), _line(*ends[0], *ends[1], "limit")]
    places = [(_x(x_axis, one["mean_probability"]), _y(y_axis, one["frequency"])) for one in curve]
    for (x, _), one in zip(places, curve, strict=True):
        if not math.isnan(one["ci_low"]):
            marks.append(_line(x, _y(y_axis, one["ci_low"]), x, _y(y_axis, one["ci_high"]), f"interval {label}"))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks.append(f'<polyline class="curve {label}" points="{path}"/>')
    for (x, y), one in zip(places, curve, strict=True):
        tip = (
            f"probability {one['mean_probability']:.3f}, right in {one['frequency']:.3f} of {one['num_voxels']:,} "
            f"voxels of {one['num_cases']} cases"
        )
        marks.append(_mark(x, y, label, tip))
    return _svg(marks, title)


def _box(middle: float, values: np.ndarray, axis: Axis, region: str) -> str:
    low, centre, high = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (high - low)
    ends = values[values >= low - reach].min(), values[values <= high + reach].max()
    top, bottom = _y(axis, high), _y(axis, low)
    height = max(bottom - top, 0.5)
    return (
        f'<g class="box {region}"><title>{region}: median {centre:.3g}, quartiles {low:.3g} to {high:.3g}</title>'
        + _line(middle, _y(axis, ends[0]), middle, bottom, "")
        + _line(middle, top, middle, _y(axis, ends[1]), "")
        + f'<rect x="{middle - 34:.1f}" y="{top:.1f}" width="68" height="{height:.1f}"/>'
        + _line(middle - 34, _y(axis, centre), middle + 34, _y(axis, centre), "median")
        + "</g>"
    )


def _frame(x_axis: Axis | None, y_axis: Axis) -> str:
    """Ticks, grid and labels; without an x axis its room stays free."""
    left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for tick in y_axis.ticks:
        y = _y(y_axis, tick)
        parts += [_line(left, y, right, y, "grid"), _text(left - 7, y + 4, _number(tick), "end")]
    for tick in x_axis.ticks if x_axis else ():
        x = _x(x_axis, tick)
        parts += [_line(x, _TOP, x, bottom, "grid"), _text(x, bottom + 17, _number(tick))]
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(
        f'<text transform="translate(10 {(_TOP + bottom) / 2:.0f}) rotate(-90)">{html.escape(y_axis.label)}</text>'
    )
    if x_axis:
        parts.append(_text((left + right) / 2, HEIGHT - 10, x_axis.label))
    return "".join(parts)


def _svg(marks: Sequence[str], title: str) -> str:
    name = html.escape(title)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(mark for mark in marks)}</svg>"
    )


def _mark(x: float, y: float, kind: str, tip: str) -> str:
    shape = (
        f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7">'
        if kind == "tumour"
        else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4">'
    )
    return f'<g class="mark {kind}">{shape}<title>{html.escape(tip)}</title></{shape[1:].split()[0]}></g>'


def _level(axis: Axis, value: float, style: str, text: str = "") -> str:
    y = _y(axis, value)
    label = _text(WIDTH - _RIGHT - 4, y - 5, text, "end small") if text else ""
    return _line(_LEFT, y, WIDTH - _RIGHT, y, style) + label


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:g}".replace("-", "−")


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.share(value) * (HEIGHT - _TOP - _BOTTOM)
