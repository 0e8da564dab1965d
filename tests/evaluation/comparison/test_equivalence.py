"""Two one-sided tests against worked examples."""

import math

import numpy as np
import pytest
from scipy import stats

from kits_ml.evaluation.comparison.equivalence import two_one_sided

#: Student's sleep data (1908): extra hours with two drugs, the same ten patients.
SLEEP = np.array(
    [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
)


def test_it_is_tosters_example():
    """`t_TOST(extra ~ group, sleep, paired = TRUE, eqb = 0.5)`: t = -2.78 and -5.35 beside t.test's -4.06."""
    differences = SLEEP[0] - SLEEP[1]  # mean -1.58, standard error 0.389
    found = two_one_sided(differences, margin=0.5)
    assert found.t_lower == pytest.approx((-1.58 + 0.5) / 0.389, abs=0.005)
    assert found.t_upper == pytest.approx((-1.58 - 0.5) / 0.389, abs=0.005)
    assert (found.t_lower, found.t_upper) == pytest.approx((-2.78, -5.35), abs=0.005)
    assert found.p_value == pytest.approx(stats.t.sf(-2.777, 9), abs=1e-4)  # 0.989


def test_it_is_pingouins_example():
    """`pg.tost(a, b, paired=True, bound=0.5)`: p = 0.955."""
    differences = np.array([4, 7, 8, 6, 3, 2]) - np.array([6, 8, 7, 10, 11, 9.0])
    assert two_one_sided(differences, margin=0.5).p_value == pytest.approx(0.955, abs=5e-4)


def test_it_agrees_with_the_interval():
    """p is below 0.05 where the 90 % interval of t lies within the margin, and only there."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        differences = rng.normal(0.2, 1, 12)
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        assert (two_one_sided(differences, margin=0.6).p_value < 0.05) == (low > -0.6 and high < 0.6)


def test_differences_that_do_not_vary_say_nothing():
    assert math.isnan(two_one_sided(np.full(5, 0.1), margin=0.5).p_value)
