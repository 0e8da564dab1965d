"""PostgreSQL, an MLflow server and workers as processes of this machine, for tests and benchmarks of studies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kits_ml.config import StudySettings
from kits_ml.studies.study import run_study
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

WORKER = """
import sys, time
sys.path.insert(0, {root!r})
from kits_ml.config import StudySettings
from kits_ml.studies.study import join_study
from tests.studies.conftest import pretend

def slowly(settings, *, on_epoch):
    time.sleep({seconds})
    return pretend(settings, on_epoch=on_epoch)

join_study(StudySettings(**{settings!r}), train=slowly)
"""


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server on loopback, whose data lie in a folder.

    Raises:
        FileNotFoundError: no PostgreSQL on this machine.
    """
    binaries = _binaries()
    owner = {}
    if os.geteuid() == 0:  # initdb refuses root
        for one in (folder, *folder.parents):
            if not one.stat().st_mode & 0o001:  # others may not enter
                one.chmod(one.stat().st_mode | 0o011)
        shutil.chown(folder, "postgres")
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data, port = folder / "data", free_port()
    make = [str(binaries / "initdb"), "-D", str(data), "-U", "kits", "--auth=trust"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder, **owner)
    command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    command += ["-c", "listen_addresses=127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, **quiet, **owner)
    try:
        wait_until(lambda: listens(port), seconds=120, pause=0.1)
        yield f"postgresql+psycopg://kits@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _binaries() -> Path:
    folders = [Path(found).parent for found in [shutil.which("postgres")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    raise FileNotFoundError("no PostgreSQL here: apt-get install postgresql")


@contextlib.contextmanager
def tracking_server(folder: Path, database: str) -> Iterator[str]:
    """The URL of an MLflow server on loopback.

    Args:
        folder: gets artifacts and its log.
        database: URL of what it keeps runs in.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers, seconds=120, pause=0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def begin(settings: StudySettings, document: Mapping[str, Any]) -> None:
    """Makes the study as `study run` does, which is stopped in its first trial."""
    Path(settings.study).write_text(yaml.safe_dump(dict(document), sort_keys=False))
    with contextlib.suppress(KeyboardInterrupt):
        run_study(settings, train=_interrupt)


def _interrupt(settings, *, on_epoch):
    raise KeyboardInterrupt


def start_worker(settings: StudySettings, *, seconds: float) -> subprocess.Popen:
    """A worker in a process of its own, whose trainings only take a while."""
    code = WORKER.format(root=str(ROOT), seconds=seconds, settings=settings.to_dict())
    with worker_log(settings).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdout=log,
            stderr=log,
        )


def worker_log(settings: StudySettings) -> Path:
    """What all workers say."""
    return Path(settings.study).with_name("workers.log")
