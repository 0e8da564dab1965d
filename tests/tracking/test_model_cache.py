"""A remote model is fetched once and is whole; what was left behind goes."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import mlflow
import pytest

from kits_ml.errors import InputError
from kits_ml.tracking import addresses, model_cache
from tests.studies.processes import tracking_server
from tests.tracking.registry_cases import NAME, add_version
from tests.tracking.stores import tracked_in

DAY_S = 24 * 3600


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kits_ml" / "models"


def _put(content: str = "x"):
    def download(folder: Path) -> Path:
        (folder / "artifacts").mkdir()
        (folder / "artifacts" / "MLmodel").write_text(content)
        return folder / "artifacts"

    return download


def _refuse(folder: Path) -> Path:
    raise AssertionError("it is there")


def test_it_is_downloaded_once(cache):
    found = model_cache.fetch("a", _put("first"))
    assert found == cache / "a"
    assert model_cache.fetch("a", _refuse) == found
    assert (found / "MLmodel").read_text() == "first"
    assert [one.name for one in cache.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
def test_a_download_that_fails_leaves_nothing(cache, error):
    def download(folder: Path) -> Path:
        _put()(folder)
        raise error

    with pytest.raises(type(error)):
        model_cache.fetch("a", download)
    assert list(cache.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no files"):  # a store answers so for a place that it does not have
        model_cache.fetch("a", lambda folder: folder)
    assert list(cache.iterdir()) == []
    assert (model_cache.fetch("a", _put("again")) / "MLmodel").read_text() == "again"


def test_of_several_at_once_the_first_that_is_whole_counts_for_all(cache):
    barrier = threading.Barrier(4)
    found = []

    def download(folder: Path) -> Path:
        barrier.wait(timeout=30)  # nobody is done before all have begun
        return _put(threading.current_thread().name)(folder)

    def fetch() -> None:
        found.append((model_cache.fetch("a", download) / "MLmodel").read_text())

    threads = [threading.Thread(target=fetch, name=f"thread {index}") for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [one.name for one in cache.iterdir()] == ["a"]


def test_what_nobody_used_for_long_goes_when_something_is_fetched(cache):
    now = time.time()
    ages_days = {"old": 31, "new": 29, "used": 40, ".partial-killed": 2, ".partial-at-work": 0.5}
    for name, days in ages_days.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "MLmodel").touch()
        os.utime(cache / name, (now - days * DAY_S,) * 2)
    model_cache.fetch("used", _refuse)
    model_cache.fetch("another", _put())
    assert {one.name for one in cache.iterdir()} == {"new", "used", ".partial-at-work", "another"}


PROCESS = """
import os, sys
from pathlib import Path
from kits_ml.tracking import model_cache

def download(folder):
    (folder / "MLmodel").touch()
    return folder

