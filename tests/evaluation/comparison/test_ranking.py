"""Rankings of the same patients drawn again."""

import numpy as np
import pytest
from scipy import stats

from kits_ml.evaluation.comparison.ranking import METHODS, kendall_tau, rank_stability

OPTIONS = {"num_bootstrap": 2000, "seed": 0, "confidence": 0.95}


def test_the_methods_can_disagree():
    # A is a little better for three patients and much worse for one: the mean says B, the ranks say A
    scores = np.array([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8], [0.1, 0.9]])
    by_mean, by_rank = (rank_stability(scores, method=method, **OPTIONS) for method in METHODS)
    assert by_mean.ranks.tolist() == [2, 1]
    assert by_rank.ranks.tolist() == [1, 2]


def test_shares_are_known_for_two_patients():
    # each wins one patient by as much: samples are AA (1/4), BB (1/4), or both, a tie that gives both rank 1
    scores = np.array([[0.5, 0.25], [0.25, 0.5]])
    found = rank_stability(scores, method="aggregate_then_rank", **OPTIONS)
    np.testing.assert_allclose(found.distribution, [[0.75, 0.25], [0.75, 0.25]], atol=0.03)
    assert found.ranks.tolist() == [1, 1]
    assert np.isnan(found.tau_mean)  # a ranking that ties all agrees with none
    assert found.num_undefined == 2000


@pytest.mark.parametrize("method", METHODS)
def test_a_clear_order_is_stable(method):
    scores = np.linspace(0, 1, 20)[:, None] * 0.1 + np.array([0.3, 0.5, 0.8])
    found = rank_stability(scores, method=method, **OPTIONS)
    assert found.ranks.tolist() == [3, 2, 1]
    assert (found.tau_mean, found.tau_low, found.tau_high) == (1, 1, 1)
    np.testing.assert_array_equal(found.distribution, np.eye(3)[::-1])


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_not(method):
    scores = np.random.default_rng(0).normal(size=(20, 4))
    found = rank_stability(scores, method=method, **OPTIONS)
    assert found.tau_mean < 0.8
    np.testing.assert_allclose(found.distribution.sum(axis=1), 1)
    again = rank_stability(scores, method=method, **OPTIONS)
    np.testing.assert_array_equal(found.distribution, again.distribution)


def test_tau_is_scipys():
    rng = np.random.default_rng(0)
    sampled, ranks = rng.integers(1, 5, (40, 6)), np.array([1, 2, 2, 4, 5, 6])
    expected = [stats.kendalltau(one, ranks).statistic for one in sampled]
    np.testing.assert_allclose(kendall_tau(sampled, ranks), expected)
    assert np.isnan(kendall_tau(np.ones((1, 6)), ranks)).all()
