"""What helps is shown on patients; what is not shown is not taken."""

import dataclasses

import numpy as np
import pytest

from kits_ml.config import PostprocessingSettings
from kits_ml.evaluation import tuning


def _scores(values) -> list[dict[str, float]]:
    return [dict.fromkeys(tuning.METRICS, value) for value in values]


def _effect(changes, *, num_candidates: int = 1) -> tuning.Effect:
    """Of the first candidate in the deciding metric; the others change nothing."""
    before = np.full(len(changes), 0.5)
    after = [_scores(before + changes), *[_scores(before)] * (num_candidates - 1)]
    tried = [("minimum_tumour_ml", float(number)) for number in range(num_candidates)]
    return tuning.effects(_scores(before), after, tried)[0]


def test_the_difference_is_taken_patient_by_patient():
    found = _effect(np.array([0.1, 0.1, -0.04, 0.0]))
    assert found.mean_difference == pytest.approx(0.16 / 4)
    assert (found.num_better, found.num_worse, found.num_cases) == (2, 1, 4)
    assert found.metric == "composite_dice"


def test_what_is_shown_helps():
    found = _effect(np.linspace(0.01, 0.05, 20))
    assert found.helps
    assert 0.01 < found.low < found.mean_difference < found.high < 0.05


@pytest.mark.parametrize(("num_better", "num_cases"), [(5, 10), (4, 20)])
def test_a_few_who_gain_show_nothing(num_better, num_cases):
    # a draw of 10 misses all of 5 with 0.5^10 = 0.1 %, one of 20 all of 4 with 0.8^20 = 1.2 %: the lower end at 2.5 %
    # is above 0; but of the flips of 5 and 4 signs 2 in 32 and 2 in 16 give as large a mean
    found = _effect(np.where(np.arange(num_cases) < num_better, 0.1, 0.0))
    assert found.family_low == found.low > 0
    assert found.family_p == 2 / 2**num_better
    assert not found.helps


def test_many_candidates_ask_for_more():
    # 8 of 20 patients gain 0.1: 2 in 256 flips of 8 signs give as large a mean, 0.8 %, but 20 times that is 16 %
    changes = np.where(np.arange(20) < 8, 0.1, 0.0)
    alone, among = _effect(changes), _effect(changes, num_candidates=20)
    assert alone.family_p == 2 / 2**8
    assert alone.helps
    # a draw of 20 with one of the 8 or none: 0.6^20 + 20 x 0.4 x 0.6^19 = 0.05 %, less than 2.5 % / 20
    assert among.low == alone.low > among.family_low > 0
    assert among.family_p == pytest.approx(20 * 2 / 2**8)
    assert not among.helps


def test_p_of_many_candidates_is_1_at_most():
    assert _effect(np.zeros(20), num_candidates=20).family_p == 1


@pytest.mark.parametrize("changes", [np.full(9, 0.1), np.zeros(30), np.full(30, -0.1), np.resize([0.1, -0.1], 30)])
def test_few_patients_and_no_gain_show_nothing(changes):
    assert not _effect(changes).helps


def test_the_best_that_helps_is_taken():
    before = np.full(20, 0.5)
    gains = {0.05: 0.01, 0.2: 0.03, 0.5: -0.01}
    tried = [("minimum_tumour_ml", value) for value in gains]
    found = tuning.effects(_scores(before), [_scores(before + gain) for gain in gains.values()], tried)
    assert tuning.best_of(found).value == 0.2
    assert tuning.best_of([one for one in found if one.value == 0.5]) is None
    assert tuning.best_of([]) is None


def test_candidates_are_what_is_off():
    off = PostprocessingSettings()
    tried = tuning.candidates(off)
    assert len(tried) == len({tuple(one.to_dict().items()) for one in tried})
    assert {tuning.changed_option(off, one)[0] for one in tried} == set(PostprocessingSettings.names())
    current = dataclasses.replace(off, tumour_contact_mm=0.0)
    tried = tuning.candidates(current)
    assert all(one.tumour_contact_mm == 0 for one in tried)
    assert "tumour_contact_mm" not in {tuning.changed_option(current, one)[0] for one in tried}
