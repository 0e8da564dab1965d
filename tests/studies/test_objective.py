"""The objective, without a study: Optuna's FixedTrial chooses."""

import optuna
import pytest
from optuna.trial import FixedTrial

from kits_ml.config import TrainSettings
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.studies import storage
from kits_ml.studies.objective import TrialFailedError, run_trial
from tests.studies.conftest import pretend

CHOSEN = {"learning_rate": 0.01, "batch_size": 4}


def _run(spec, *, train=pretend, chosen=CHOSEN):
    trial = FixedTrial(chosen)
    return trial, run_trial(trial, spec=spec, architecture="unet", train=train)


def test_the_score_is_that_of_the_chosen_settings(make_spec):
    trial, value = _run(make_spec())
    assert value == 1  # 0.01 is the best learning rate
    assert [row["val_foreground_iou"] for row in trial.user_attrs["curve"]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [row["epoch"] for row in trial.user_attrs["curve"]] == [0, 1, 2]
    assert trial.user_attrs["num_parameters"] == 400
    assert _run(make_spec(), chosen={**CHOSEN, "learning_rate": 0.1})[1] == pytest.approx(0.75)  # one decade of four


def test_folds_are_averaged_and_their_patients_kept(make_spec):
    def train(settings: TrainSettings, *, on_epoch):
        trialled = pretend(settings, on_epoch=on_epoch)
        return type(trialled)(**{**trialled.__dict__, "score": [0.2, 0.4, 0.9][settings.fold]})

    trial, value = _run(make_spec(num_folds=3), train=train)
    assert value == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert [row["case"] for row in trial.user_attrs["cases"]] == [
        f"case_{fold}{n}" for fold in range(3) for n in range(3)
    ]
    assert trial.user_attrs["training_minutes"] == 3 * 0.25


def test_quality_and_cost(make_spec):
    spec = make_spec(objectives=["val_foreground_iou", "num_parameters"], sampler="NSGAIISampler")
    assert _run(spec)[1] == (1, 400)


def _raising(error):
    def train(settings, *, on_epoch):
        on_epoch(0, {"loss": 1.0, "val_foreground_iou": 0.1})
        raise error

    return train


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("the loss became nan in step 1 of the epoch"), "the loss became nan in step 1"),
        (MemoryError(), "out of memory: MemoryError"),
        (ResourceExhaustedError("OOM when allocating tensor"), "out of memory: OOM when allocating"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory: CUDA out of memory"),
    ],
)
def test_memory_and_nan_are_reasons_that_stay_with_the_trial(error, reason, make_spec):
    trial = FixedTrial(CHOSEN)
    with pytest.raises(TrialFailedError, match=reason):
        run_trial(trial, spec=make_spec(), architecture="unet", train=_raising(error))
    assert trial.user_attrs["reason"].startswith(reason)
    assert len(trial.user_attrs["curve"]) == 1


def test_a_score_that_is_no_number_fails(make_spec):
    def train(settings, *, on_epoch):
        on_epoch(0, {"loss": 1.0, "val_foreground_iou": float("nan")})

    with pytest.raises(TrialFailedError, match="val_foreground_iou became nan in epoch 0"):
        _run(make_spec(), train=train)


def test_a_fault_of_the_program_or_the_data_is_no_failed_trial(make_spec):
    for error in (KeyError("loss"), CasesFailedError({"case_00001": "cannot be read"}, 5)):
        trial = FixedTrial(CHOSEN)
        with pytest.raises(type(error)):
            run_trial(trial, spec=make_spec(), architecture="unet", train=_raising(error))
        assert "reason" not in trial.user_attrs


def test_settings_that_do_not_go_together_fail_alone(make_spec):
    spec = make_spec(space={"window_min_hu": [-200, 250], "window_max_hu": [-100, 300]})
    with pytest.raises(TrialFailedError, match="window_max_hu: found -100, expected more than window_min_hu 250"):
        _run(spec, chosen={"window_min_hu": 250, "window_max_hu": -100})


def test_a_pruned_trial_says_by_whom_and_when(make_spec):
    class Pruned(FixedTrial):
        def should_prune(self):
            return len(self.user_attrs["_reported"]) == 2

        def report(self, value, step):
            self.set_user_attr("_reported", [*self.user_attrs.get("_reported", []), (step, value)])

    trial = Pruned(CHOSEN)
    with pytest.raises(optuna.TrialPruned):
        run_trial(trial, spec=make_spec(pruner="MedianPruner"), architecture="unet", train=pretend)
    assert trial.user_attrs["reason"] == "pruned by MedianPruner after epoch 1, fold 0: val_foreground_iou 0.6667"
    assert trial.user_attrs["_reported"] == [(0, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3))]


def test_wilcoxon_is_told_of_patients_once_a_fold_is_done(make_spec):
    class Watched(FixedTrial):
        steps = ()

        def report(self, value, step):
            self.steps = (*self.steps, step)

        def should_prune(self):
            return len(self.steps) == 6  # after the last fold there is nothing to save: nobody asks

    trial = Watched(CHOSEN)
    run_trial(trial, spec=make_spec(pruner="WilcoxonPruner", num_folds=2), architecture="unet", train=pretend)
    assert trial.steps == (0, 1, 2, 3, 4, 5)  # three patients a fold


class Full(FixedTrial):
    """Its storage has no room three times, when the training is over."""

    refusals = 3

    def set_user_attr(self, key, value):
        if key == "cases" and self.refusals:
            self.refusals -= 1
            raise optuna.exceptions.StorageInternalError("database or disk is full")
        super().set_user_attr(key, value)


def test_a_storage_without_room_for_a_while_costs_no_finished_training(make_spec, monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0)
    trial = Full(CHOSEN)
    assert run_trial(trial, spec=make_spec(), architecture="unet", train=pretend) == 1
    assert len(trial.user_attrs["cases"]) == 3
    monkeypatch.setattr(storage, "PATIENCE_S", -1)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        run_trial(Full(CHOSEN), spec=make_spec(), architecture="unet", train=pretend)
