"""The real thing: `kits-ml serve` and `mlflow models serve` as processes, with a tiny registered network."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from kits_ml.data import images, volumes
from tests.conftest import body
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

#: Registers two versions of a network that calls bright pixels kidney; the first, half-bright ones tumour.
REGISTER = """
import tempfile
from pathlib import Path
from kits_ml import runtime
runtime.configure()
import keras, mlflow, numpy as np
from kits_ml.config import PreprocessingSettings
from kits_ml.inference.predictor import Predictor
from kits_ml.tracking import registry
from tests.conftest import body

image, _ = body()
for tumour in (100.0, -100.0):
    inputs = keras.Input((32, 32, 1))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Conv2D(3, 1)(inputs)))
    model.layers[1].set_weights([np.array([[[[0.0, 200.0, tumour]]]]), np.array([0.0, -80.0, -30.0])])
    with mlflow.start_run(), tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        Predictor(model, PreprocessingSettings(image_size=32)).save(folder)
        uri = registry.log_model(folder, input_example=image.astype(np.float32), spacing_mm=(3.0, 0.8, 0.8))
    version = mlflow.register_model(uri, "tiny").version
mlflow.MlflowClient().set_registered_model_alias("tiny", "champion", "1")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a registry, and the scan that the tests send."""
    folder = tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-c", REGISTER], cwd=folder, env=_environment(), check=True, timeout=600)
    image, _ = body(num_slices=12)
    volumes.write_image(folder / "scan.nii.gz", image, volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8)))
    return folder


def _environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    root = str(Path(__file__).parents[2])
    return {**kept, "PATH": path, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore", **changes}


@dataclass
class Running:
    process: subprocess.Popen
    url: str
    temporary: Path

    def post(self, scan: bytes, **params) -> requests.Response:
        return requests.post(f"{self.url}/v1/segment", data=scan, params=params, timeout=120)


def _start(project: Path, temporary: Path, *options: str) -> Running:
    command = [sys.executable, "-m", "kits_ml", "serve", "--model", "models:/tiny@champion", "--port", "0", *options]
    log = project / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=project, env=_environment(TMPDIR=str(temporary)), stderr=stream)
    wait_until(lambda: process.poll() is not None or "\nlistening on " in log.read_text(), seconds=300, pause=0.2)
    found = re.search(r"listening on (\S+)", log.read_text())
    assert found, log.read_text()
    running = Running(process, found[1], temporary)
    # the model is loaded, or could not be: both end the waiting
    wait_until(lambda: _is_ready(running) or "no new model" in log.read_text(), seconds=300, pause=0.2)
    assert _is_ready(running), log.read_text()
    return running


def _is_ready(running: Running) -> bool:
    return requests.get(f"{running.url}/ready", timeout=60).status_code == 200


@pytest.fixture(scope="module")
def running(project, tmp_path_factory) -> Iterator[Running]:
    temporary = tmp_path_factory.mktemp("served")
    found = _start(project, temporary, "--poll_seconds", "0.5", "--queue_size", "4")
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


@pytest.fixture(scope="module")
def scan(project) -> bytes:
    return (project / "scan.nii.gz").read_bytes()


def _files(running: Running) -> list[str]:
    return [path.name for path in running.temporary.rglob("*") if path.is_file() and path.name != "lock"]


def test_it_answers_on_the_scans_grid(running, project, scan, tmp_path):
    answer = running.post(scan)
    assert answer.status_code == 200, answer.text
    (tmp_path / "seg.nii.gz").write_bytes(answer.content)
    found = volumes.read_label_map(tmp_path / "seg.nii.gz")
    assert volumes.same_grid(found.geometry, images.read_image(project / "scan.nii.gz").geometry)
    assert set(np.unique(found.array)) == {0, 1, 2}
    assert running.post(scan, response="report").json()["volumes_ml"]["tumour"] > 0
    assert "niivue" in running.post(scan, response="page").text


def test_only_this_machine_can_reach_it(running):
    listening = [
        one.laddr.ip
        for one in psutil.Process(running.process.pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_ten_clients_one_of_whom_is_killed(running, scan, project):
    """And meanwhile another version becomes champion: nobody's request is dropped."""
    from mlflow import MlflowClient

    answers = []
    command = f"while :; do curl -s --data-binary @scan.nii.gz {running.url}/v1/segment -o /dev/null; done"
    with subprocess.Popen(["bash", "-c", command], cwd=project, start_new_session=True) as killed:

        def client() -> None:
            for _ in range(3):
                while (answer := running.post(scan)).status_code == 429:
                    time.sleep(0.05 * int(answer.headers["Retry-After"]))
                answers.append(answer)

        clients = [threading.Thread(target=client) for _ in range(9)]
        for one in clients:
            one.start()
        wait_until(lambda: len(answers) > 10, seconds=120)
        os.killpg(killed.pid, signal.SIGKILL)
        registry = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
        registry.set_registered_model_alias("tiny", "champion", "2")
        for one in clients:
            one.join(300)
    assert [one.status_code for one in answers] == [200] * 9 * 3
    wait_until(
        lambda: requests.get(f"{running.url}/ready", timeout=60).json()["model"] == "tiny/2", seconds=120, pause=0.2
    )
    by_version: dict[str, set[bytes]] = {}
    for one in [*answers, running.post(scan)]:
        by_version.setdefault(one.headers["Model-Version"], set()).add(one.content)
    assert set(by_version) == {"tiny/1", "tiny/2"}
    assert [len(contents) for contents in by_version.values()] == [1, 1]
    assert by_version["tiny/1"] != by_version["tiny/2"]
    assert _files(running) == []


def test_memory_stays_flat(running, scan):
    resident = []
    for _ in range(40):
        assert running.post(scan, response="all").status_code == 200
        resident.append(psutil.Process(running.process.pid).memory_info().rss)
    assert np.mean(resident[-10:]) < 1.05 * np.mean(resident[10:20])


def test_what_is_at_work_is_finished_when_it_is_told_to_stop(running, scan):
    found = []
    client = threading.Thread(target=lambda: found.append(running.post(scan, response="all").status_code))
    client.start()
    wait_until(lambda: "kits_ml_requests_in_house 1" in requests.get(f"{running.url}/metrics", timeout=60).text)
    running.process.send_signal(signal.SIGTERM)
    client.join(120)
    assert running.process.wait(120) == 0
    assert found == [200]
    assert list(running.temporary.iterdir()) == []


def test_an_unknown_model_gets_one_line(project):
    command = [sys.executable, "-m", "kits_ml", "serve", "--model", "models:/tiny@nobody", "--port", "0"]
    done = subprocess.run(
        command, cwd=project, env=_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert "models:/tiny@nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_mlflow_serves_the_same_model(project):
    address = f"sqlite:///{project / 'mlflow.db'}"
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tiny/1", "--env-manager", "local"]
    environment = _environment(MLFLOW_TRACKING_URI=address)
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=project,
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or _pings(port), seconds=300, pause=0.5)
        volume = images.read_image(project / "scan.nii.gz")
        content = {
            "inputs": volume.array.astype(float).tolist(),
            "params": {"orientation": "IPL", "spacing_mm": list(volume.spacing_mm)},
        }
        answer = requests.post(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps(content),
            headers={"Content-Type": "application/json"},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        found = np.array(answer.json()["predictions"])
        assert found.shape == volume.array.shape
        assert set(np.unique(found)) == {0, 1, 2}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _pings(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
