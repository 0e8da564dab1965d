"""The house is bounded, time is limited, and who leaves frees the place."""

import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from kits_ml.serving.leftovers import own_folder, remove_leftovers
from kits_ml.serving.limits import Limits
from kits_ml.serving.reader import Reader
from tests.serving.conftest import Bright, nifti, scan, serving
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> bytes:
    return nifti(scan(), folder=tmp_path_factory.mktemp("body"))


@pytest.fixture(scope="module")
def small(temporary):
    """A house of three."""
    with serving(temporary, queue_size=3, timeout_seconds=60.0, upload_seconds=60.0) as found:
        yield found


@pytest.fixture
def held(small):
    """The small house, its network waiting; afterwards idle and empty."""
    wait_until(lambda: small.service.jobs.num_in_house == 0)
    small.network.may_go_on.clear()
    small.network.at_work.clear()
    timeout = small.service.jobs.timeout_seconds
    yield small
    small.service.jobs.timeout_seconds = timeout
    small.network.may_go_on.set()
    wait_until(lambda: small.service.jobs.num_in_house == 0)
    assert small.files() == []


def _open(served, body: bytes, *, sent: int | None = None, length: int | None = None) -> socket.socket:
    """A client that sends so much of the body and waits."""
    host, port = served.url.removeprefix("http://").rstrip("/").split(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    client.sendall(head.encode() + body[:sent])
    return client


def _in_house(served) -> int:
    return served.service.jobs.num_in_house


def test_a_full_house_says_when_to_come_again(held, body):
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(held.post, body) for _ in range(3)]
        wait_until(lambda: _in_house(held) == 3 and held.network.at_work.is_set())
        started = time.monotonic()
        answer = held.post(body)
        assert answer.status_code == 429
        assert answer.json()["detail"] == "3 scans are here already, which is the most"
        assert int(answer.headers["Retry-After"]) >= 1
        assert requests.get(f"{held.url}health", timeout=5).status_code == 200
        assert requests.get(f"{held.url}ready", timeout=5).status_code == 200  # it answers, if only with 429
        assert time.monotonic() - started < 5
        held.network.may_go_on.set()
        assert [one.result().status_code for one in waiting] == [200, 200, 200]
    assert held.post(body).status_code == 200


def test_scans_are_done_one_after_the_other(held, body):
    begun = held.network.num_begun
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(held.post, body) for _ in range(2)]
        wait_until(lambda: _in_house(held) == 2 and held.network.at_work.is_set())
        assert held.network.num_begun == begun + 1
        held.network.may_go_on.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
    assert held.network.num_begun == begun + 2


def test_who_is_at_work_too_long_gets_504(held, body):
    held.service.jobs.timeout_seconds = 1.0
    answer = held.post(body)  # the network is never told to go on
    assert answer.status_code == 504
    assert answer.json()["detail"].startswith("not done within")
    held.service.jobs.timeout_seconds = 60.0
    held.network.may_go_on.set()
    assert held.post(body).status_code == 200


def test_who_waits_too_long_gets_503(held, body):
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(held.post, body)
        wait_until(held.network.at_work.is_set)
        held.service.jobs.timeout_seconds = 0.05
        second = held.post(body)
        assert second.status_code == 503
        assert second.json()["detail"].startswith("not begun within")
        assert "Retry-After" in second.headers
        held.network.may_go_on.set()
        assert first.result().status_code == 200  # its limit is that of when it came


def test_who_leaves_while_at_work_frees_the_network(held, body):
    client = _open(held, body)
    wait_until(held.network.at_work.is_set)
    client.close()
    wait_until(lambda: _in_house(held) == 0)  # though the network was never told to go on
    assert held.files() == []
    text = requests.get(f"{held.url}metrics", timeout=5).text
    assert 'kits_ml_requests_total{route="/v1/segment",status="499"}' in text


def test_who_leaves_while_waiting_is_never_begun(held, body):
    begun = held.network.num_begun
    first = _open(held, body)
    wait_until(held.network.at_work.is_set)
    second = _open(held, body)
    wait_until(lambda: _in_house(held) == 2)
    second.close()
    wait_until(lambda: _in_house(held) == 1)
    held.network.may_go_on.set()
    assert first.recv(100).startswith(b"HTTP/1.1 200")
    first.close()
    assert held.network.num_begun == begun + 1


def test_who_leaves_while_uploading_leaves_nothing(held, body):
    client = _open(held, body, sent=100)
    wait_until(lambda: _in_house(held) == 1 and held.files() != [])
    client.close()
    wait_until(lambda: _in_house(held) == 0)
    assert held.files() == []


def test_a_slow_upload_is_ended(held, body, monkeypatch):
    monkeypatch.setattr(held.service, "settings", dataclasses.replace(held.service.settings, upload_seconds=0.5))
    client = _open(held, body, sent=100)
    assert client.recv(100).startswith(b"HTTP/1.1 408")
    client.close()


