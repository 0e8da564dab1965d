"""Are two as good as equal? Two one-sided tests against a margin that was stated before.

Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987); Lakens, Soc. Psychol. Personal. Sci. 8 (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided t-tests of paired differences.

    Attributes:
        t_lower: t of "the mean is above minus the margin".
        t_upper: t of "the mean is below the margin".
        p_value: the larger of both p-values: small where the mean lies within the margin. NaN where the differences
            do not vary, of which a t-test can say nothing.
    """

    t_lower: float
    t_upper: float
    p_value: float


def two_one_sided(differences: np.ndarray, *, margin: float) -> Equivalence:
    """Tests whether the mean difference lies within `-margin` and `margin`.

    Args:
        differences: `(num_cases,)`, at least two.
        margin: above 0, in the unit of the differences.
    """
    if np.ptp(differences) == 0:
        return Equivalence(t_lower=math.nan, t_upper=math.nan, p_value=math.nan)
    num_cases = len(differences)
    error = differences.std(ddof=1) / math.sqrt(num_cases)
    t_lower, t_upper = (differences.mean() + margin) / error, (differences.mean() - margin) / error
    p_value = max(stats.t.sf(t_lower, num_cases - 1), stats.t.cdf(t_upper, num_cases - 1))
    return Equivalence(t_lower=float(t_lower), t_upper=float(t_upper), p_value=float(p_value))
