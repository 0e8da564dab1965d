"""Who does not come to a request, or does not read the answer, is hung up on; who is slow with one is not."""

import dataclasses
import socket
import time
from urllib.parse import urlsplit

import pytest

from kits_ml.serving.protocol import ImpatientProtocol
from tests.serving.conftest import REPORTING, nifti, scan, serving
from tests.waiting import wait_until

PATIENCE_S = 0.4
ANSWER_S = 2.0

#: Of an answer that fits into no buffer of the network: up to 4 MB on the server's side, and some of the client's.
PAGE_BYTES = 30_000_000


@pytest.fixture
def impatient(monkeypatch):
    """Makes the service impatient from here on, once what must not be hurried has been done."""
    return lambda: monkeypatch.setattr(ImpatientProtocol, "patience_s", PATIENCE_S)


@pytest.fixture
def connection(served):
    with _connect(served) as one:
        yield one


@pytest.fixture(scope="module")
def long_winded(temporary):
    """A service with a long page for every scan, and little time to read it."""
    reporting = dataclasses.replace(REPORTING, render_page=lambda *_, **__: "x" * PAGE_BYTES)
    with serving(temporary, reporting=reporting, upload_seconds=ANSWER_S) as served:
        yield served


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> bytes:
    return nifti(scan(), folder=tmp_path_factory.mktemp("body"))


def _connect(served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def _asking_for_a_page(body: bytes, header: bytes = b"") -> bytes:
    head = b"POST /v1/segment?response=page HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n"
    return head % (header, len(body)) + body


def _read(one: socket.socket, num_bytes: int) -> bytes:
    """So many bytes, or fewer where the other side closes."""
    found = bytearray()
    while len(found) < num_bytes and (part := one.recv(1 << 20)):
        found += part
    return bytes(found)


def _is_hung_up_on(one: socket.socket) -> bool:
    """Reads until the other side closes; a connection that stays open times out."""
    try:
        while one.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def _trickle(one: socket.socket, num_bytes: int) -> None:
    for _ in range(num_bytes):
        time.sleep(PATIENCE_S / 6)
        one.sendall(b"x")


def test_silence(served, impatient):
    impatient()
    with _connect(served) as one:
        assert _is_hung_up_on(one)


def test_headers_without_end(served, impatient):
    impatient()
    with _connect(served) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-")
        assert _is_hung_up_on(one)


def test_the_body_of_a_refused_request_without_end(connection, impatient):
    connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
    assert b" 413 " in connection.recv(65536)
    impatient()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        _trickle(connection, 100)


def test_a_slow_body_is_waited_for(served, connection, impatient):
    connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n")
    wait_until(lambda: served.service.jobs.num_in_house == 1)
    impatient()
    _trickle(connection, 12)
    assert connection.recv(65536).split()[1] in (b"415", b"422")


def test_one_request_after_the_other(served, connection):
    wait_until(lambda: len(served.connections) == 1)
    (protocol,) = served.connections
    assert protocol._patience is not None
    for _ in range(3):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            part = connection.recv(65536)
            assert part, "the server has hung up"
            answer += part
        assert b" 200 " in answer
        assert protocol._patience is None  # so it does not hang up


@pytest.mark.parametrize(("header", "num_requests"), [(b"", 1), (b"Connection: close\r\n", 1), (b"", 2)])
def test_an_answer_that_nobody_reads(long_winded, body, header, num_requests):
    """Whether the server waits for another request, closes after the answer, or has one more to give."""
    with _connect(long_winded) as one:
        one.sendall(_asking_for_a_page(body, header) * num_requests)
        wait_until(lambda: len(long_winded.connections) == 1)
        wait_until(lambda: not long_winded.connections)
        begun = _read(one, PAGE_BYTES)
    assert begun.startswith(b"HTTP/1.1 200 ")
    assert len(begun) < PAGE_BYTES


def test_an_answer_that_was_read_leaves_the_connection_open(long_winded, body):
    with _connect(long_winded) as one:
        wait_until(lambda: len(long_winded.connections) == 1)
        (protocol,) = long_winded.connections
        protocol.answer_s = 600  # however slowly this test reads
        one.sendall(_asking_for_a_page(body))
        head, _, begun = _read(one, PAGE_BYTES).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert len(begun) + len(_read(one, PAGE_BYTES - len(begun))) == PAGE_BYTES
        wait_until(lambda: protocol._reader_timer is None)  # so it does not hang up
        one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert _read(one, 1).startswith(b"HTTP/1.1 200 ")
