"""How many patients a difference takes, and which difference so many patients can show.

By the power of the paired t-test, made larger by Wilcoxon's relative efficiency for normal differences, 3 / pi
(Lehmann, "Nonparametrics", 1975). With heavier tails Wilcoxon's test needs fewer, never more than a seventh above.
"""

from __future__ import annotations

import math

from scipy import stats

EFFICIENCY = 3 / math.pi

#: Numbers above are not told: no study has so many patients.
MAX_PATIENTS = 1_000_000


def power_of(num_cases: float, *, effect: float, alpha: float) -> float:
    """Power of the two-sided paired t-test.

    Args:
        num_cases: two or more; need not be whole.
        effect: mean difference by standard deviation of the differences.
        alpha: level of the test.
    """
    degrees = num_cases - 1
    critical = stats.t.isf(alpha / 2, degrees)
    shift = abs(effect) * math.sqrt(num_cases)
    return float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift))


def patients_needed(difference: float, *, sd: float, alpha: float, power: float) -> int | None:
    """The number of patients that shows a mean difference with this power.

    Args:
        difference: not 0, in the unit of `sd`.
        sd: standard deviation of the paired differences.
        alpha: two-sided level of the test, after correction.
        power: above `alpha`.

    Returns:
        At least two; None where more than `MAX_PATIENTS` would be needed, or where `sd` is 0.
    """
    if not sd > 0:
        return None
    effect = difference / sd
    # the normal approximation says where to look; for few patients t needs more
    guess = ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) / abs(effect)) ** 2
    if guess > MAX_PATIENTS:
        return None
    low, high = 1, max(2, math.ceil(guess))
    while power_of(high, effect=effect, alpha=alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, effect=effect, alpha=alpha) >= power else (middle, high)
    needed = math.ceil(high / EFFICIENCY)
    return needed if needed <= MAX_PATIENTS else None


def detectable_difference(num_cases: int, *, sd: float, alpha: float, power: float) -> float:
    """The mean difference that so many patients show with this power; 0 where `sd` is 0.

    Infinite where so few patients can show none: the efficiency leaves less than one degree of freedom.
    """
    effective = num_cases * EFFICIENCY
    if not sd > 0:
        return 0.0
    if effective < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power_of(effective, effect=high, alpha=alpha) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(effective, effect=middle, alpha=alpha) >= power else (middle, high)
    return high * sd
