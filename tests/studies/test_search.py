"""Workers, budgets and what is left when one of them dies."""

import dataclasses
import datetime
import time

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState, create_trial

from kits_ml.config import SearchSettings
from kits_ml.errors import InputError
from kits_ml.studies import search
from kits_ml.studies.objective import BEGUN
from kits_ml.studies.search import SURPLUS, Progress, is_spent, is_surplus, minutes_of, next_architecture
from kits_ml.studies.storage import close_storage, open_storage
from kits_ml.studies.strategies import SeededByTrial, make_pruner
from tests.studies.conftest import pretend

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BUDGET = SearchSettings(name="s", trials=4)


def _studies(spec):
    return {
        name: optuna.create_study(
            study_name=name,
            sampler=SeededByTrial(spec.sampler, seed=spec.search.seed),
            pruner=make_pruner(spec.pruner, where="pruner"),
            directions=spec.directions,
        )
        for name in spec.architectures
    }


def _work(spec, *, train=pretend, studies=None, told=None):
    studies = studies or _studies(spec)
    tell = (lambda name, trial: told.append((name, trial.number))) if told is not None else (lambda *_: None)
    search.work(studies, spec, train=train, on_trial=tell, poll_s=0.01)
    return studies


def _params(studies):
    return {name: [trial.params for trial in study.trials] for name, study in studies.items()}


def test_each_architecture_gets_its_trials_in_turn(make_spec):
    told = []
    studies = _work(make_spec(trials=2), told=told)
    assert told == [("unet", 0), ("attention_unet", 0), ("unet", 1), ("attention_unet", 1)]
    assert {name: search.progress(study).complete for name, study in studies.items()} == {
        "unet": 2,
        "attention_unet": 2,
    }


@pytest.mark.parametrize("sampler", ["RandomSampler", {"name": "TPESampler", "n_startup_trials": 2}, "QMCSampler"])
def test_the_same_seed_gives_the_same_trials_interrupted_or_not(sampler, make_spec):
    spec = make_spec(sampler=sampler, trials=5)
    whole = _params(_work(spec))
    studies = _work(dataclasses.replace(spec, search=dataclasses.replace(spec.search, trials=2)))
    for study in studies.values():  # a new process has samplers of its own
        study.sampler = SeededByTrial(spec.sampler, seed=spec.search.seed)
    assert _params(_work(spec, studies=studies)) == whole
    assert whole["unet"] == whole["attention_unet"]  # like chances: the same settings for each, as far as shared
    assert len({str(params) for params in whole["unet"]}) == 5
    other = dataclasses.replace(
        spec, search=dataclasses.replace(spec.search, seed=6), sampler={"name": "RandomSampler"}
    )
    assert _params(_work(other)) != whole


@pytest.mark.parametrize(
    "sampler", ["NSGAIISampler", "NSGAIIISampler", "TPESampler", "GPSampler", "BruteForceSampler"]
)
def test_samplers_for_quality_against_cost(sampler, make_spec):
    space = {"learning_rate": [1e-3, 1e-2], "batch_size": [2, 4]}
    objectives = ["val_foreground_iou", "num_parameters"]
    spec = make_spec(objectives=objectives, sampler=sampler, space=space, trials=3, architectures=["unet"])
    (study,) = _work(spec).values()
    assert all(trial.values[1] == 100 * trial.params["batch_size"] for trial in study.trials)


def test_cma_es_searches(make_spec):
    spec = make_spec(sampler="CmaEsSampler", trials=6, architectures=["unet"])
    (study,) = _work(spec).values()
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
    (study,) = _work(make_spec(pruner=pruner, trials=12, architectures=["unet"])).values()
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
    (study,) = _work(spec).values()
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

    done = {name: search.progress(study) for name, study in _work(make_spec(max_failed=3), train=train).items()}
    assert (done["unet"].failed, done["unet"].finished) == (3, 0)  # given up
    assert (done["attention_unet"].failed, done["attention_unet"].complete) == (1, 4)


def test_a_fault_of_the_program_ends_the_worker(make_spec):
    def train(settings, *, on_epoch):
        raise KeyError("loss")

    with pytest.raises(KeyError):
        _work(make_spec(), train=train)


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


@pytest.fixture
def rdb_study(settings):
    storage = open_storage(settings)
    yield optuna.create_study(study_name="s", storage=storage, direction="maximize")
    close_storage(storage)


def _hours_pass(study, monkeypatch) -> list[float]:
    """Makes an hour of each wait, of which there are at most ten; the list of them."""
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        assert len(waits) < 10, "it waits forever"
        with study._storage._backend.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))

    monkeypatch.setattr(search.time, "sleep", sleep)
    return waits


def test_a_worker_that_was_killed_before_its_first_sign_of_life_is_noticed(rdb_study, make_spec, monkeypatch):
    rdb_study._storage.create_new_trial(rdb_study._study_id)  # and killed: the heart beats from here on
    _hours_pass(rdb_study, monkeypatch)
    _work(make_spec(trials=2, architectures=["unet"]), studies={"unet": rdb_study})
    assert [trial.state for trial in rdb_study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert rdb_study.trials[2].system_attrs["retry_history"] == [0]


def test_a_sign_of_life_that_is_not_taken_is_not_the_last(rdb_study, monkeypatch, caplog):
    trial_id = rdb_study._storage.create_new_trial(rdb_study._study_id)

    def full(self, trial_id):
        raise optuna.exceptions.StorageInternalError("commit") from OSError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "record_heartbeat", full)
        rdb_study._storage.record_heartbeat(trial_id)  # what Optuna's thread does, which would end with an error
    assert "does not take a sign of life (database or disk is full)" in caplog.text


def test_who_is_done_stays_until_no_trial_is_running(rdb_study, make_spec, monkeypatch):
    """Killed in the last trial of a budget in minutes: somebody must see it, and the report comes after it."""
    done = _trial(0, TrialState.COMPLETE)
    done.datetime_start -= datetime.timedelta(hours=1)
    done.datetime_complete = datetime.datetime.now()
    rdb_study.add_trial(done)
    rdb_study._storage.record_heartbeat(rdb_study._storage.create_new_trial(rdb_study._study_id))
    waits = _hours_pass(rdb_study, monkeypatch)
    _work(make_spec(trials=None, minutes=30.0, architectures=["unet"]), studies={"unet": rdb_study})
    assert rdb_study.trials[1].state == TrialState.FAIL
    assert waits


def test_a_worker_that_was_away_goes_on_without_the_trial_that_was_given_up(make_spec, caplog):
    spec = make_spec(trials=2, architectures=["unet"])
    studies = _studies(spec)
    away = []

    def train(settings, *, on_epoch):
        if not away:
            away.append(1)  # for so long that others give the trial up
            (trial,) = studies["unet"].get_trials(states=(TrialState.RUNNING,))
            studies["unet"]._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return pretend(settings, on_epoch=on_epoch)

    _work(spec, studies=studies, train=train)
    states = [trial.state for trial in studies["unet"].trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert "was given up by others" in caplog.text
