"""The whole comparison: pure, from a table of scores and a plan that was made before it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from kits_ml.evaluation.aggregates import bootstrap_interval
from kits_ml.evaluation.comparison import equivalence, power, ranking, significance


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was fixed before the scores were looked at.

    Attributes:
        equivalence_margin: mean differences up to here count as none.
        higher_is_better: False for distances.
        test: `wilcoxon` or `permutation`: whose p decides.
        confidence: of intervals; tests are at `alpha`, one minus this.
        power: at which numbers of patients are told.
        num_bootstrap: how often patients, or signs, are drawn.
        seed: of the drawing.
    """

    equivalence_margin: float
    higher_is_better: bool = True
    test: str = "wilcoxon"
    confidence: float = 0.95
    power: float = 0.8
    num_bootstrap: int = 10_000
    seed: int = 0

    @property
    def alpha(self) -> float:
        """The level of the tests: the chance of any wrong difference in a family of tests."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An algorithm against the control.

    Differences are the algorithm minus the control, in the metric's unit, whichever end is better.

    Attributes:
        algorithm: its name.
        mean_difference, median_difference, sd_difference: over patients.
        low, high: bootstrap interval of the mean difference.
        family_low, family_high: the same, wider (Bonferroni), so that all contrasts' intervals hold together.
        p_wilcoxon, p_permutation: two-sided, by themselves.
        p_holm: of the deciding test, corrected for all contrasts.
        superiority: P(better than the control) + P(equal) / 2 of a patient; `superiority_low`, `superiority_high`
            its interval (Wilson).
        p_equivalence: of the two one-sided tests, corrected by Holm; NaN where the differences do not vary.
        differs: whether a difference is shown: Holm's p and, of three algorithms or more, Friedman's are below alpha.
        is_better: whether the mean difference is on the better side.
        is_equivalent: whether the mean difference is shown to lie within the margin.
        detectable_difference: what so many patients would show with the plan's power.
        patients_needed: how many would show a difference as large as the margin; None for more than a million.
    """

    algorithm: str
    mean_difference: float
    median_difference: float
    sd_difference: float
    low: float
    high: float
    family_low: float
    family_high: float
    p_wilcoxon: float
    p_permutation: float
    p_holm: float
    superiority: float
    superiority_low: float
    superiority_high: float
    p_equivalence: float
    differs: bool
    is_better: bool
    is_equivalent: bool
    detectable_difference: float
    patients_needed: int | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One algorithm by itself: mean, bootstrap interval of it, median, standard deviation, mean rank (1 is best)."""

    algorithm: str
    mean: float
    low: float
    high: float
    median: float
    sd: float
    mean_rank: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was found.

    Attributes:
        plan: what was fixed before.
        num_cases: patients.
        algorithms: names; the first is the control.
        summaries: one an algorithm.
        friedman: None for two algorithms.
        critical_difference: Nemenyi's, of mean ranks; None for two algorithms.
        contrasts: each algorithm against the control.
        pair_differences: `(num_algorithms, num_algorithms)`, mean difference row minus column.
        pair_p_holm: the same shape: p of all pairs, corrected for their number; 1 on the diagonal.
        stability: the ranking by each of `ranking.METHODS`.
    """

    plan: Plan
    num_cases: int
    algorithms: tuple[str, ...]
    summaries: tuple[Summary, ...]
    friedman: significance.Friedman | None
    critical_difference: float | None
    contrasts: tuple[Contrast, ...]
    pair_differences: np.ndarray
    pair_p_holm: np.ndarray
    stability: tuple[ranking.RankingStability, ...]

    @property
    def control(self) -> str:
        """What the others are held against."""
        return self.algorithms[0]

    @property
    def contrast_alpha(self) -> float:
        """The level at which Holm's correction tests the smallest p: what a single difference has to pass."""
        return self.plan.alpha / len(self.contrasts)


def compare(scores: np.ndarray, *, algorithms: tuple[str, ...], plan: Plan) -> Comparison:
    """Compares algorithms on the same patients.

    Args:
        scores: `(num_cases, num_algorithms)`, two or more of each, without NaN.
        algorithms: names of the columns; the first is the control.
        plan: what was fixed before.

    Raises:
        ValueError: a shape that does not fit.
    """
    if scores.ndim != 2 or min(scores.shape) < 2 or scores.shape[1] != len(algorithms):
        raise ValueError(f"scores of shape {scores.shape}, expected (2 or more cases, {len(algorithms)} algorithms)")
    merits = scores if plan.higher_is_better else -scores
    num_cases, num_algorithms = scores.shape
    friedman = significance.friedman(scores)
    pair_p_holm, pair_differences = _pairs(scores, plan)
    return Comparison(
        plan=plan,
        num_cases=num_cases,
        algorithms=tuple(algorithms),
        summaries=_summaries(scores, significance.mean_ranks(merits), algorithms, plan),
        friedman=friedman,
        critical_difference=significance.critical_difference(
            num_cases=num_cases, num_algorithms=num_algorithms, alpha=plan.alpha
        )
        if num_algorithms > 2
        else None,
        contrasts=_contrasts(scores, algorithms, plan, gate=friedman is None or friedman.p_value < plan.alpha),
        pair_differences=pair_differences,
        pair_p_holm=pair_p_holm,
        stability=tuple(
            ranking.rank_stability(
                merits,
                method=method,
                num_bootstrap=plan.num_bootstrap,
                seed=plan.seed,
                confidence=plan.confidence,
            )
            for method in ranking.METHODS
        ),
    )


