"""The whole comparison keeps its error rate, finds what is there, and does not care for the order of columns."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits_ml.evaluation.aggregates import bootstrap_interval
from kits_ml.evaluation.comparison import significance
from kits_ml.evaluation.comparison.analysis import Comparison, Plan, compare, deciding_p
from kits_ml.evaluation.comparison.equivalence import two_one_sided

QUICK = Plan(equivalence_margin=0.02, num_bootstrap=200)


def _compare(scores: np.ndarray, plan: Plan = QUICK) -> Comparison:
    return compare(scores, algorithms=tuple(f"net_{at}" for at in range(scores.shape[1])), plan=plan)


def _patients(rng: np.random.Generator, num_cases: int, means: list[float], sd: float = 0.05) -> np.ndarray:
    """Hard and easy patients, whom all algorithms find hard or easy."""
    return 0.7 + rng.normal(0, 0.1, (num_cases, 1)) + rng.normal(means, sd, (num_cases, len(means)))


def _p_of_contrasts(scores: np.ndarray, plan: Plan = QUICK) -> np.ndarray:
    """What `compare` tests, without all else it does."""
    return significance.holm([deciding_p(column - scores[:, 0], plan) for column in scores.T[1:]])


@pytest.mark.parametrize("test", ["wilcoxon", "permutation"])
def test_no_difference_is_shown_in_about_five_of_a_hundred(test):
    rng = np.random.default_rng(0)
    plan = dataclasses.replace(QUICK, test=test)
    wrong = [(_p_of_contrasts(_patients(rng, 20, [0, 0, 0]), plan) < 0.05).any() for _ in range(200)]
    assert 0.01 < np.mean(wrong) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_larger_differences_and_more_patients_are_shown_more_often():
    rng = np.random.default_rng(1)

    def shown(num_cases: int, difference: float) -> float:
        runs = [_p_of_contrasts(_patients(rng, num_cases, [0, difference, 0]))[0] for _ in range(50)]
        return float(np.mean(np.array(runs) < 0.05))

    assert shown(20, 0.01) + 0.2 < shown(20, 0.05)
    assert shown(10, 0.03) + 0.2 < shown(60, 0.03)


def test_equivalence_is_found_and_seldom_wrong():
    rng = np.random.default_rng(2)
    equal, edge = rng.normal(0, 0.02, (300, 60)), rng.normal(0.02, 0.02, (300, 60))
    assert np.mean([two_one_sided(one, margin=0.02).p_value < 0.05 for one in equal]) > 0.9
    found = np.mean([two_one_sided(one, margin=0.02).p_value < 0.05 for one in edge])
    assert 0.01 < found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)  # at the margin itself each one is wrong


def test_intervals_cover():
    rng = np.random.default_rng(3)
    options = {"num_resamples": 400, "confidence": 0.95}
    intervals = [bootstrap_interval(rng.normal(0.03, 0.05, 40), seed=0, **options) for _ in range(200)]
    covered = np.mean([low <= 0.03 <= high for low, high in intervals])
    assert covered == pytest.approx(0.95, abs=3.5 * math.sqrt(0.05 * 0.95 / 200))


def test_the_familys_intervals_are_wider_and_hold_the_others():
    for one in _compare(_patients(np.random.default_rng(4), 40, [0, 0.03, -0.01])).contrasts:
        assert one.family_low < one.low < one.mean_difference < one.high < one.family_high


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(1, 5)), st.integers(0, 1000))
def test_the_order_of_columns_changes_nothing(order, seed):
    rng = np.random.default_rng(seed)
    scores = np.round(_patients(rng, 12, [0, 0.01, 0.05, -0.02, 0.0]), 2)  # two digits: ties happen
    names = np.array(["control", "a", "b", "c", "d"])
    columns = [0, *order]
    first = compare(scores, algorithms=tuple(names), plan=QUICK)
    second = compare(scores[:, columns], algorithms=tuple(names[columns]), plan=QUICK)
    assert first.friedman.p_value == pytest.approx(second.friedman.p_value)
    by_name = {one.algorithm: one for one in second.contrasts}
    for one in first.contrasts:
        other = dataclasses.asdict(by_name[one.algorithm])
        assert dataclasses.asdict(one) == pytest.approx(other, nan_ok=True)
    np.testing.assert_allclose(first.pair_p_holm[np.ix_(columns, columns)], second.pair_p_holm)
    for one, other in zip(first.stability, second.stability, strict=True):
        np.testing.assert_allclose(one.distribution[columns], other.distribution)


def test_distances_are_the_same_upside_down():
    scores = _patients(np.random.default_rng(0), 30, [0, 0.05, -0.05])
    up, down = _compare(scores), _compare(-scores, dataclasses.replace(QUICK, higher_is_better=False))
    for one, other in zip(up.contrasts, down.contrasts, strict=True):
        assert one.is_better == other.is_better
        assert one.superiority == other.superiority
        assert one.p_holm == pytest.approx(other.p_holm)
        assert one.mean_difference == pytest.approx(-other.mean_difference)
    assert [one.mean_rank for one in up.summaries] == [one.mean_rank for one in down.summaries]


def test_the_same_seed_gives_the_same():
    scores = _patients(np.random.default_rng(0), 30, [0, 0.05, 0])
    first, second, third = _compare(scores), _compare(scores), _compare(scores, dataclasses.replace(QUICK, seed=1))
    assert first.contrasts == second.contrasts
    assert first.contrasts[0].low != third.contrasts[0].low


def test_two_patients_and_two_algorithms_are_enough_to_say_nothing():
    found = _compare(np.array([[0.5, 0.9], [0.6, 0.9]]))
    (only,) = found.contrasts
    assert found.friedman is None
    assert found.critical_difference is None
    assert not only.differs
    assert only.p_wilcoxon == only.p_permutation == 0.5  # 2 / 2^2
    assert math.isinf(only.detectable_difference)


def test_all_equal():
    found = _compare(np.full((5, 3), 0.5))
    assert found.friedman.p_value == 1
    for one in found.contrasts:
        assert (one.p_holm, one.superiority, one.mean_difference) == (1, 0.5, 0)
        assert math.isnan(one.p_equivalence)
        assert (one.differs, one.is_better, one.is_equivalent) == (False, False, False)
    np.testing.assert_array_equal(found.pair_p_holm, 1)
    assert all(math.isnan(one.tau_mean) for one in found.stability)


def test_friedman_stands_before_single_tests():
    """Where the ranks over all show nothing, a small p of one test is not enough."""
    rng = np.random.default_rng(0)
    scores = next(
        scores
        for scores in (_patients(rng, 20, [0, 0.03, 0, 0, 0, 0]) for _ in range(500))
        if significance.friedman(scores).p_value > 0.05 and _p_of_contrasts(scores)[0] < 0.05
    )
    first = _compare(scores).contrasts[0]
    assert first.p_holm < 0.05
    assert not first.differs


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (4, 2), (12,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        compare(np.zeros(shape), algorithms=("a", "b", "c"), plan=QUICK)
