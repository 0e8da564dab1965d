"""Workers, budgets and what is left when one of them dies."""

import dataclasses
import datetime
import threading
import time

import pytest
from optuna.trial import TrialState, create_trial

from kits_ml.config import SearchSettings
from kits_ml.errors import InputError
from kits_ml.studies import search
from kits_ml.studies.objective import BEGUN
from kits_ml.studies.search import SURPLUS, Progress, is_spent, is_surplus, minutes_of, next_architecture
from kits_ml.studies.strategies import SeededByTrial
from tests.studies.conftest import an_hour_passes, pretend, states, work

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BUDGET = SearchSettings(name="s", trials=4)


def _params(studies):
    return {name: [trial.params for trial in study.trials] for name, study in studies.items()}


def test_each_architecture_gets_its_trials_in_turn(make_spec):
    told = []
    studies = work(make_spec(trials=2), told=told)
    assert told == [("unet", 0), ("attention_unet", 0), ("unet", 1), ("attention_unet", 1)]
    assert {name: search.progress(study).complete for name, study in studies.items()} == {
        "unet": 2,
        "attention_unet": 2,
    }


@pytest.mark.parametrize("sampler", ["RandomSampler", {"name": "TPESampler", "n_startup_trials": 2}, "QMCSampler"])
def test_the_same_seed_gives_the_same_trials_interrupted_or_not(sampler, make_spec):
    spec = make_spec(sampler=sampler, trials=5)
    whole = _params(work(spec))
    studies = work(dataclasses.replace(spec, search=dataclasses.replace(spec.search, trials=2)))
    for study in studies.values():  # a new process has samplers of its own
        study.sampler = SeededByTrial(spec.sampler, seed=spec.search.seed)
    assert _params(work(spec, studies=studies)) == whole
    assert whole["unet"] == whole["attention_unet"]  # like chances: the same settings for each, as far as shared
    assert len({str(params) for params in whole["unet"]}) == 5
    other = dataclasses.replace(
        spec, search=dataclasses.replace(spec.search, seed=6), sampler={"name": "RandomSampler"}
    )
    assert _params(work(other)) != whole


def test_a_sequence_that_is_not_made_yet_draws_no_trial_twice(make_spec):
    def train(settings, *, on_epoch):
        raise InputError("the loss became nan")

    spec = make_spec(sampler="QMCSampler", max_failed=3, architectures=["unet"])
    drawn = _params(work(spec, train=train))["unet"]
    assert len(drawn) == len({str(params) for params in drawn}) == 3


@pytest.mark.parametrize(
    "sampler", ["NSGAIISampler", "NSGAIIISampler", "TPESampler", "GPSampler", "BruteForceSampler"]
)
def test_samplers_for_quality_against_cost(sampler, make_spec):
    space = {"learning_rate": [1e-3, 1e-2], "batch_size": [2, 4]}
    objectives = ["val_foreground_iou", "num_parameters"]
    spec = make_spec(objectives=objectives, sampler=sampler, space=space, trials=3, architectures=["unet"])
    (study,) = work(spec).values()
    assert all(trial.values[1] == 100 * trial.params["batch_size"] for trial in study.trials)


def test_cma_es_searches(make_spec):
    spec = make_spec(sampler="CmaEsSampler", trials=6, architectures=["unet"])
    (study,) = work(spec).values()
    assert search.progress(study).complete == 6


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "MedianPruner", "n_startup_trials": 1},
        {"name": "HyperbandPruner", "min_resource": 1, "max_resource": 3, "reduction_factor": 3},
        {"name": "SuccessiveHalvingPruner", "reduction_factor": 2},
        {"name": "PercentilePruner", "percentile": 25, "n_startup_trials": 1},
        {"name": "PatientPruner", "patience": 1, "wrapped_pruner": "MedianPruner"},
    ],
)
def test_pruners_prune_and_pruned_trials_count(pruner, make_spec):
    (study,) = work(make_spec(pruner=pruner, trials=12, architectures=["unet"])).values()
    done = search.progress(study)
    assert done.finished == 12
    if pruner["name"] != "PatientPruner":  # scores only rise here, so patience never ends
        assert done.pruned > 0
    for trial in study.trials:
        if trial.state == TrialState.PRUNED:
            assert search.reason(trial).startswith(f"pruned by {pruner['name']} after epoch")


def test_wilcoxon_prunes_after_a_fold(make_spec):
    spec = make_spec(
        pruner={"name": "WilcoxonPruner", "p_threshold": 0.3}, num_folds=3, trials=8, architectures=["unet"]
    )
    (study,) = work(spec).values()
    done = search.progress(study)
    assert done.pruned > 0
    assert done.finished == 8
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert all("after patients of" in search.reason(trial) for trial in pruned)


def test_failed_trials_do_not_count_and_do_not_go_on_forever(make_spec):
    calls = []

    def train(settings, *, on_epoch):
        calls.append(settings.architecture)
        if settings.architecture == "unet" or len(calls) < 5:
            raise InputError("the loss became nan")
        return pretend(settings, on_epoch=on_epoch)

    done = {name: search.progress(study) for name, study in work(make_spec(max_failed=3), train=train).items()}
    assert (done["unet"].failed, done["unet"].finished) == (3, 0)  # given up
    assert (done["attention_unet"].failed, done["attention_unet"].complete) == (1, 4)


