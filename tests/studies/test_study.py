"""A study from its file to its results, in SQLite storages of its own; trainings are arithmetic but for one test."""

import csv
import dataclasses
import json
import shutil
import signal
import time
from pathlib import Path

import optuna
import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from optuna.trial import TrialState

from kits_ml import cli
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.studies import study as study_module
from kits_ml.studies.study import join_study, report_study, resume_study, run_study, study_status
from tests.conftest import write_phantoms
from tests.studies.conftest import pretend, score_of
from tests.studies.processes import begin, start_worker
from tests.waiting import wait_until


def _children(client, run_id):
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)


def _rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _sometimes(settings, *, on_epoch):
    """Fails at small learning rates, as a loss that is no number does."""
    if settings.learning_rate < 1e-3:
        on_epoch(0, {"loss": 2.0, "val_foreground_iou": 0.0})
        raise InputError("the loss became nan in step 2 of the epoch; try a smaller learning_rate")
    return pretend(settings, on_epoch=on_epoch)


def test_from_the_file_to_the_winner(settings, write):
    write(settings, pruner={"name": "MedianPruner", "n_startup_trials": 2}, trials=6)
    result = run_study(settings, train=_sometimes)
    client = MlflowClient()

    assert {name: one.finished for name, one in result.progress.items()} == {"unet": 6, "attention_unet": 6}
    (winner, trial) = next(iter(result.best.items()))
    configuration = yaml.safe_load((result.folder / "best.yaml").read_text())
    best = TrainSettings.from_mapping(configuration)  # what `train --config` does
    assert (best.architecture, best.learning_rate) == (winner, trial.params["learning_rate"])
    assert score_of(best) == pytest.approx(trial.value)
    rows = _rows(result.folder / "trials.csv")
    complete = [float(row["val_foreground_iou"]) for row in rows if row["state"] == "COMPLETE"]
    assert max(complete) == pytest.approx(trial.value)
    assert {row["algorithm"] for row in _rows(result.folder / "best_cases.csv")} == {"unet", "attention_unet"}
    assert (result.folder / "best/unet.yaml").exists()

    # one run for the study, one below it for each architecture, one below these for each trial
    architectures = _children(client, result.run_id)
    assert {run.data.tags["architecture"] for run in architectures} == {"unet", "attention_unet"}
    runs = [run for one in architectures for run in _children(client, one.info.run_id)]
    assert len(runs) == len(rows)
    statuses = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    found = {(run.info.run_name, run.data.tags["trial_state"], run.data.tags.get("reason", "")) for run in runs}
    assert found == {(f"{row['architecture']} {row['trial']}", row["state"], row["reason"]) for row in rows}
    assert {row["state"] for row in rows} == set(statuses)  # each occurs
    for run in runs:
        assert run.info.status == statuses[run.data.tags["trial_state"]]
        assert float(run.data.params["learning_rate"]) in {float(row["learning_rate"]) for row in rows}
        assert run.data.params["image_size"] == "32"
    (failed,) = {run.data.tags["reason"] for run in runs if run.info.status == "FAILED"}
    assert failed == "the loss became nan in step 2 of the epoch; try a smaller learning_rate"
    (one,) = [run for run in runs if run.info.run_name == f"{winner} {trial.number}"]
    curve = client.get_metric_history(one.info.run_id, "val_foreground_iou")
    assert [point.step for point in curve] == [0, 1, 2]
    assert [curve[-1].value, one.data.metrics["best_val_foreground_iou"]] == pytest.approx([trial.value] * 2)
    assert [file.path for file in client.list_artifacts(one.info.run_id, "validation")] == ["validation/scores.csv"]

    artifacts = {file.path for file in client.list_artifacts(result.run_id)}
    assert {"best.yaml", "best", "plots", "trials.csv", "study.yaml"} <= artifacts
    plots = {Path(file.path).stem for file in client.list_artifacts(result.run_id, f"plots/{winner}")}
    assert {"history", "slices", "intermediate_values", "parallel_coordinates", "importances"} <= plots


def test_the_page_holds_all_and_asks_for_nothing(settings, write):
    write(settings, trials=3)
    result = run_study(settings, train=_sometimes)
    html = (result.folder / "study.html").read_text()
    (winner, trial) = next(iter(result.best.items()))
    assert f"The highest val_foreground_iou, {trial.value:.4f}, is trial {trial.number} of {winner}." in html
    for text in ("Tuning curves", "unet: history", "attention_unet: slices", "learning_rate", "base.epochs"):
        assert text in html, text
    num_failed = sum(one.failed for one in result.progress.values())
    assert ("the loss became nan in step 2" in html) == (num_failed > 0)
    assert "http" not in html.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert html.count("data:image/png;base64,") >= 1 + 2 * 2  # tuning curves; history and slices of each
    artifacts = [one.path for one in MlflowClient().list_artifacts(result.run_id)]
    assert "study.html" in artifacts


