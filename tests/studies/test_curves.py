"""Expected best score against budget, by hand."""

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from kits_ml.errors import InputError
from kits_ml.studies import plots
from kits_ml.studies.curves import tuning_curve, tuning_figure


def test_by_hand():
    # of two scores: one draw is their mean; of two draws both are the worse one in a quarter of cases
    curve = tuning_curve([0.8, 0.4])
    np.testing.assert_allclose(curve.expected, [0.6, 0.25 * 0.4 + 0.75 * 0.8])
    np.testing.assert_allclose(curve.low, [0.4, 0.4])  # probability 0.05 is passed at 1/2 and at 1/4
    np.testing.assert_allclose(curve.high, [0.8, 0.8])


def test_it_is_what_drawing_gives():
    scores = np.random.default_rng(0).random(7)
    drawn = np.random.default_rng(1).choice(scores, (200_000, 3)).max(axis=1)
    curve = tuning_curve(scores)
    assert curve.expected[2] == pytest.approx(drawn.mean(), abs=2e-3)
    assert curve.low[2] == np.quantile(drawn, 0.05, method="inverted_cdf")
    assert curve.high[2] == np.quantile(drawn, 0.95, method="inverted_cdf")


def test_more_trials_never_expect_less():
    assert (np.diff(tuning_curve([0.1, 0.5, 0.5, 0.9]).expected) > 0).all()
    assert tuning_curve([0.3, 0.3]).expected == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("scores", [[], [0.5, float("nan")]])
def test_no_scores_no_curve(scores):
    with pytest.raises(InputError, match="expected at least one, and numbers"):
        tuning_curve(scores)


def test_the_figure_has_a_line_an_architecture():
    figure = tuning_figure({"unet": [0.2, 0.4], "nnunet": [0.3], "segformer": []}, score_name="IoU")
    assert [line.get_label() for line in figure.axes[0].lines] == ["unet", "nnunet"]


def test_the_second_panel_is_in_minutes():
    figure = tuning_figure({"unet": [0.2, 0.4], "nnunet": [0.3]}, score_name="IoU", minutes={"unet": 3, "nnunet": 5})
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["unet"].get_xdata().tolist() == [3, 6]
    assert lines["nnunet"].get_xdata().tolist() == [5]


def test_a_pruned_trial_is_worth_the_mean_of_its_folds(make_spec):
    spec = make_spec(num_folds=3)
    rows = [(0, 0.5), (0, 0.8), (1, 0.2), (1, 0.1)]  # the first fold is the easy one
    curve = [{"fold": fold, "val_foreground_iou": score} for fold, score in rows]
    pruned = create_trial(state=TrialState.PRUNED, value=0.1, user_attrs={"curve": curve})
    assert plots._reached(pruned, spec) == pytest.approx((0.8 + 0.2) / 2)
    assert plots._reached(create_trial(state=TrialState.PRUNED, value=0.1), spec) is None
    assert plots._reached(create_trial(state=TrialState.FAIL), spec) is None
