"""The words claim what the numbers carry, and no more."""

import dataclasses

import numpy as np
import pytest

from kits_ml.evaluation.comparison.alignment import AlignedScores
from kits_ml.evaluation.comparison.analysis import Plan, compare
from kits_ml.evaluation.comparison.verdict import Verdict, format_p, judge, two_digits

PLAN = Plan(equivalence_margin=0.01, num_bootstrap=500)


def _judge(num_cases: int, means: list[float], sd: float, plan: Plan = PLAN) -> Verdict:
    rng = np.random.default_rng(0)
    base = 0.7 + rng.normal(0, 0.1, (num_cases, 1))
    noise = rng.normal(0, sd, (num_cases, len(means)))
    scores = np.hstack([base, base + np.array(means) + noise - noise.mean(axis=0)])  # means are exact
    names = ("unet", *("abc"[: len(means)]))
    return judge(compare(scores, algorithms=names, plan=plan), metric="tumour Dice")


def test_nothing_shown_tells_what_may_be_there_and_what_it_takes():
    found = _judge(74, [0.001, -0.002], 0.1)
    assert found.headline.startswith(
        "Tumour Dice: no difference from unet was shown with 74 patients. Mean differences up to"
    )
    assert "larger ones do not fit these patients (0.95 confidence over all contrasts)" in found.headline
    # (2.24 + 0.84)^2 * (0.1 / 0.01)^2 * pi / 3 = 993 patients at alpha 0.05 / 2, for a drawn sd of about 0.1
    assert "To show one of 0.010 takes about" in found.headline
    assert (
        "No difference between a and unet was shown, and neither was equivalence within 0.010" in found.contrasts["a"]
    )


def test_a_difference_is_told_with_its_interval():
    found = _judge(60, [0.06, 0.0], 0.03)
    assert found.headline.startswith("Tumour Dice, against unet with 60 patients: a is better.")
    assert "a is better than unet (mean difference +0.060, 95 % interval +0.05" in found.contrasts["a"]
    assert "by more than the margin of 0.010" in found.contrasts["a"]


def test_a_mean_that_differs_where_the_ranks_do_not_is_told():
    # half a little better, the others much worse
    differences = np.concatenate([np.linspace(0.01, 0.02, 40), np.full(20, -0.3)])
    scores = np.stack([np.full(60, 0.7), 0.7 + differences], axis=1)
    found = judge(compare(scores, algorithms=("unet", "a"), plan=PLAN), metric="Dice").contrasts["a"]
    assert "No difference between a and unet was shown" in found
    assert "; the mean's own interval excludes 0, the test by ranks does not)." in found


def test_what_friedman_alone_refuses_is_not_laid_on_the_ranks():
    # many algorithms that differ by nothing but noise, and one whose own test shows a difference
    rng = np.random.default_rng(0)
    scores = 0.7 + rng.normal(0, 0.1, (12, 5))
    scores[:, 1] = scores[:, 0] - rng.uniform(0.001, 0.03, 12)
    found = judge(compare(scores, algorithms=("unet", *"abcd"), plan=PLAN), metric="Dice")
    assert any("that of a, which its own test shows, is a hint and not claimed" in one for one in found.caveats)
    assert "excludes 0" not in found.contrasts["a"]


def test_a_small_difference_is_told_to_be_small():
    found = _judge(200, [0.005], 0.01)
    assert "a is better than unet" in found.contrasts["a"]
    assert "shown to be smaller than the margin of 0.010" in found.contrasts["a"]


def test_equivalence_and_what_stays_open_stand_beside_a_difference():
    found = _judge(60, [-0.06, 0.0, 0.0], 0.02)
    assert found.headline.endswith("a is worse. b and c are equivalent within 0.010.")
    equal = _judge(60, [0.0, 0.0], 0.02)
    assert (
        equal.headline
        == "Tumour Dice: a and b are equivalent to unet within the margin of 0.010, shown with 60 patients."
    )