def test_quality_against_cost_has_a_front(settings, write):
    write(settings, objectives=["val_foreground_iou", "num_parameters"], sampler="NSGAIISampler", trials=6)
    result = run_study(settings, train=pretend)
    rows = [row for row in _rows(result.folder / "pareto.csv") if row["architecture"] == "unet"]
    points = [(float(row["val_foreground_iou"]), float(row["num_parameters"])) for row in rows]
    for score, cost in points:  # nothing on the front is beaten in both
        assert not any(one > score and other < cost for one, other in points)
    assert (result.folder / "plots/unet/pareto_front.png").exists()


def test_resume_goes_on_as_if_nothing_had_been(settings, write, tmp_path):
    calls = []

    def dies(one, *, on_epoch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return pretend(one, on_epoch=on_epoch)

    write(settings, name="whole")
    whole = run_study(settings, train=pretend)
    write(settings)
    with pytest.raises(KeyboardInterrupt):
        run_study(settings, train=dies)
    result = resume_study(settings, train=pretend)
    assert {name: one.complete for name, one in result.progress.items()} == {"unet": 4, "attention_unet": 4}
    assert result.progress["attention_unet"].lost == 1  # the fourth trial: said to be stopped, and made up for
    assert result.best["unet"].params == whole.best["unet"].params
    client = MlflowClient()
    assert client.get_run(result.run_id).info.status == "FINISHED"
    assert sum(len(_children(client, run.info.run_id)) for run in _children(client, result.run_id)) == 9


def test_more_trials_may_be_asked_for_and_a_name_is_enough(settings, write):
    write(settings, trials=2)
    first = run_study(settings, train=pretend)
    write(settings, trials=3)
    second = run_study(settings, train=pretend)
    assert {one.complete for one in second.progress.values()} == {3}
    assert second.run_id == first.run_id
    by_name = dataclasses.replace(settings, study="small")
    spec, progress, _ = study_status(by_name)
    assert (spec.search.trials, progress["unet"].complete) == (3, 3)
    assert join_study(by_name, train=pretend).progress["unet"].complete == 3  # nothing left to do


def test_a_tracking_server_that_was_away_costs_no_trial(settings, write, monkeypatch):
    write(settings, trials=2)
    calls = []

    def away():
        calls.append(1)
        if len(calls) > 1:  # it was there at the start
            raise InputError("tracking server http://x: does not answer")

    monkeypatch.setattr(study_module.tracking, "check_tracking_server", away)
    result = run_study(settings, train=pretend)
    assert {one.complete for one in result.progress.values()} == {2}
    client = MlflowClient()
    assert sum(len(_children(client, run.info.run_id)) for run in _children(client, result.run_id)) == 0
    monkeypatch.setattr(study_module.tracking, "check_tracking_server", lambda: None)
    report_study(settings)
    report_study(settings)  # a second time adds nothing
    assert sum(len(_children(client, run.info.run_id)) for run in _children(client, result.run_id)) == 4


def _statuses(client, result):
    return {client.get_run(run_id).info.status for run_id in (result.run_id, *result.run_ids.values())}


def test_a_report_in_between_leaves_the_runs_as_they_are(settings, write):
    client, seen, calls = MlflowClient(), [], []

    def train(one, *, on_epoch):
        calls.append(one)
        if len(calls) in (2, 3):  # from another terminal, when there is a trial to tell of
            seen.append(_statuses(client, report_study(settings)))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pretend(one, on_epoch=on_epoch)

    write(settings, trials=3, architectures=["unet"])
    with pytest.raises(KeyboardInterrupt):
        run_study(settings, train=train)
    assert _statuses(client, report_study(settings)) == {"KILLED"}
    result = resume_study(settings, train=train)
    assert seen == [{"RUNNING"}, {"RUNNING"}]
    assert _statuses(client, result) == {"FINISHED"}
    assert _statuses(client, report_study(settings)) == {"FINISHED"}


def test_no_complete_trial_is_a_line(settings, write):
    def fails(one, *, on_epoch):
        raise InputError("the loss became nan")

    write(settings, max_failed=2)
    with pytest.raises(InputError, match=r"study small: found no complete trial among 4, .*: the loss became nan"):
        run_study(settings, train=fails)
    client = MlflowClient()
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert len(runs) == 1 + 2 + 4  # the study's, the architectures' and the trials'
    assert {run.info.status for run in runs} == {"FAILED"}


def test_cases_that_are_not_there_fail_no_trial(settings, write):
    """A worker without the data would give up every architecture for all the others."""
    write(settings, name="without", base={"data": "nosuch"})
    with pytest.raises(InputError, match="nosuch: no such folder; expected cases"):
        run_study(settings, train=pretend)
    assert optuna.get_all_study_names(settings.storage) == []
    Path("cases/case_00000").mkdir(parents=True)
    Path("cases/case_00000/imaging.nii.gz").touch()
    write(settings, name="with", trials=1, base={"data": "cases"})
    run_study(settings, train=pretend)
    shutil.rmtree("cases")  # another machine
    for go_on in (resume_study, join_study):
        with pytest.raises(InputError, match="cases: no such folder"):
            go_on(dataclasses.replace(settings, study="with"), train=pretend)


def test_a_name_with_other_settings_is_refused(settings, write):
    write(settings, trials=1)
    run_study(settings, train=pretend)
    write(settings, seed=9, sampler="QMCSampler")
    with pytest.raises(InputError, match=r"study small exists with other settings \(sampler, seed\)"):
        run_study(settings, train=pretend)


def test_the_command_line(settings, write):
    write(settings, base={"image_size": 100, "epochs": 1}, max_failed=1)
    options = ["--storage", settings.storage, "--output", settings.output, "--num_processes", "1"]
    said = CliRunner().invoke(cli.main, ["study", "run", settings.study, *options])
    assert said.exit_code == 1
    assert "image_size: found 100, expected a multiple of 16 for depth 4" in said.output
    said = CliRunner().invoke(cli.main, ["study", "status", "small", *options])
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[1].split() == ["unet", "0", "0", "1", "0", "0", "0.0", "-"]
    said = CliRunner().invoke(cli.main, ["study", "--study", "nosuch.yaml", *options])  # as `mlflow run -P study=...`
    assert "nosuch.yaml: cannot be read" in said.output


def test_a_tiny_study_of_real_trainings(settings, document, tmp_path):
    """Two architectures, two trials each, on six phantom cases, from the command line to `train --config`'s file."""
    write_phantoms(tmp_path / "cases", 6, num_slices=6, size=64)
    base = {**document["base"], "epochs": 2, "steps_per_epoch": 3, "data": "cases", "prepared": "prepared"}
    space = {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    content = {**document, "trials": 2, "base": {**base, "batch_size": 4}, "space": space}
    Path(settings.study).write_text(yaml.safe_dump(content))
    options = ["--storage", settings.storage, "--output", settings.output, "--num_processes", "1"]
    said = CliRunner().invoke(cli.main, ["study", "run", settings.study, *options])
    assert said.exit_code == 0, said.output
    rows = _rows(Path(settings.output) / "small/trials.csv")
    assert [(row["architecture"], row["trial"], row["state"], row["epochs"]) for row in rows] == [
        (architecture, trial, "COMPLETE", "2") for architecture in ("unet", "attention_unet") for trial in "01"
    ]
    assert len({row["num_parameters"] for row in rows}) == 2
    assert all(float(row["training_minutes"]) > 0 for row in rows)
    best = max(rows, key=lambda row: float(row["val_foreground_iou"]))
    configuration = TrainSettings.from_mapping(
        yaml.safe_load((Path(settings.output) / "small/best.yaml").read_text())
    )
    assert configuration.architecture == best["architecture"]
    assert str(configuration.learning_rate) == best["learning_rate"]
    # the test patient is in no table: six patients are four for training, one for validation and one for test
    cases = {row["case"] for row in _rows(Path(settings.output) / "small/best_cases.csv")}
    (split,) = (tmp_path / "prepared").glob("*/splits/*.json")
    assert cases == set(json.loads(split.read_text())["validation"])


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trial_running(settings, document):
    settings = dataclasses.replace(settings, heartbeat_s=1, grace_s=4)
    begin(settings, {**document, "trials": 2, "architectures": ["unet"]})
    worker = start_worker(settings, seconds=600)

    def states():
        return [trial.state for trial in optuna.load_study(study_name="small/unet", storage=settings.storage).trials]

    wait_until(lambda: TrialState.RUNNING in states(), seconds=120, pause=0.1)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert TrialState.RUNNING in states()
    time.sleep(5)
    result = resume_study(settings, train=pretend)
    # stopped, killed, the killed one's retry, and one more
    assert states() == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    trials = optuna.load_study(study_name="small/unet", storage=settings.storage).trials
    assert trials[2].params == trials[1].params or not trials[1].params
    assert result.progress["unet"].lost == 2
    assert result.progress["unet"].complete == 2