def test_more_than_was_announced_is_not_taken(held, body):
    held.network.may_go_on.set()
    client = _open(held, body + b"GET /never HTTP/1.1\r\n", length=len(body))
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    client.close()


def test_a_job_that_hangs_is_bad_health(small, monkeypatch):
    monkeypatch.setattr(small.service.jobs, "seconds_at_work", lambda: 60.0 + 121)
    answer = requests.get(f"{small.url}health", timeout=5)
    assert answer.status_code == 503
    assert "restart the service" in answer.json()["detail"]


def test_a_reader_that_is_no_longer_waited_for_is_ended(tmp_path):
    """A pipe never ends, and so does reading from it."""
    os.mkfifo(tmp_path / "received")
    reader = Reader(Limits(upload_bytes=10, unpacked_bytes=10, num_voxels=10))
    reader.start()
    process = reader._process

    class Leaving:
        def check(self):
            raise KeyError("left")

    with pytest.raises(KeyError, match="left"):
        reader.read(tmp_path / "received", "gzip", Leaving())
    assert not process.is_alive()
    assert reader._process.is_alive()
    reader.close()


def test_what_a_killed_service_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hold = (
        "import sys, time\nfrom kits_ml.serving.leftovers import own_folder\n"
        "with own_folder() as folder:\n    (folder / 'scan').write_bytes(b'x')\n    print(folder, flush=True)\n"
        "    time.sleep(60)"
    )
    command = [sys.executable, "-c", hold]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        folder = tmp_path / killed.stdout.readline().strip()
        remove_leftovers(tmp_path)
        assert (folder / "scan").exists()  # its service lives
        assert folder.stat().st_mode & 0o077 == 0
        killed.kill()
    with own_folder() as own:
        assert list(tmp_path.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []


def test_a_new_champion_takes_over_in_mid_request(held, body):
    held.networks["models:/net/2"] = Bright(above=200)  # so that its answers differ
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(held.post, body, params={"response": "report"})
        wait_until(held.network.at_work.is_set)
        second = clients.submit(held.post, body, params={"response": "report"})
        wait_until(lambda: _in_house(held) == 2)
        held.address = "models:/net/2"
        assert held.service.champion.refresh()
        assert requests.get(f"{held.url}ready", timeout=5).json()["model"] == "net/2"
        held.network.may_go_on.set()
        before, after = first.result(), second.result()
    assert (before.headers["Model-Version"], after.headers["Model-Version"]) == ("net/1", "net/2")
    # kidney 2 x 7 x 9 above 100 HU, of which 8 above 200; the second model calls those 8 kidney and nothing else
    assert before.json()["counts"] == [1920 - 126, 118, 8]
    assert after.json()["counts"] == [1920 - 8, 8, 0]
    held.address = "models:/net/1"
    assert held.service.champion.refresh()


def test_a_champion_that_cannot_be_loaded_changes_nothing(held, body, caplog):
    held.network.may_go_on.set()
    held.address = "models:/net/77"
    assert not held.service.champion.refresh()
    answer = held.post(body)
    assert (answer.status_code, answer.headers["Model-Version"]) == (200, "net/1")
    assert 'kits_ml_model_loads_total{result="failed"} 1' in requests.get(f"{held.url}metrics", timeout=5).text
    held.address = "models:/net/1"
    assert held.service.champion.refresh()


def test_without_a_model_it_lives_but_is_not_ready(held, body):
    held.network.may_go_on.set()
    model, held.service.champion.current = held.service.champion.current, None
    assert requests.get(f"{held.url}health", timeout=5).status_code == 200
    for answer in (requests.get(f"{held.url}ready", timeout=5), held.post(body)):
        assert answer.status_code == 503
        assert answer.json()["detail"] == "no model is loaded yet; try again soon"
    held.service.champion.current = model
    assert held.post(body).status_code == 200


def test_many_clients_at_once_some_of_whom_leave(held, body):
    """Ten at a house of three: each gets its scan or 429, and comes again until it has it; one dies in the middle."""
    done = []

    def client(number: int) -> None:
        while (answer := held.post(body)).status_code == 429:
            time.sleep(0.02)
        done.append((number, answer.status_code, answer.content))

    dying = _open(held, body)
    wait_until(held.network.at_work.is_set)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(10)]
    for one in threads:
        one.start()
    wait_until(lambda: _in_house(held) == 3)
    dying.close()
    held.network.may_go_on.set()
    at_once = [_in_house(held) for _ in range(20)]
    for one in threads:
        one.join(30)
    assert sorted(number for number, _, _ in done) == list(range(10))
    assert {status for _, status, _ in done} == {200}
    assert len({content for _, _, content in done}) == 1
    assert max(at_once) <= 3
    assert _in_house(held) == 0
