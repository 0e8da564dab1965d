"""Confirming: every fold and seed once, the winner by validation patients, compared on test patients."""

import csv
import dataclasses
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import filelock
import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from kits_ml.config import ConfirmSettings, StudySettings
from kits_ml.errors import InputError, OtherTrainingError, StoppedError
from kits_ml.studies import confirm as confirming
from kits_ml.studies.compared import outdated
from kits_ml.studies.study import report_study, run_study
from tests.studies.conftest import pretend


def _cases(names, dice):
    scores = SimpleNamespace(dice=dice, iou=dice / 2, surface_dice=float("nan"))
    return [SimpleNamespace(case=name, regions={"kidney": scores, "tumour": scores}) for name in names]


@pytest.fixture
def studied(settings, document) -> ConfirmSettings:
    """A study with a trial of each architecture, to be confirmed over two folds and two seeds."""
    Path(settings.study).write_text(yaml.safe_dump({**document, "trials": 1}))
    run_study(settings, train=pretend)
    return ConfirmSettings(**settings.to_dict(), confirm_folds=2, confirm_seeds=2)


def _rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_fold_and_seed_once_and_the_winner_by_validation(studied, monkeypatch):
    trained, registered = [], []

    def run(one):
        if (one.architecture, one.fold) == ("unet", 1) and len(trained) < 4:
            raise InputError("the loss became nan")
        trained.append((one.architecture, one.fold, one.seed))
        # on validation attention_unet is ahead, on test unet; neither register nor another split
        assert (one.register, one.num_folds) == (False, 2)
        validation, test = {"unet": (0.5, 0.9), "attention_unet": (0.6, 0.1)}[one.architecture]
        scores = {"validation": _cases([f"v{one.fold}"], validation + one.fold / 100), "test": _cases(["t"], test)}
        return SimpleNamespace(run_id=f"{one.architecture}{one.fold}{one.seed}", scores=scores)

    def register(winner, settings):
        registered.append(winner["run_id"])
        return None, None

    monkeypatch.setattr(confirming, "register_winner", register)
    monkeypatch.setattr(confirming, "report_study", lambda settings, compared: None)
    first = confirming.confirm(studied, run=run)
    assert first.failures == {"unet_fold1_seed0": "the loss became nan"}
    second = confirming.confirm(studied, run=run)  # only what is missing
    expected = {(name, fold, seed) for name in ("unet", "attention_unet") for fold in (0, 1) for seed in (0, 1)}
    assert len(trained) == 8
    assert set(trained) == expected
    assert second.mean_dice == pytest.approx({"attention_unet": 0.605, "unet": 0.505})
    assert list(second.mean_dice) == ["attention_unet", "unet"]
    assert registered[-1] == "attention_unet10"  # the better fold, its first seed
    assert second.compared is None  # one test patient is no comparison
    rows = _rows(second.folder / "test.csv")
    assert len(rows) == 8 * 2 * 2  # trainings, regions, metrics that are defined
    assert {row["metric"] for row in rows} == {"dice", "iou"}
    assert {row["score"] for row in rows if row["algorithm"] == "unet" and row["metric"] == "dice"} == {"0.9"}


def _as_mlflow_runs(one):
    """A training that leaves a run with its cost; attention_unet is worse on each of twelve test patients."""
    worse = {"unet": 0.0, "attention_unet": 0.2}[one.architecture]
    with mlflow.start_run() as run:
        mlflow.log_metrics({"num_parameters": 100 + one.fold, "training_minutes": 2.0, "prediction_seconds": 0.5})
    dice = 0.9 - worse - np.linspace(0, 0.3, 12) * (1 + worse)
    test = [case for number, value in enumerate(dice) for case in _cases([f"t{number}"], float(value))]
    return SimpleNamespace(
        run_id=run.info.run_id, scores={"validation": _cases([f"v{one.fold}"], 0.9 - worse), "test": test}
    )


