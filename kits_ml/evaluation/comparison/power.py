"""How many patients a difference takes, and which difference so many patients can show.

By the power of the paired t-test, made larger by Wilcoxon's relative efficiency for normal differences, 3 / pi
(Lehmann, "Nonparametrics", 1975). With heavier tails the test needs fewer, and for no symmetric shape of
differences more than a sixth above the t-test (Hodges and Lehmann, Ann. Math. Stat. 27, 1956).
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from kits_ml.evaluation.comparison.significance import smallest_p

EFFICIENCY = 3 / math.pi

#: Numbers above are not told: no study has so many patients.
MAX_PATIENTS = 1_000_000

#: Larger ones need no fewer patients.
_LARGE_EFFECT = 50.0


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
    power = float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift))
    if not math.isnan(power):
        return power
    # the noncentral t has no digits left so far out; Johnson and Kotz's normal approximation has
    spread = math.sqrt(1 + critical**2 / (2 * degrees))
    return float(stats.norm.cdf((shift - critical * (1 - 1 / (4 * degrees))) / spread))


def patients_needed(difference: float, *, sd: float, alpha: float, power: float) -> int | None:
    """The number of patients that shows a mean difference with this power.

    Args:
        difference: not 0, in the unit of `sd`.
        sd: standard deviation of the paired differences.
        alpha: two-sided level of the test, after correction.
        power: above `alpha`.

    Returns:
        At least so many that the paired tests can give a p below `alpha` at all; None where more than `MAX_PATIENTS`
        would be needed, or where `sd` is 0.
    """
    if not sd > 0:
        return None
    effect = min(abs(difference) / sd, _LARGE_EFFECT)
    # the normal approximation says where to look; for few patients t needs more
    guess = ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) / effect) ** 2
    if guess > MAX_PATIENTS:
        return None
    low, high = 1, max(2, math.ceil(guess))
    while power_of(high, effect=effect, alpha=alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, effect=effect, alpha=alpha) >= power else (middle, high)
    needed = max(math.ceil(high / EFFICIENCY), math.floor(1 - math.log2(alpha)) + 1)
    return needed if needed <= MAX_PATIENTS else None


def detectable_difference(num_cases: int, *, sd: float, alpha: float, power: float) -> float:
    """The mean difference that so many patients show with this power; 0 where `sd` is 0.

    Infinite where so few patients can show none, because no p of theirs is below `alpha`.
    """
    effective = num_cases * EFFICIENCY
    if smallest_p(num_cases) >= alpha:
        return math.inf
    if not sd > 0:
        return 0.0
    high = 1.0
    while power_of(effective, effect=high, alpha=alpha) < power:
        high *= 2
    return sd * optimize.brentq(
        lambda effect: power_of(effective, effect=effect, alpha=alpha) - power, 0.0, high, xtol=1e-6
    )