found = {call}
assert (found / "MLmodel").exists()
print(found)
"""


@pytest.mark.parametrize("call", ["model_cache.fetch('a', download)", "model_cache.fetch_for_now(download)"])
def test_without_a_folder_of_the_user_it_goes_with_the_process(tmp_path, call):
    """A service in a container may have a home that cannot be written."""
    (tmp_path / "home").write_text("no folder")
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(call=call)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "temporary")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def server(tmp_path):
    """An MLflow server that hands out artifacts itself, as it does unless told otherwise."""
    with tracking_server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as url, tracked_in(url):
        yield url


@pytest.mark.slow
def test_a_server_that_hands_out_artifacts_is_asked_once_for_each_model(server, cache, tmp_path, monkeypatch):
    inside = tmp_path / "made" / "artifacts" / "model"
    inside.mkdir(parents=True)
    (inside / "model.json").write_text("{}")
    (tmp_path / "made" / "MLmodel").touch()
    with mlflow.start_run() as run:
        logged = mlflow.initialize_logged_model("model", source_run_id=run.info.run_id)
        mlflow.MlflowClient().log_model_artifacts(logged.model_id, str(tmp_path / "made"))
        mlflow.finalize_logged_model(logged.model_id, "READY")
        mlflow.log_outputs([mlflow.entities.LoggedModelOutput(logged.model_id, step=0)])
        version = mlflow.register_model(f"models:/{logged.model_id}", NAME).version
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", version)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = addresses.local_folder(f"models:/{NAME}@champion")
    assert folder.is_relative_to(cache)
    assert (folder / "model.json").read_text() == "{}"
    assert (addresses.mlflow_folder(f"models:/{NAME}/{version}") / "MLmodel").exists()
    (tmp_path / "artifacts").rename(tmp_path / "gone")  # nothing more can be downloaded
    for address in (f"models:/{NAME}/{version}", f"runs:/{run.info.run_id}/model", f"models:/{logged.model_id}"):
        assert addresses.local_folder(address) == folder
    assert len(list(cache.iterdir())) == 1
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def remote(client, cache, monkeypatch):
    """A registry whose versions lie in a bucket: `remote.place(1)`; `remote.asked` is what was downloaded."""

    class Remote:
        def __init__(self):
            self.asked: list[str] = []
            client.create_registered_model(NAME)
            for number in (1, 2):
                client.create_model_version(NAME, self.place(number))

        def place(self, number: int) -> str:
            return f"s3://bucket/model-{number}"

        def download(self, uri: str, dst_path: str | None = None) -> str:
            assert dst_path is not None, "a copy that nobody removes"
            self.asked.append(uri)
            inside = Path(dst_path) / "artifacts" / "model"
            inside.mkdir(parents=True)
            (inside / "model.keras").write_text(uri)
            return dst_path

    remote = Remote()
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", remote.download)
    return remote


def test_an_alias_that_moves_finds_the_other_version_and_each_is_fetched_once(client, remote, cache):
    found = []
    for number in ("1", "2", "1"):
        client.set_registered_model_alias(NAME, "champion", number)
        folder = addresses.local_folder(f"models:/{NAME}@champion")
        assert addresses.local_folder(f"models:/{NAME}/{number}") == folder
        found.append((folder / "model.keras").read_text())
    assert found == [remote.place(number) for number in (1, 2, 1)]
    assert remote.asked == [remote.place(1), remote.place(2)]
    assert len(list(cache.iterdir())) == 2


def test_a_store_that_fails_is_told_in_a_line_and_tried_again(remote, cache, monkeypatch):
    with monkeypatch.context() as patch:

        def fail(uri, dst_path):
            raise OSError("the bucket is gone\nsince long")

        patch.setattr(mlflow.artifacts, "download_artifacts", fail)
        with pytest.raises(InputError, match=rf"^model models:/{NAME}/1: not found \(the bucket is gone\)$"):
            addresses.local_folder(f"models:/{NAME}/1")
    assert list(cache.iterdir()) == []
    assert addresses.local_folder(f"models:/{NAME}/1").is_dir()


def test_what_is_local_is_not_copied(client, tmp_path, cache):
    add_version(tmp_path)
    found = addresses.local_folder(f"models:/{NAME}@challenger")
    assert found.is_relative_to(tmp_path)
    assert not cache.exists()


def test_a_run_gives_the_model_that_it_logged_last(client, cache, tmp_path):
    with mlflow.start_run() as run:
        for name in ("model", "model", "other"):
            logged = mlflow.initialize_logged_model(name, source_run_id=run.info.run_id)
            mlflow.finalize_logged_model(logged.model_id, "READY")
            mlflow.log_outputs([mlflow.entities.LoggedModelOutput(logged.model_id, step=0)])
            time.sleep(0.01)  # their times are milliseconds
            folder = Path(logged.artifact_location.removeprefix("file://"))
            folder.mkdir(parents=True)
            if name == "model":
                last = folder
    assert addresses.local_folder(f"runs:/{run.info.run_id}/model") == last
    assert not cache.exists()