def test_the_page_of_the_study_gives_the_answer(studied, monkeypatch):
    monkeypatch.setattr(confirming, "register_winner", lambda *_: (None, None))
    studied = dataclasses.replace(studied, confirm_seeds=1)
    found = confirming.confirm(studied, run=_as_mlflow_runs)
    answer = "Mean Dice of kidney and tumour, against unet with 12 patients: attention_unet is worse."
    assert found.compared.verdict.headline == answer
    folder = found.folder.parent
    page = (folder / "study.html").read_text()
    assert f'<p class="verdict">{answer}' in page
    for text in ("compared on 12 test patients", "Patient by patient", "Tuning curves", "prediction, s a case"):
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert _rows(folder / "confirmed/costs.csv") == [
        {"algorithm": "unet", "num_parameters": "100.5", "gflops": "", "training_minutes": "2.0"}
        | {"prediction_seconds": "0.5"},
        {"algorithm": "attention_unet", "num_parameters": "100.5", "gflops": "", "training_minutes": "2.0"}
        | {"prediction_seconds": "0.5"},
    ]
    client = MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    (study,) = [run for run in client.search_runs(experiments) if run.data.tags.get("study") == "small"]
    artifacts = {one.path for one in client.list_artifacts(study.info.run_id)}
    assert {"study.html", "confirmed", "comparison"} <= artifacts
    # a study that is reported again keeps its answer
    (folder / "study.html").unlink()
    report_study(studied)
    page = (folder / "study.html").read_text()
    assert answer in page
    assert "The search went on after the comparison" not in page


def test_another_best_trial_is_not_the_one_that_was_confirmed(tmp_path):
    runs = tmp_path / "confirmed/runs"
    runs.mkdir(parents=True)
    for name in ("unet", "nnunet"):
        record = {"algorithm": name, "settings": {"epochs": 3, "depth": 2, "learning_rate": 0.01}}
        (runs / f"{name}_fold0_seed0.json").write_text(json.dumps(record))
    best = {
        "unet": SimpleNamespace(params={"learning_rate": 0.01, "depth": 2}),
        "nnunet": SimpleNamespace(params={"learning_rate": 0.02, "depth": 2}),
        "dense_unet": SimpleNamespace(params={"depth": 3}),  # has no complete training
    }
    assert outdated(tmp_path, best) == ["nnunet"]


