"""Is there a difference? Friedman's test over all, paired tests of two, Holm's correction, and how often one wins.

Scores are `(num_cases, num_algorithms)` with a patient a row; differences are `(num_cases,)`. Nothing here is NaN:
`alignment.align` leaves out patients without a value.

Sources: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006); Holm, Scand. J.
Statist. 6 (1979); Pratt, JASA 54 (1959); Iman and Davenport, Commun. Stat. A 9 (1980); Phipson and Smyth, SAGMB 9
(2010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Up to so many patients who differ all flips of signs are gone through instead of drawn.
MAX_CASES_OF_ALL_FLIPS = 13

_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Friedman:
    """Friedman's test: do the algorithms' ranks differ anywhere?

    Attributes:
        statistic: chi-squared, corrected for ties.
        num_degrees: its degrees of freedom.
        p_value: of chi-squared.
        iman_davenport: the less conservative F of the same ranks; infinite where all patients rank alike.
        iman_davenport_p: of F.
    """

    statistic: float
    num_degrees: int
    p_value: float
    iman_davenport: float
    iman_davenport_p: float


def friedman(scores: np.ndarray) -> Friedman | None:
    """Friedman's test of three algorithms or more; None for two, of which the paired test says all.

    Where every patient gives all algorithms the same score, the statistic is 0 and p is 1.
    """
    num_cases, num_algorithms = scores.shape
    if num_algorithms < 3:
        return None
    if (scores == scores[:, :1]).all():
        return Friedman(
            statistic=0.0, num_degrees=num_algorithms - 1, p_value=1.0, iman_davenport=0.0, iman_davenport_p=1.0
        )
    found = stats.friedmanchisquare(*scores.T)
    f_value = iman_davenport(float(found.statistic), num_cases=num_cases, num_algorithms=num_algorithms)
    degrees = (num_algorithms - 1, (num_algorithms - 1) * (num_cases - 1))
    return Friedman(
        statistic=float(found.statistic),
        num_degrees=num_algorithms - 1,
        p_value=float(found.pvalue),
        iman_davenport=f_value,
        iman_davenport_p=float(stats.f.sf(f_value, *degrees)),
    )


def iman_davenport(statistic: float, *, num_cases: int, num_algorithms: int) -> float:
    """Iman and Davenport's F of a Friedman chi-squared; infinite at its upper end."""
    rest = num_cases * (num_algorithms - 1) - statistic
    return math.inf if rest <= 1e-9 else (num_cases - 1) * statistic / rest


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """The mean over patients of each algorithm's rank, `(num_algorithms,)`; 1 is best, ties share their mean rank.

    Args:
        scores: `(num_cases, num_algorithms)`, higher is better.
    """
    return stats.rankdata(-scores, axis=1).mean(axis=0)


def critical_difference(*, num_cases: int, num_algorithms: int, alpha: float) -> float:
    """Nemenyi's: how far mean ranks must lie apart to differ, all pairs taken together at `alpha`."""
    quantile = stats.studentized_range.ppf(1 - alpha, num_algorithms, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(num_algorithms * (num_algorithms + 1) / (6 * num_cases)))


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test.

    Zero differences are ranked and then dropped (Pratt), which neither throws away patients that are equal nor counts
    them for anybody. Exact where up to `MAX_CASES_OF_ALL_FLIPS` patients differ, however many are equal, and up to 50
    where there are neither ties nor zeros; by the normal approximation else. All zero: 1.
    """
    signed_ranks = (np.sign(differences) * stats.rankdata(np.abs(differences)))[differences != 0]
    # scipy goes through few patients one by one, which takes seconds; beside zeros it takes the normal approximation,
    # to which five patients of thirty are a difference (p = 0.025), where flips of five signs give 0.0625 at least
    if len(signed_ranks) <= MAX_CASES_OF_ALL_FLIPS:
        return sign_flips(signed_ranks, num_resamples=0, seed=0)
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def sign_flips(differences: np.ndarray, *, num_resamples: int, seed: int) -> float:
    """Two-sided p of the mean difference when each patient's difference may as well have the other sign.

    All flips are gone through where up to `MAX_CASES_OF_ALL_FLIPS` patients differ; else they are drawn, and the flip
    that was seen counts as one of them, so that p is never 0. All zero: 1.
    """
    differences = differences[differences != 0]  # the flip of a zero is the same
    num_cases = len(differences)
    seen = abs(differences.sum()) * (1 - 1e-12)  # sums in another order differ in their last digits
    if num_cases <= MAX_CASES_OF_ALL_FLIPS:
        bits = np.arange(2**num_cases)[:, None] >> np.arange(num_cases) & 1
        return float((abs((1 - 2 * bits) @ differences) >= seen).mean())
    rng = np.random.default_rng(seed)
    num_extreme = 0
    for start in range(0, num_resamples, _CHUNK):
        flips = rng.integers(2, size=(min(_CHUNK, num_resamples - start), num_cases))
        num_extreme += int((abs((1 - 2 * flips) @ differences) >= seen).sum())
    return (num_extreme + 1) / (num_resamples + 1)


def smallest_p(num_cases: int) -> float:
    """The smallest two-sided p that either paired test can give with so many patients."""
    return 2.0 ** (1 - num_cases)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the order given; a NaN stays one and does not count as a test."""
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, math.nan)
    defined = ~np.isnan(p_values)
    if defined.any():
        adjusted[defined] = _holm(p_values[defined])
    return adjusted


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Smallest p times the number of tests, the next times one less, ...; never below the one before, nor above 1."""
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def wins(differences: np.ndarray) -> np.ndarray:
    """For each patient 1 where the difference is positive, 0 where negative, one half for a tie.

    The mean is the probability of superiority, P(A > B) + P(A = B) / 2, of a patient like these.
    """
    return 0.5 * (1 + np.sign(differences))


def wins_interval(wins: np.ndarray, *, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of the probability of superiority (JASA 22, 1927).

    Drawing patients again says nothing where one wins in all of them: each sample is the same. Ties, which vary less
    than wins and losses do, make the interval wider than it need be.

    Args:
        wins: `(num_cases,)`, see `wins`.
        confidence: of the interval.
    """
    z, num_cases, share = float(stats.norm.ppf((1 + confidence) / 2)), len(wins), float(wins.mean())
    centre = share + z**2 / (2 * num_cases)
    reach = z * math.sqrt(share * (1 - share) / num_cases + (z / (2 * num_cases)) ** 2)
    low, high = ((centre + side * reach) / (1 + z**2 / num_cases) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)
