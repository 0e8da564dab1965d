"""A real HTTP server on this machine that misbehaves as told."""

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FileServer:
    """Serves `files` (bytes by path), with ranges and ETags, unless `plans` (a list by path) says otherwise.

    A plan is a function of the request handler and the file; each request to its path takes the next one. `requests`
    keeps (path, headers) of every request, `num_bytes_sent` the body bytes by path.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.plans: dict[str, list[Callable]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.num_bytes_sent: dict[str, int] = {}
        self.bytes_per_s: float | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # so that closing waits for them: no thread outlives its test
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def total_bytes_sent(self) -> int:
        return sum(list(self.num_bytes_sent.values()))

    def headers_of(self, path: str) -> list[dict[str, str]]:
        return [headers for requested, headers in self.requests if requested == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                body = server.files.get(self.path)
                plans = server.plans.get(self.path)
                if plans:
                    plans.pop(0)(self, body)
                elif body is None:
                    self.answer(404, b"not here")
                else:
                    self.serve(body)

            def serve(self, body, *, cut_after=None, etag=None):
                """What a good server does: a range where one is asked for; `cut_after` so many bytes it hangs up."""
                etag = etag or f'"{hash(body) & 0xFFFFFFFF:08x}"'
                asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if asked and self.headers.get("If-Range", etag) == etag:
                    start = int(asked[1])
                    if start >= len(body):
                        self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                        return
                    content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    headers = {"ETag": etag, "Content-Range": content_range}
                    self.answer(206, body[start:], headers, cut_after=cut_after)
                else:
                    self.answer(200, body, {"ETag": etag}, cut_after=cut_after)

            def answer(self, status, body, headers=None, *, length=None, cut_after=None):
                self.send_response(status)
                length = len(body) if length is None else length
                for name, value in ({"Content-Length": str(length), "Connection": "close"} | (headers or {})).items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.send(body[:cut_after])

            def send(self, body):
                step = 1 << 14
                try:
                    for start in range(0, len(body), step):
                        piece = body[start : start + step]
                        sent = server.num_bytes_sent  # counted first: who has read the last piece may look at once
                        sent[self.path] = sent.get(self.path, 0) + len(piece)
                        self.wfile.write(piece)
                        if server.bytes_per_s:
                            time.sleep(len(piece) / server.bytes_per_s)
                except OSError:
                    pass  # the client hung up

            def log_message(self, *args):
                pass

        return Handler


@pytest.fixture
def file_server():
    server = FileServer()
    yield server
    server.close()
