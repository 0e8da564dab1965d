"""Who does not come to a request is hung up on; who is slow with one is not."""

import socket
import time
from urllib.parse import urlsplit

import pytest

from kits_ml.serving.protocol import ImpatientProtocol

PATIENCE_S = 0.4


@pytest.fixture
def connection(served, monkeypatch):
    monkeypatch.setattr(ImpatientProtocol, "patience_s", PATIENCE_S)
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as one:
        yield one


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


def test_silence(connection):
    assert _is_hung_up_on(connection)


def test_headers_without_end(connection):
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-")
    assert _is_hung_up_on(connection)


def test_the_body_of_a_refused_request_without_end(connection):
    connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
    assert b" 413 " in connection.recv(65536)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        _trickle(connection, 100)


def test_a_slow_body_is_waited_for(connection):
    connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n")
    _trickle(connection, 12)
    assert connection.recv(65536).split()[1] in (b"415", b"422")


def test_one_request_after_the_other(connection):
    for _ in range(3):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert b" 200 " in answer
        time.sleep(PATIENCE_S / 2)
