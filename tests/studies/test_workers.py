"""Several workers, on a PostgreSQL server or behind a proxy; one of them is killed in the midst of a trial."""

import dataclasses
import functools
import signal
import subprocess
import sys

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from kits_ml.studies.search import SURPLUS
from kits_ml.studies.storage import close_storage
from kits_ml.studies.study import report_study
from tests.studies import processes
from tests.studies.processes import begin, start_worker, worker_log
from tests.tracking.stores import tracked_in
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """The URL of a server on loopback that lives as long as the tests of this file."""
    pytest.importorskip("psycopg")
    try:
        with processes.postgresql(tmp_path_factory.mktemp("postgresql")) as url:
            yield url
            close_storage(_storage(url))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def mlflow_server(tmp_path, settings):
    """A tracking server on loopback, which is the one that is used."""
    with processes.tracking_server(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}") as url, tracked_in(url):
        yield url


@functools.lru_cache
def _storage(url: str) -> optuna.storages.RDBStorage:
    """One for all looks: each has connections of its own, and a server takes a hundred."""
    return optuna.storages.RDBStorage(url)


def _trials(settings, name):
    return optuna.load_study(study_name=name, storage=_storage(settings.storage)).trials


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_killed_worker_of_four_loses_duplicates_and_leaves_nothing(settings, document, postgresql, mlflow_server):
    settings = dataclasses.replace(settings, storage=postgresql, heartbeat_s=1, grace_s=20, poll_s=0.2)
    begin(settings, {**document, "trials": 8})
    workers = [start_worker(settings, seconds=2) for _ in range(4)]
    of_worker = f":{workers[0].pid}"

    def running_there():
        trials = [trial for name in ("small/unet", "small/attention_unet") for trial in _trials(settings, name)]
        return [
            trial
            for trial in trials
            if trial.state == TrialState.RUNNING and trial.user_attrs.get("worker", "").endswith(of_worker)
        ]

    wait_until(running_there, seconds=120, pause=0.1)
    workers[0].send_signal(signal.SIGKILL)
    for worker in workers:
        assert worker.wait(300) == (-signal.SIGKILL if worker is workers[0] else 0), worker_log(settings).read_text()

    client = MlflowClient()
    result = report_study(settings)
    killed = 0
    for architecture, run_id in (
        (run.data.tags["architecture"], run.info.run_id)
        for run in client.search_runs(
            [client.get_run(result.run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'"
        )
    ):
        trials = [trial for trial in _trials(settings, f"small/{architecture}") if SURPLUS not in trial.user_attrs]
        states = [trial.state for trial in trials]
        assert states.count(TrialState.COMPLETE) == 8  # none lost, none beyond the budget
        assert not {TrialState.RUNNING, TrialState.WAITING} & set(states)  # none eternal
        chosen = [tuple(trial.params.values()) for trial in trials if trial.state == TrialState.COMPLETE]
        assert len(set(chosen)) == 8  # none twice
        lost = [trial for trial in trials if trial.state == TrialState.FAIL]
        killed += sum(
            "worker" in trial.user_attrs and trial.user_attrs["worker"].endswith(of_worker) for trial in lost
        )
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
        assert sorted(int(run.data.tags["trial"]) for run in logged) == sorted(trial.number for trial in trials)
    assert killed == 1
    retries = [
        trial
        for name in result.progress
        for trial in _trials(settings, f"small/{name}")
        if trial.system_attrs.get("retry_history")
    ]
    assert [trial.state for trial in retries] == [TrialState.COMPLETE]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_four_workers_are_at_four_trials_at_once(settings, document, postgresql):
    """What that gives is in experiments/benchmarks/study_overhead.md."""
    settings = dataclasses.replace(settings, storage=postgresql, poll_s=0.1)
    begin(settings, {**document, "name": "at_once", "trials": 12, "architectures": ["unet"]})
    workers = [start_worker(settings, seconds=10) for _ in range(4)]
    for worker in workers:
        assert worker.wait(300) == 0, worker_log(settings).read_text()
    done = [trial for trial in _trials(settings, "at_once/unet") if trial.state == TrialState.COMPLETE]
    assert len(done) == 12
    at_work = [
        {
            one.user_attrs["worker"]
            for one in done
            if one.datetime_start <= trial.datetime_start < one.datetime_complete
        }
        for trial in done
    ]
    assert max(map(len, at_work)) == 4


PROXY = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


def test_workers_behind_a_proxy_share_the_budget(settings, document):
    """The command of deploy/README.md; two workers, neither of which opens the database."""
    port = processes.free_port()
    command = [sys.executable, "-W", "ignore", "-c", PROXY, settings.storage, str(port)]
    proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: processes.listens(port), seconds=120, pause=0.1)
        behind = dataclasses.replace(settings, storage=f"127.0.0.1:{port}", storage_class="GrpcStorageProxy")
        begin(behind, {**document, "trials": 4})
        workers = [start_worker(behind, seconds=0.5) for _ in range(2)]
        for worker in workers:
            assert worker.wait(300) == 0, worker_log(settings).read_text()
    finally:
        proxy.terminate()
        proxy.wait(30)
    for name in ("small/unet", "small/attention_unet"):
        states = [trial.state for trial in _trials(settings, name)]
        # no heartbeat: a worker may go beyond the budget by one trial, and what was running stays so
        assert 4 <= states.count(TrialState.COMPLETE) <= 5
