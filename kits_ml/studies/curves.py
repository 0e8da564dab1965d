"""Tuning curves: the best validation score that so many trials may be expected to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from kits_ml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TuningCurve:
    """Of the best of `n` trials, for `n` from 1 to the number of trials.

    Attributes:
        expected: its mean.
        low, high: ends of an interval that holds it with the probability that was asked for.
    """

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


def tuning_curve(scores: Sequence[float], *, probability: float = 0.9) -> TuningCurve:
    """Expected best score against budget (Dodge et al. 2019, arXiv:1909.03004).

    The best of `n` draws is at most the `i`-th smallest of `N` observed scores with probability `(i / N) ** n`, so
    its mean is `sum_i v_i ((i / N) ** n - ((i - 1) / N) ** n)`. Exact for draws that do not depend on one another, as
    those of a random search; for a sampler that learns it says what its trials, in any order, would have given.

    Args:
        scores: one a trial, higher is better; a failed trial counts as what it is worth, such as 0.
        probability: of the interval.

    Raises:
        InputError: no scores, or one that is no number.
    """
    values = np.sort(np.asarray(scores, float))
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"scores: found {list(scores)!r}, expected at least one, and numbers")
    num_scores = len(values)
    budgets = np.arange(1, num_scores + 1)[:, None]
    at_most = (np.arange(num_scores + 1) / num_scores)[None, :] ** budgets  # (budgets, scores + 1)
    tail = (1 - probability) / 2
    return TuningCurve(
        expected=np.diff(at_most, axis=1) @ values,
        low=values[(at_most[:, 1:] >= tail - 1e-12).argmax(axis=1)],
        high=values[(at_most[:, 1:] >= 1 - tail - 1e-12).argmax(axis=1)],
    )


def tuning_figure(
    scores: Mapping[str, Sequence[float]],
    *,
    score_name: str,
    minutes: Mapping[str, float] | None = None,
    probability: float = 0.9,
) -> Figure:
    """Draws the tuning curves of several architectures, against trials and, beside it, against minutes.

    Args:
        scores: of the trials, by architecture; one without trials is left out.
        score_name: for the axis.
        minutes: of a trial, the mean of each architecture; without them there is no second panel.
        probability: of the intervals.
    """
    units = {"trials": dict.fromkeys(scores, 1.0)} | ({"minutes of training": minutes} if minutes else {})
    figure = Figure(figsize=(7 if len(units) == 1 else 11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(units), sharey=True, squeeze=False)[0]
    for axes, (unit, of_a_trial) in zip(panels, units.items(), strict=True):
        for number, (name, values) in enumerate(scores.items()):
            if not len(values):
                continue
            curve, colour = tuning_curve(values, probability=probability), f"C{number % 10}"
            budgets = of_a_trial[name] * np.arange(1, len(values) + 1)
            style = "-" if number < 10 else "--"  # there are ten colours
            axes.plot(budgets, curve.expected, style, label=name, color=colour)
            axes.fill_between(budgets, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
        axes.set_xlabel(unit)
    panels[0].set_ylabel(f"expected best {score_name}")
    panels[0].legend()
    figure.suptitle(f"What so much may be expected to find; {probability:.0%} intervals")
    return figure
