"""Storages that are there, and what is said of those that are not."""

import dataclasses

import pytest

from kits_ml.errors import InputError
from kits_ml.studies import storage
from kits_ml.studies.study import resume_study, run_study, study_status
from tests.studies.conftest import pretend


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"study": "nosuch.yaml"}, "nosuch.yaml: cannot be read"),
        ({"study": "nosuch"}, "study nosuch: not in sqlite:///"),
        ({"storage": "sqlite:////nowhere/optuna.db"}, "storage sqlite:////nowhere/optuna.db: does not answer"),
        ({"storage": "postgresql://u:secret@127.0.0.1:9/x"}, "postgresql://u:***@127.0.0.1:9/x: does not answer"),
        ({"storage": "nosuch://x"}, "storage nosuch://x: no database that is known"),
        ({"storage": "optuna"}, "storage optuna: no URL"),
    ],
)
def test_what_is_not_there_gets_one_line(options, message, settings, write):
    write(settings)
    changed = dataclasses.replace(settings, **options)
    with pytest.raises(InputError) as caught:
        resume_study(changed, train=pretend)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_status_of_a_study_that_is_not_there_is_a_line_and_makes_no_file(settings, write, tmp_path):
    write(settings)
    with pytest.raises(
        InputError, match=r"study small: not in sqlite:///.*optuna.db, expected one of: none is there"
    ):
        study_status(settings)
    new = tmp_path / "new"
    for changes in (
        {"storage": f"sqlite:///{new}"},
        {"storage": f"sqlite:///{new}", "study": "small"},
        {"storage": str(new), "storage_class": "JournalFileBackend"},
    ):
        changed = dataclasses.replace(settings, **changes)
        with pytest.raises(InputError, match=r"study small: not in .*/new, expected one of: none is there"):
            study_status(changed)
    assert not new.exists()


def test_a_proxy_that_does_not_answer_gets_one_line(settings, write, monkeypatch):
    monkeypatch.setattr(storage, "CONNECT_TIMEOUT_S", 0.2)
    write(settings)
    changed = dataclasses.replace(settings, storage="127.0.0.1:9", storage_class="GrpcStorageProxy")
    with pytest.raises(InputError, match=r"storage 127.0.0.1:9: cannot be opened \(GRPC connection timeout\)"):
        run_study(changed, train=pretend)


def test_a_journal_says_what_is_lost(settings, write, tmp_path, caplog):
    write(settings, trials=1)
    journal = dataclasses.replace(settings, storage=str(tmp_path / "j.log"), storage_class="JournalFileBackend")
    result = run_study(journal, train=pretend)
    assert {one.complete for one in result.progress.values()} == {1}
    assert "JournalFileBackend has no heartbeat" in caplog.text