def test_a_split_file_gives_the_folds(settings, document, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    base = {**document["base"], "split_file": str(path)}
    Path(settings.study).write_text(yaml.safe_dump({**document, "trials": 1, "base": base}))
    run_study(settings, train=pretend)
    found = confirming.results_of(settings)
    wanted = ConfirmSettings(**settings.to_dict(), confirm_folds=2, confirm_seeds=2)
    planned = confirming._plan(found, wanted)
    assert len(planned) == 2 * 2 * 2  # architectures, folds, seeds
    assert {(one.split_file, one.num_folds, one.fold) for one in planned.values()} == {
        (str(path), 0, 0),
        (str(path), 0, 1),
    }
    with pytest.raises(
        InputError, match=r"confirm_folds: found 3, expected at most the 2 of split_file .*folds.json"
    ):
        confirming.confirm(dataclasses.replace(wanted, confirm_folds=3), run=None)
    path.write_text(json.dumps({"train": ["a"], "val": ["b"]}))  # has no folds: seeds alone
    planned = confirming._plan(found, wanted)
    assert sorted(planned) == [f"{name}_fold0_seed{seed}" for name in ("attention_unet", "unet") for seed in (0, 1)]


def _trained(one):
    scores = {"validation": _cases(["v"], 0.5), "test": _cases(["t"], 0.5)}
    return SimpleNamespace(run_id=one.run_name, scores=scores)


def _stopped(found, studied, run):
    """Message and exit code; the error itself would keep a training's lock."""
    try:
        confirming._train_all(found, studied, run=run)
    except StoppedError as error:
        return str(error), error.exit_code


def test_a_training_that_was_stopped_goes_on(studied):
    begun = []

    def run(one):
        begun.append(one)
        if len(begun) == 1:
            Path(one.checkpoints, "r").mkdir(parents=True)
            raise StoppedError("stopped by Ctrl-C; to go on: with --resume true", signal_number=2)
        return _trained(one)

    found = confirming.results_of(studied.select(StudySettings))
    name = next(iter(confirming._plan(found, studied)))
    assert _stopped(found, studied, run) == (f"stopped by Ctrl-C in {name}; the same command goes on", 130)
    records, failures = confirming._train_all(found, studied, run=run)
    assert (len(records), failures) == (8, {})
    assert [one.run_name for one in begun if one.resume] == [name]
    assert begun[1] == dataclasses.replace(begun[0], resume=True)
    assert len({one.checkpoints for one in begun}) == 8  # each has its own
    assert not list(Path(studied.output, "small.checkpoints").iterdir())
    # where checkpoints lie is not what a training is: nothing is done again
    assert confirming._train_all(found, studied, run=None) == (records, {})


def test_a_checkpoint_of_another_training_is_put_away(studied, caplog):
    found = confirming.results_of(studied.select(StudySettings))
    name = next(iter(confirming._plan(found, studied)))
    Path(studied.output, "small.checkpoints", name, "r").mkdir(parents=True)

    def run(one):
        if one.resume:
            raise OtherTrainingError("resume: run r has other settings: epochs 3 there, 4 here")
        return _trained(one)

    records, failures = confirming._train_all(found, studied, run=run)
    assert (len(records), failures) == (8, {})
    assert f"{name} starts anew: resume: run r has other settings" in caplog.text


def test_a_control_that_is_not_there_is_refused_before_the_trainings(studied):
    wanted = dataclasses.replace(studied, control="unett")
    with pytest.raises(
        InputError, match="control: 'unett' has no complete trial in study small; did you mean 'unet'"
    ):
        confirming.confirm(wanted, run=None)
    with pytest.raises(InputError, match=r"equivalence_margin: found 0.0, expected more than 0"):
        ConfirmSettings(study="small", equivalence_margin=0.0)


def test_memory_is_a_failure_and_a_fault_of_the_program_is_none(studied, monkeypatch):
    def run(one):
        if one.seed == 0:
            raise MemoryError
        raise KeyError("loss")

    with pytest.raises(KeyError):
        confirming.confirm(studied, run=run)

    def never(one):
        raise MemoryError

    with pytest.raises(InputError, match=r"no training came to something: .*'unet_fold0_seed0': 'MemoryError'"):
        confirming.confirm(studied, run=never)


def test_what_failed_is_tried_once_a_call_however_many_processes_share_it(studied):
    tried = []

    def run(one):
        tried.append(one.run_name)
        raise InputError("the loss became nan")

    found = confirming.results_of(studied.select(StudySettings))
    for _ in range(2):  # one process after the other comes to each training
        records, failures = confirming._train_all(found, studied, run=run)
        assert (records, set(failures.values())) == ([], {"the loss became nan"})
    assert len(tried) == len(set(tried)) == 8
    with pytest.raises(InputError, match="no training came to something"):
        confirming.confirm(studied, run=run)  # another call tries again
    assert len(tried) == 16


def test_a_tracking_server_that_is_away_ends_it_instead_of_failing_all(studied, monkeypatch):
    calls = []

    def run(one):
        calls.append(one)
        raise InputError("tracking server http://x: does not answer")

    def away():
        raise InputError("tracking server http://x: does not answer")

    monkeypatch.setattr(confirming, "check_tracking_server", away)
    with pytest.raises(InputError, match="does not answer"):
        confirming.confirm(studied, run=run)
    assert len(calls) == 1


def test_a_place_in_the_tree_is_made_up_for(studied, monkeypatch, caplog):
    monkeypatch.setattr(confirming, "register_winner", lambda *_: (None, None))
    monkeypatch.setattr(confirming, "report_study", lambda settings, compared: None)
    put_below = confirming.tracking.put_below

    def away(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(confirming.tracking, "put_below", away)
    monkeypatch.setattr(confirming, "compare_confirmed", lambda *_, **__: None)
    studied = dataclasses.replace(studied, confirm_seeds=1)
    found = confirming.confirm(studied, run=_as_mlflow_runs)
    client = MlflowClient()
    assert "mlflow.parentRunId" not in client.get_run(found.run_id).data.tags
    assert "the same command does it when it is started again" in caplog.text
    monkeypatch.setattr(confirming.tracking, "put_below", put_below)
    confirming.confirm(studied, run=None)
    assert "mlflow.parentRunId" in client.get_run(found.run_id).data.tags


def _record(architecture, dice_by_case):
    rows = [{"case": case, "metric": "dice", "score": dice} for case, dice in dice_by_case.items()]
    return {"algorithm": architecture, "rows": {"validation": rows}}


def test_architectures_are_ranked_by_the_patients_that_all_have():
    # the training with the hard patient failed for b: on the easy one a is better
    records = [_record("a", {"easy": 0.9}), _record("a", {"hard": 0.1}), _record("b", {"easy": 0.8})]
    assert confirming.rank(records) == pytest.approx({"a": 0.9, "b": 0.8})
    with pytest.raises(InputError, match="found no patient that all of a, b have"):
        confirming.rank([_record("a", {"easy": 0.9}), _record("b", {"hard": 0.8})])


def test_what_another_process_is_at_is_left_to_it(tmp_path):
    locks = tmp_path / "locks"
    held, may_end = threading.Event(), threading.Event()

    def another():
        with filelock.FileLock(locks / "b"):
            held.set()
            may_end.wait()

    locks.mkdir()
    thread = threading.Thread(target=another)
    thread.start()
    held.wait()
    found = []
    for name in confirming._not_at_work("abc", locks):
        found.append(name)
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(locks / name).acquire(timeout=0)
        if name == "c":
            threading.Timer(0.2, may_end.set).start()
    thread.join()
    assert found == ["a", "c", "b"]
