"""Storages that are away for a while, or for good, and workers that are."""

import itertools

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from kits_ml.studies import search, storage
from kits_ml.studies.objective import run_trial
from kits_ml.studies.storage import give_up_silent
from tests.studies.conftest import an_hour_passes, pretend, states, studies_of, work

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_a_sign_of_life_that_is_not_taken_is_not_the_last(rdb_study, monkeypatch, caplog):
    trial_id = rdb_study._storage.create_new_trial(rdb_study._study_id)

    def full(self, trial_id):
        raise optuna.exceptions.StorageInternalError("commit") from OSError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "record_heartbeat", full)
        rdb_study._storage.record_heartbeat(trial_id)  # what Optuna's thread does, which would end with an error
    assert "does not take a sign of life (database or disk is full)" in caplog.text


def test_a_worker_that_was_away_goes_on_without_the_trial_that_was_given_up(make_spec, caplog):
    spec = make_spec(trials=2, architectures=["unet"])
    studies = studies_of(spec)
    away = []

    def train(settings, *, on_epoch):
        if not away:
            away.append(1)  # for so long that others give the trial up
            (trial,) = studies["unet"].get_trials(states=(TrialState.RUNNING,))
            studies["unet"]._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return pretend(settings, on_epoch=on_epoch)

    work(spec, studies=studies, train=train)
    assert states(studies["unet"]) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert "was given up by others" in caplog.text


def test_a_trial_that_was_given_up_before_it_could_be_told_of_ends_no_worker(make_spec, monkeypatch, caplog):
    spec = make_spec(trials=2, architectures=["unet"])
    studies = studies_of(spec)
    away = []

    def run_slowly(trial, **options):
        value = run_trial(trial, **options)
        if not away:
            away.append(1)
            studies["unet"]._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return value

    monkeypatch.setattr(search, "run_trial", run_slowly)
    work(spec, studies=studies)
    assert states(studies["unet"]) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert "was given up by others" in caplog.text


def _gone(*_, **__):
    raise StorageInternalError("commit") from OSError("connection refused")


def test_a_storage_that_fails_every_other_time_costs_no_trial(rdb_study, make_spec, monkeypatch, caplog):
    def every_other_time(method):
        calls = itertools.count()
        return lambda *args, **options: (_gone if next(calls) % 2 == 0 else method)(*args, **options)

    rdb_study.sampler = optuna.samplers.RandomSampler(seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "PAUSE_S", 0)
        for name in ("_get_trials", "_create_new_trial", "get_trial", "set_trial_state_values"):
            patch.setattr(RDBStorage, name, every_other_time(getattr(RDBStorage, name)))
        work(make_spec(trials=2, architectures=["unet"]), studies={"unet": rdb_study})
    assert states(rdb_study) == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert "the storage does not answer (connection refused); trying again" in caplog.text


@pytest.mark.parametrize("methods", [("get_trial", "set_trial_state_values"), ("set_trial_state_values",)])
def test_a_storage_that_stays_away_is_named_where_optuna_stumbles(methods, rdb_study, make_spec, monkeypatch):
    """Its `optimize` ends with an UnboundLocalError or an AssertionError where a trial's end cannot be told."""

    def train(settings, *, on_epoch):
        found = pretend(settings, on_epoch=on_epoch)
        for name in methods:
            monkeypatch.setattr(RDBStorage, name, _gone)
        return found

    monkeypatch.setattr(storage, "PATIENCE_S", -1)
    with pytest.raises(StorageInternalError):
        work(make_spec(trials=2, architectures=["unet"]), studies={"unet": rdb_study}, train=train)


def test_signs_of_life_that_cannot_be_read_are_the_storages_failure(rdb_study):
    rdb_study._storage.create_new_trial(rdb_study._study_id)
    with rdb_study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE trial_heartbeats"))
    with pytest.raises(StorageInternalError, match="signs of life cannot be read"):
        give_up_silent(rdb_study)


def test_after_an_outage_all_get_time_for_a_sign_of_life(rdb_study):
    trial_id = rdb_study._storage.create_new_trial(rdb_study._study_id)
    rdb_study._storage.record_heartbeat(trial_id)
    an_hour_passes(rdb_study)
    database = rdb_study._storage._backend
    with (
        pytest.raises(sqlalchemy.exc.OperationalError),
        database.engine.connect() as connection,
    ):
        connection.execute(sqlalchemy.text("SELECT * FROM nosuch"))
    give_up_silent(rdb_study)
    assert states(rdb_study) == [TrialState.RUNNING]
    database.failed_s -= 2 * 30 + 10  # two heartbeats and a connection's timeout later
    give_up_silent(rdb_study)
    assert states(rdb_study) == [TrialState.FAIL, TrialState.WAITING]
