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
    above = stats.ttest_1samp(differences, -margin, alternative="greater")
    below = stats.ttest_1samp(differences, margin, alternative="less")
    return Equivalence(
        t_lower=float(above.statistic),
        t_upper=float(below.statistic),
        p_value=float(max(above.pvalue, below.pvalue)),
    )
