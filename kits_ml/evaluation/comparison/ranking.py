"""Would other patients have given another ranking? The ranking of many bootstrap samples of the same patients.

After Wiesenfarth et al., "Methods and open-source toolkit for analyzing and visualizing challenge results", Sci. Rep.
11 (2021), and Maier-Hein et al., "Why rankings of biomedical image analysis competitions should be interpreted with
care", Nat. Commun. 9 (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CHUNK = 1000


def _ranks(merits: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 for the highest; ties all take the best rank, as in a challenge."""
    # means of equal scores can differ in their last digits
    return stats.rankdata(-np.round(merits, 12), axis=-1, method="min")


def _mean_scores(scores: np.ndarray) -> np.ndarray:
    return scores


def _negative_ranks(scores: np.ndarray) -> np.ndarray:
    return -stats.rankdata(-scores, axis=1)


#: What of a patient is averaged before the algorithms are ranked by the mean: scores, or ranks.
METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "aggregate_then_rank": _mean_scores,
    "rank_then_aggregate": _negative_ranks,
}


@dataclass(frozen=True, kw_only=True)
class RankingStability:
    """A ranking, and how it fares when patients are drawn again.

    Attributes:
        method: a key of `METHODS`.
        ranks: `(num_algorithms,)` of all patients, 1 is best; ties take the best rank.
        distribution: `(num_algorithms, num_algorithms)`: the share of samples in which the algorithm (row) has the
            rank (column, from 1). Rows sum to 1.
        tau_mean, tau_low, tau_high: Kendall's tau-b between the ranking and those of the samples: mean and bounds of
            the confidence interval. 1 is the same ranking; NaN where all algorithms tie.
        num_undefined: samples in which all tie, which have no tau.
    """

    method: str
    ranks: np.ndarray
    distribution: np.ndarray
    tau_mean: float
    tau_low: float
    tau_high: float
    num_undefined: int


def rank_stability(
    scores: np.ndarray, *, method: str, num_bootstrap: int, seed: int, confidence: float
) -> RankingStability:
    """Ranks the algorithms, and again for each bootstrap sample of patients.

    Args:
        scores: `(num_cases, num_algorithms)`, higher is better.
        method: a key of `METHODS`.
        num_bootstrap: number of samples; each has as many patients as there are.
        seed: the same seed draws the same patients, for any method.
        confidence: of the interval of tau.
    """
    merits = METHODS[method](scores)
    ranks = _ranks(merits.mean(axis=0))
    num_cases, num_algorithms = scores.shape
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_algorithms, num_algorithms))
    taus = []
    for start in range(0, num_bootstrap, _CHUNK):
        num_samples = min(_CHUNK, num_bootstrap - start)
        drawn = rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=num_samples)
        sampled = _ranks(drawn @ merits / num_cases)  # (samples, algorithms)
        counts += (sampled[:, :, None] == np.arange(1, num_algorithms + 1)).sum(axis=0)
        taus.append(kendall_tau(sampled, ranks))
    all_taus = np.concatenate(taus)
    defined = all_taus[~np.isnan(all_taus)]
    bounds = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(defined) else (np.nan, np.nan)
    return RankingStability(
        method=method,
        ranks=ranks.astype(int),
        distribution=counts / num_bootstrap,
        tau_mean=float(defined.mean()) if len(defined) else np.nan,
        tau_low=float(bounds[0]),
        tau_high=float(bounds[1]),
        num_undefined=len(all_taus) - len(defined),
    )


def kendall_tau(sampled: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of many rankings with one, at once: `(num_samples,)`; NaN where either ties all.

    Args:
        sampled: `(num_samples, num_algorithms)`.
        ranks: `(num_algorithms,)`.
    """
    first, second = np.triu_indices(len(ranks), 1)
    signs = np.sign(sampled[:, first] - sampled[:, second])
    reference = np.sign(ranks[first] - ranks[second])
    pairs = np.sqrt((signs**2).sum(axis=1) * (reference**2).sum())
    agreement = signs @ reference
    return np.divide(agreement, pairs, out=np.full(len(signs), np.nan), where=pairs > 0)
