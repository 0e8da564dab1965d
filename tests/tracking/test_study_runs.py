"""The runs of a study's trials: whole, or made anew."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from kits_ml.tracking import studies
from kits_ml.tracking.studies import TrialRecord

RECORD = TrialRecord(
    name="unet 7",
    number=7,
    state="PRUNED",
    reason="pruned by MedianPruner after epoch 1, fold 0",
    started_s=1000.0,
    ended_s=1060.0,
    settings={"learning_rate": 1e-3},
    metrics={"training_minutes": 1.0},
    curve=[{"fold": fold, "epoch": epoch, "loss": 1 - epoch / 2} for fold in (0, 1) for epoch in (0, 1)],
    cases_csv="case,foreground_iou\nx,0.5\n",
)


@pytest.fixture
def architecture_id(client) -> str:
    """The run above the trials."""
    return client.create_run("0", run_name="unet").info.run_id


def test_a_trials_run_is_whole(client, architecture_id):
    run = client.get_run(studies.log_trial(architecture_id, RECORD))
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", 1_000_000, 1_060_000)
    assert run.data.tags["mlflow.parentRunId"] == architecture_id
    assert (run.data.tags["trial_state"], run.data.tags["reason"]) == ("PRUNED", RECORD.reason)
    assert [point.value for point in client.get_metric_history(run.info.run_id, "fold_1/loss")] == [1, 0.5]
    assert client.list_artifacts(run.info.run_id, "validation")[0].path == "validation/scores.csv"
    assert studies.logged_trials(architecture_id) == {7}


def test_a_run_that_the_server_left_half_made_is_made_anew_at_once(client, architecture_id, monkeypatch, caplog):
    def gone(*_, **__):
        raise MlflowException("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_dict", gone)
        studies.attempt(lambda: studies.log_trial(architecture_id, RECORD), what="unet, trial 7")
    assert "unet, trial 7 is not in MLflow yet (no answer); `kits-ml study report` logs it later" in caplog.text
    assert studies.logged_trials(architecture_id) == set()
    studies.log_trial(architecture_id, RECORD)
    (run,) = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{architecture_id}'")
    assert run.info.status == "KILLED"


def test_a_run_that_another_worker_is_at_counts_until_it_is_old(client, architecture_id, monkeypatch):
    run_id = studies.log_trial(architecture_id, RECORD)
    client.update_run(run_id, status="RUNNING")
    assert studies.logged_trials(architecture_id) == {7}
    client.set_tag(run_id, "logging_begun_s", "1000")  # its worker was killed
    assert studies.logged_trials(architecture_id) == set()
