"""Tests against worked examples from the literature and from R."""

import math

import numpy as np
import pytest
from scipy import stats

from kits_ml.evaluation.comparison import significance

#: Demšar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. In the row of `voting` he ranks two
#: equal rounded values apart; the last digit here says which way.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],  # adult (sample)
        [0.599, 0.591, 0.590, 0.569],  # breast cancer
        [0.954, 0.971, 0.968, 0.967],  # breast cancer wisconsin
        [0.628, 0.661, 0.654, 0.657],  # cmc
        [0.882, 0.888, 0.886, 0.898],  # ionosphere
        [0.936, 0.931, 0.916, 0.931],  # iris
        [0.661, 0.668, 0.609, 0.685],  # liver disorders
        [0.583, 0.583, 0.563, 0.625],  # lung cancer
        [0.775, 0.838, 0.866, 0.875],  # lymphography
        [1.000, 1.000, 1.000, 1.000],  # mushroom
        [0.940, 0.962, 0.965, 0.962],  # primary tumor
        [0.619, 0.666, 0.614, 0.669],  # rheum
        [0.972, 0.981, 0.9751, 0.975],  # voting
        [0.957, 0.978, 0.946, 0.970],  # wine
    ]
)
#: Hollander and Wolfe 1973, p. 29: depression before and after a tranquillizer; R's example of `wilcox.test`.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def test_mean_ranks_are_demsars():
    np.testing.assert_allclose(significance.mean_ranks(AUC), [3.143, 2.000, 2.893, 1.964], atol=5e-4)


def test_friedman_is_demsars():
    found = significance.friedman(AUC)
    # he does not correct for ties: iris, lung cancer and primary tumor tie two (2^3 - 2 = 6), mushroom four (60)
    ties = 1 - (6 + 6 + 6 + 60) / (14 * 4 * (4**2 - 1))
    assert found.statistic * ties == pytest.approx(9.28, abs=0.005)
    assert found.num_degrees == 3
    assert significance.iman_davenport(9.28, num_cases=14, num_algorithms=4) == pytest.approx(3.69, abs=0.005)
    # F(3, 39) at 0.05 is 2.85: "we reject the null-hypothesis"
    assert found.iman_davenport_p < 0.05


def test_friedman_is_rs():
    """Hollander and Wolfe 1973, p. 140: rounding first base; `friedman.test(RoundingTimes)`: 11.143, p = 0.003805."""
    times = [5.40, 5.50, 5.55, 5.85, 5.70, 5.75, 5.20, 5.60, 5.50, 5.55, 5.50, 5.40, 5.90, 5.85, 5.70]
    times += [5.45, 5.55, 5.60, 5.40, 5.40, 5.35, 5.45, 5.50, 5.35, 5.25, 5.15, 5.00, 5.85, 5.80, 5.70]
    times += [5.25, 5.20, 5.10, 5.65, 5.55, 5.45, 5.60, 5.35, 5.45, 5.05, 5.00, 4.95, 5.50, 5.50, 5.40]
    times += [5.45, 5.55, 5.50, 5.55, 5.55, 5.35, 5.45, 5.50, 5.55, 5.50, 5.45, 5.25, 5.65, 5.60, 5.40]
    times += [5.70, 5.65, 5.55, 6.30, 6.30, 6.25]
    found = significance.friedman(np.reshape(times, (22, 3)))
    assert found.statistic == pytest.approx(11.143, abs=5e-4)
    assert found.p_value == pytest.approx(0.003805, abs=5e-7)


def test_friedman_without_anything_to_find():
    assert significance.friedman(np.ones((5, 3))).p_value == 1
    assert significance.friedman(np.ones((5, 2))) is None
    alike = np.array([[1.0, 2.0, 3.0]] * 4)  # every patient ranks alike: chi-squared is N (k - 1) = 8, F has no bound
    found = significance.friedman(alike)
    assert found.statistic == pytest.approx(8)
    assert math.isinf(found.iman_davenport)
    assert found.iman_davenport_p == 0


@pytest.mark.parametrize(("alpha", "expected"), [(0.05, 1.25), (0.10, 1.12)])
def test_critical_difference_is_demsars(alpha, expected):
    found = significance.critical_difference(num_cases=14, num_algorithms=4, alpha=alpha)
    assert found == pytest.approx(expected, abs=0.005)


def test_wilcoxon_is_demsars():
    """C4.5+m against C4.5: R+ = 93, T = R- = 12, where the ranks of two zeros (1.5 each) are split between both."""
    differences = np.round(AUC[:, 1] - AUC[:, 0], 12)
    statistic = stats.wilcoxon(differences, zero_method="pratt").statistic
    assert statistic + (1 + 2) / 2 == 12
    assert significance.wilcoxon(differences) < 0.05