def deciding_p(differences: np.ndarray, plan: Plan) -> float:
    """Two-sided p of the test that the plan names."""
    if plan.test == "wilcoxon":
        return significance.wilcoxon(differences)
    return significance.sign_flips(differences, num_resamples=plan.num_bootstrap, seed=plan.seed)


def _differences(scores: np.ndarray, first: int, second: int) -> np.ndarray:
    """Column minus column, rounded so that equal differences tie."""
    return np.round(scores[:, first] - scores[:, second], 12)


def _summaries(
    scores: np.ndarray, mean_ranks: np.ndarray, algorithms: tuple[str, ...], plan: Plan
) -> tuple[Summary, ...]:
    found = []
    for index, name in enumerate(algorithms):
        column = scores[:, index]
        low, high = _interval(column, plan, confidence=plan.confidence)
        found.append(
            Summary(
                algorithm=name,
                mean=float(column.mean()),
                low=low,
                high=high,
                median=float(np.median(column)),
                sd=float(column.std(ddof=1)),
                mean_rank=float(mean_ranks[index]),
            )
        )
    return tuple(found)


def _contrasts(scores: np.ndarray, algorithms: tuple[str, ...], plan: Plan, *, gate: bool) -> tuple[Contrast, ...]:
    columns = {name: _differences(scores, index, 0) for index, name in enumerate(algorithms) if index}
    p_holm = significance.holm([deciding_p(column, plan) for column in columns.values()])
    tests = [equivalence.two_one_sided(column, margin=plan.equivalence_margin) for column in columns.values()]
    p_equivalence = significance.holm([test.p_value for test in tests])
    return tuple(
        _contrast(name, column, plan, num_contrasts=len(columns), p_values=(p_holm[at], p_equivalence[at]), gate=gate)
        for at, (name, column) in enumerate(columns.items())
    )


def _contrast(
    name: str, differences: np.ndarray, plan: Plan, *, num_contrasts: int, p_values: tuple[float, float], gate: bool
) -> Contrast:
    p_holm, p_equivalence = map(float, p_values)
    alpha = plan.alpha / num_contrasts
    sd = float(differences.std(ddof=1))
    wins = significance.wins(differences if plan.higher_is_better else -differences)
    low, high = _interval(differences, plan, confidence=plan.confidence)
    family_low, family_high = _interval(differences, plan, confidence=1 - alpha)
    superiority_low, superiority_high = significance.wins_interval(wins, confidence=plan.confidence)
    options = {"sd": sd, "alpha": alpha, "power": plan.power}
    return Contrast(
        algorithm=name,
        mean_difference=float(differences.mean()),
        median_difference=float(np.median(differences)),
        sd_difference=sd,
        low=low,
        high=high,
        family_low=family_low,
        family_high=family_high,
        p_wilcoxon=significance.wilcoxon(differences),
        p_permutation=significance.sign_flips(differences, num_resamples=plan.num_bootstrap, seed=plan.seed),
        p_holm=p_holm,
        superiority=float(wins.mean()),
        superiority_low=superiority_low,
        superiority_high=superiority_high,
        p_equivalence=p_equivalence,
        differs=gate and p_holm < plan.alpha,
        is_better=bool((differences.mean() > 0) == plan.higher_is_better and differences.mean() != 0),
        is_equivalent=p_equivalence < plan.alpha,
        detectable_difference=power.detectable_difference(len(differences), **options),
        patients_needed=power.patients_needed(plan.equivalence_margin, **options),
    )


def _pairs(scores: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Holm's p and mean difference of all pairs."""
    num_algorithms = scores.shape[1]
    pairs = list(itertools.combinations(range(num_algorithms), 2))
    columns = [_differences(scores, first, second) for first, second in pairs]
    p_holm, differences = np.ones((num_algorithms, num_algorithms)), np.zeros((num_algorithms, num_algorithms))
    corrected = significance.holm([deciding_p(column, plan) for column in columns])
    for (first, second), column, p_value in zip(pairs, columns, corrected, strict=True):
        p_holm[first, second] = p_holm[second, first] = p_value
        differences[first, second], differences[second, first] = column.mean(), -column.mean()
    return p_holm, differences


def _interval(values: np.ndarray, plan: Plan, *, confidence: float) -> tuple[float, float]:
    return bootstrap_interval(values, seed=plan.seed, num_resamples=plan.num_bootstrap, confidence=confidence)