def test_a_distance_is_better_when_it_is_less():
    found = _judge(60, [-0.06], 0.03, dataclasses.replace(PLAN, higher_is_better=False))
    assert "a is better than unet (mean difference −0.060" in found.contrasts["a"]


def test_few_patients_are_told_to_be_few():
    found = _judge(4, [0.2], 0.001)
    assert "no difference from unet was shown with 4 patients" in found.headline
    assert "Mean differences up to" not in found.headline
    assert any("4 patients cannot show any difference" in caveat for caveat in found.caveats)
    assert any("Bootstrap intervals of 4 patients are too narrow" in caveat for caveat in found.caveats)
    assert "show a difference of any size" in found.contrasts["a"]


def test_the_same_scores_are_no_equivalence():
    scores = np.repeat(np.linspace(0, 1, 12)[:, None], 2, axis=1)
    found = judge(compare(scores, algorithms=("unet", "copy"), plan=PLAN), metric="Dice")
    assert found.contrasts["copy"] == "copy and unet score the same in each of 12 patients."
    assert "equivalent" not in found.headline


def test_mean_and_wins_that_disagree_are_told():
    # a little better in most, much worse in a few: signed ranks say better, the mean says worse
    differences = np.concatenate([np.linspace(0.01, 0.02, 56), np.full(4, -0.9)])
    scores = np.stack([np.full(60, 0.95), 0.95 + differences], axis=1)
    found = judge(compare(scores, algorithms=("unet", "a"), plan=PLAN), metric="Dice")
    assert "differ" in found.contrasts["a"]
    assert "it has the worse mean and wins in 93%" in found.contrasts["a"]
    assert found.headline == "Dice, against unet with 60 patients: a is different, but not one way."


@pytest.mark.parametrize("sign", [1, -1])
def test_what_only_the_ranks_show_is_told_so(sign):
    # a little better in most, much worse in one: the mean is better too, but not surely
    differences = sign * np.concatenate([np.linspace(0.01, 0.02, 59), [-0.6]])
    scores = np.stack([np.full(60, 0.5), 0.5 + differences], axis=1)
    found = judge(compare(scores, algorithms=("unet", "a"), plan=PLAN), metric="Dice")
    word = "better" if sign > 0 else "worse"
    assert found.headline == f"Dice, against unet with 60 patients: a is {word} by ranks."
    assert "the test by ranks shows it, the mean's own interval does not exclude 0" in found.contrasts["a"]
    flipped = compare(scores, algorithms=("unet", "a"), plan=dataclasses.replace(PLAN, test="permutation"))
    assert "by ranks" not in judge(flipped, metric="Dice").headline


def test_what_was_left_out_is_told():
    scores = np.random.default_rng(0).normal(size=(12, 2))
    aligned = AlignedScores(
        scores=scores,
        cases=tuple(map(str, range(12))),
        algorithms=("unet", "a"),
        num_replicates={"unet": 3, "a": 2},
        left_out={"x": "is missing from a"},
        undefined={"a": ("y", "z")},
    )
    found = judge(compare(scores, algorithms=("unet", "a"), plan=PLAN), metric="HD95", aligned=aligned)
    text = " ".join(found.caveats)
    assert "1 patient was left out that not all algorithms have" in text
    assert "2 patients were left out for all because the score has no value there (a 2)" in text
    assert "different numbers of runs (unet 3, a 2)" in text
    assert "what other seeds or folds would have given is not in them" in text


@pytest.mark.parametrize(("number", "expected"), [(7, 7), (99, 99), (284, 290), (2263, 2300), (1685, 1700)])
def test_numbers_of_patients_have_two_digits(number, expected):
    assert two_digits(number) == expected


def test_p_values():
    assert [format_p(value) for value in (0.0004, 0.0312, float("nan"))] == ["p < 0.001", "p = 0.031", "p undefined"]