def test_wilcoxon_is_rs():
    """`wilcox.test(x, y, paired = TRUE, alternative = "greater")`: V = 40, p = 0.01953; two-sided twice that."""
    assert stats.wilcoxon(BEFORE - AFTER, alternative="greater").statistic == 40
    assert significance.wilcoxon(BEFORE - AFTER) == pytest.approx(2 * 0.01953125)  # 2 * 10 / 2^9


def test_few_patients_are_exact_with_ties_too():
    rng = np.random.default_rng(0)
    for num_cases in (3, 8, 13):
        differences = rng.normal(0.3, 1, num_cases)
        assert significance.wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    # ranks of size: 1 is the zero's, 2.5 twice, 4: sums of +-2.5 +-2.5 +-4 as far out as 2.5 + 2.5 - 4 = 1: all but
    # none (9, 4, 4, -1 and opposites), so that p is 1; as far out as 2.5 - 2.5 + 4 = 4: 9, 4, 4 and opposites, 6 of 8
    assert significance.wilcoxon(np.array([0, 0.1, 0.1, -0.2])) == 1
    assert significance.wilcoxon(np.array([0, 0.1, -0.1, 0.2])) == 6 / 8


def test_zeros_make_wilcoxon_more_careful():
    some = np.array([0.3, 0.1, 0.2, 0.25, 0.15, 0.4])
    assert significance.wilcoxon(some) == pytest.approx(2 / 2**6)
    assert significance.wilcoxon(np.append(some, [0, 0, 0])) >= 2 / 2**6
    assert significance.wilcoxon(np.zeros(6)) == 1


def test_five_patients_of_thirty_are_five_patients():
    """The normal approximation beside 25 zeros: z = (26 + ... + 30) / sqrt(26^2 + ... + 30^2) = 2.23, p = 0.025."""
    differences = np.concatenate([np.zeros(25), [0.1, 0.2, 0.3, 0.4, 0.5]])
    assert stats.wilcoxon(differences, zero_method="pratt").pvalue < 0.05
    assert significance.wilcoxon(differences) == 2 / 2**5
    assert significance.sign_flips(differences, num_resamples=999, seed=0) == 2 / 2**5
    assert significance.sign_flips(np.zeros(30), num_resamples=999, seed=0) == 1


def test_sign_flips_go_through_all():
    # of the 2^4 sums of +-1 +-2 +-3 +-4, ten have at least the size of 1 + 2 - 3 + 4 = 4:
    # 10, 8, 6, 4, 4 and their opposites
    assert significance.sign_flips(np.array([1.0, 2, -3, 4]), num_resamples=1, seed=0) == 10 / 16
    assert significance.sign_flips(np.array([0.1, 0.2, 0.3]), num_resamples=1, seed=0) == 2 / 8


def test_sign_flips_of_darwins_maize():
    """Fisher's example (1935): 15 pairs, 863 of 2^14 flips as extreme on one side; p = 0.0526 two-sided."""
    inches_in_eighths = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], float)
    exact = 1726 / 2**15
    found = significance.sign_flips(inches_in_eighths, num_resamples=20_000, seed=0)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert found == significance.sign_flips(inches_in_eighths, num_resamples=20_000, seed=0)
    assert found != significance.sign_flips(inches_in_eighths, num_resamples=20_000, seed=1)


def test_sign_flips_are_never_zero():
    assert significance.sign_flips(np.linspace(1, 2, 40), num_resamples=999, seed=0) == 1 / 1000


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R: p.adjust((1:5) / 100, "holm")
        ([0.607, 0.019, 0.016], [0.607, 0.048, 0.048]),  # Demšar's example: the first two hypotheses are rejected
        ([0.02, math.nan, 0.03], [0.04, math.nan, 0.04]),
        ([math.nan], [math.nan]),
    ],
)
def test_holm(p_values, expected):
    np.testing.assert_allclose(significance.holm(p_values), expected)


def test_superiority_counts_ties_half():
    assert significance.wins(np.array([0.1, 0, -0.2, 0.3])).mean() == (1 + 0.5 + 0 + 1) / 4


@pytest.mark.parametrize(
    ("num_wins", "num_cases", "expected"),
    # Newcombe, Stat. Med. 17 (1998), table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_the_interval_of_superiority_is_newcombes(num_wins, num_cases, expected):
    wins = np.repeat([1.0, 0.0], [num_wins, num_cases - num_wins])
    assert significance.wins_interval(wins, confidence=0.95) == pytest.approx(expected, abs=5e-5)
    low, high = significance.wins_interval(1 - wins, confidence=0.95)
    assert (1 - high, 1 - low) == pytest.approx(expected, abs=5e-5)


def test_the_smallest_p_is_reached():
    for num_cases in (2, 5):
        differences = np.arange(1.0, num_cases + 1)
        assert significance.wilcoxon(differences) == pytest.approx(significance.smallest_p(num_cases))
        assert significance.sign_flips(differences, num_resamples=9, seed=0) == significance.smallest_p(num_cases)
