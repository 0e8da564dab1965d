"""Confirming: every fold and seed once, the winner by validation patients."""

import csv
import threading
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import yaml

from kits_ml.config import ConfirmSettings
from kits_ml.errors import InputError
from kits_ml.studies import confirm as confirming
from kits_ml.studies.study import run_study
from tests.studies.conftest import pretend


def _cases(names, dice):
    scores = SimpleNamespace(dice=dice, iou=dice / 2, surface_dice=float("nan"))
    return [SimpleNamespace(case=name, regions={"kidney": scores, "tumour": scores}) for name in names]


def test_each_fold_and_seed_once_and_the_winner_by_validation(settings, document, monkeypatch):
    Path(settings.study).write_text(yaml.safe_dump({**document, "trials": 1}))
    run_study(settings, train=pretend)
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

    monkeypatch.setattr(confirming, "register", lambda chosen: registered.append(chosen.run_id))
    changes = {"confirm_folds": 2, "confirm_seeds": 2}
    wanted = ConfirmSettings(**settings.to_dict(), **changes)
    first = confirming.confirm(wanted, run=run)
    assert first.failures == {"unet_fold1_seed0": "the loss became nan"}
    second = confirming.confirm(wanted, run=run)  # only what is missing
    expected = {(name, fold, seed) for name in ("unet", "attention_unet") for fold in (0, 1) for seed in (0, 1)}
    assert len(trained) == 8
    assert set(trained) == expected
    assert second.mean_dice == pytest.approx({"attention_unet": 0.605, "unet": 0.505})
    assert list(second.mean_dice) == ["attention_unet", "unet"]
    assert registered[-1] == "attention_unet10"  # the better fold, its first seed
    with (second.folder / "test.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8 * 2 * 2  # trainings, regions, metrics that are defined
    assert {row["metric"] for row in rows} == {"dice", "iou"}
    assert {row["score"] for row in rows if row["algorithm"] == "unet" and row["metric"] == "dice"} == {"0.9"}


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