def test_a_fault_of_the_program_ends_the_worker(make_spec):
    def train(settings, *, on_epoch):
        raise KeyError("loss")

    with pytest.raises(KeyError):
        work(make_spec(), train=train)


def test_a_budget_is_trials_or_minutes():
    assert is_spent(Progress(complete=3, pruned=1), BUDGET)
    assert not is_spent(Progress(complete=3, failed=9, lost=20, running=3), BUDGET)
    assert is_spent(Progress(failed=10), BUDGET)
    minutes = SearchSettings(name="s", minutes=30)
    assert not is_spent(Progress(complete=100, minutes=29.9), minutes)
    assert is_spent(Progress(complete=1, minutes=30), minutes)


def test_who_is_next():
    done = {"a": Progress(complete=2, running=1), "b": Progress(complete=2), "c": Progress(complete=4)}
    assert next_architecture(done, BUDGET) == "b"  # the furthest behind
    held = {"a": Progress(complete=3, running=1), "b": Progress(complete=2, running=2)}
    assert next_architecture(held, BUDGET) is None  # others are at all that is left
    assert next_architecture(held, BUDGET, count_running=False) == "b"


def _trial(number, state):
    now = datetime.datetime.now()
    trial = create_trial(state=state, value=0.5 if state == TrialState.COMPLETE else None)
    trial.number, trial.datetime_start = number, now
    return trial


def test_the_number_decides_who_is_beyond_the_budget():
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING, TrialState.RUNNING]
    trials = [_trial(number, state) for number, state in enumerate(states)]
    # before number 4: complete, pruned and running hold three places; the failed one holds none
    assert not is_surplus(4, trials, 4, count_running=True)
    assert is_surplus(4, trials, 3, count_running=True)
    assert not is_surplus(4, trials, 3, count_running=False)
    trials[3].user_attrs[SURPLUS] = True
    assert not is_surplus(4, trials, 3, count_running=True)


def test_a_trial_that_was_given_up_next_day_has_not_trained_a_day():
    now = datetime.datetime.now()
    trial = _trial(0, TrialState.FAIL)
    trial.datetime_start, trial.datetime_complete = now - datetime.timedelta(days=1), now
    assert minutes_of(trial) == 0  # killed: nobody knows how long it trained
    trial.set_user_attr("reason", "the loss became nan")
    assert minutes_of(trial) == pytest.approx(24 * 60)


def test_minutes_of_a_running_trial_do_not_depend_on_time_zones():
    trial = _trial(0, TrialState.RUNNING)
    trial.datetime_start -= datetime.timedelta(hours=9)  # the clock on the wall where its worker is
    assert minutes_of(trial) == 0
    trial.set_user_attr(BEGUN, time.time() - 120)
    assert minutes_of(trial) == pytest.approx(2, abs=0.1)


def _hours_pass(study, monkeypatch) -> list[float]:
    """Makes an hour of each wait, of which there are at most ten; the list of them."""
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        assert len(waits) < 10, "it waits forever"
        an_hour_passes(study)

    monkeypatch.setattr(search.time, "sleep", sleep)
    return waits


def test_a_worker_that_was_killed_before_its_first_sign_of_life_is_noticed(rdb_study, make_spec, monkeypatch):
    rdb_study._storage.create_new_trial(rdb_study._study_id)  # and killed: the heart beats from here on
    _hours_pass(rdb_study, monkeypatch)
    work(make_spec(trials=2, architectures=["unet"]), studies={"unet": rdb_study})
    assert states(rdb_study) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert rdb_study.trials[2].system_attrs["retry_history"] == [0]


def test_who_is_done_stays_until_no_trial_is_running(rdb_study, make_spec, monkeypatch):
    """Killed in the last trial of a budget in minutes: somebody must see it, and the report comes after it."""
    done = _trial(0, TrialState.COMPLETE)
    done.datetime_start -= datetime.timedelta(hours=1)
    done.datetime_complete = datetime.datetime.now()
    rdb_study.add_trial(done)
    rdb_study._storage.record_heartbeat(rdb_study._storage.create_new_trial(rdb_study._study_id))
    waits = _hours_pass(rdb_study, monkeypatch)
    work(make_spec(trials=None, minutes=30.0, architectures=["unet"]), studies={"unet": rdb_study})
    assert rdb_study.trials[1].state == TrialState.FAIL
    assert waits


def test_a_retry_that_waits_does_not_keep_the_clock_running(rdb_study, make_spec, monkeypatch):
    """Killed after an hour: that is no part of the minutes, and neither is the hour that its retry has copied."""
    trial_id = rdb_study._storage.create_new_trial(rdb_study._study_id)
    rdb_study._storage.set_trial_user_attr(trial_id, BEGUN, time.time() - 3600)
    rdb_study._storage.record_heartbeat(trial_id)
    _hours_pass(rdb_study, monkeypatch)

    def train(settings, *, on_epoch):
        threading.Event().wait(0.1)
        return pretend(settings, on_epoch=on_epoch)

    # a budget of 60 ms, which the retry spends
    spec = make_spec(trials=None, minutes=0.001, architectures=["unet"])
    work(spec, studies={"unet": rdb_study}, train=train)
    assert states(rdb_study) == [TrialState.FAIL, TrialState.COMPLETE]
    assert rdb_study.trials[1].system_attrs["retry_history"] == [0]
