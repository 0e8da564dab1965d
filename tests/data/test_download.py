"""One file from a server that misbehaves."""

import datetime
import email.utils
import errno
import hashlib
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from kits_ml.data.download import Patience, StoppedError, UnreachableError, download
from kits_ml.data.partial import DamagedError, DiskFullError, Partial, Version
from kits_ml.errors import InputError

PATH = "/data/file.bin"
MAGIC = b"KITS"
BODY = MAGIC + bytes(range(256)) * 800  # 204,804 bytes
HALF = 100_000


def cut(after, **kwargs):
    return lambda handler, body: handler.serve(body, cut_after=after, **kwargs)


def answer(status, *, length=None, **headers):
    return lambda handler, body: handler.answer(status, body, headers, length=length)


def refuse(status, **headers):
    return lambda handler, body: handler.answer(status, b"sorry", headers)


def content(body, **headers):
    return lambda handler, _: handler.answer(200, body, headers)


def check_body(path: Path) -> None:
    if path.read_bytes() != BODY:
        raise DamagedError("found other bytes")


@pytest.fixture
def partial(tmp_path) -> Partial:
    return Partial(tmp_path / "file.part")


@pytest.fixture
def get(file_server, partial, tmp_path):
    """Downloads PATH with short waits; keyword arguments replace the usual ones."""
    file_server.files[PATH] = BODY

    def get(**changes):
        arguments = {
            "patience": Patience(timeout_s=5, num_retries=3, backoff_s=0.01),
            "magic": MAGIC,
            "check": check_body,
            "on_progress": lambda num_bytes, size: None,
            "stop": threading.Event(),
        }
        download(file_server.url + PATH, partial, **(arguments | changes))
        partial.publish(tmp_path / "folder" / "file.bin")
        assert (tmp_path / "folder" / "file.bin").read_bytes() == BODY
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    return get


def test_a_cut_connection_is_resumed_where_it_ended(file_server, get):
    file_server.plans[PATH] = [cut(HALF), cut(50_000)]
    get()
    first, second, third = file_server.headers_of(PATH)
    assert "range" not in first
    assert second["range"] == f"bytes={HALF}-"
    assert third["range"] == f"bytes={HALF + 50_000}-"
    assert second["if-range"] == third["if-range"]
    assert file_server.num_bytes_sent[PATH] == len(BODY)  # no byte twice


def test_another_call_resumes_what_an_earlier_one_left(file_server, get):
    file_server.plans[PATH] = [cut(HALF)]
    with pytest.raises(InputError, match=f"was cut; given up after 1 tries .* {HALF} of {len(BODY)} bytes are kept"):
        get(patience=Patience(num_retries=0, backoff_s=0))
    get()
    assert file_server.headers_of(PATH)[1]["range"] == f"bytes={HALF}-"
    assert file_server.num_bytes_sent[PATH] == len(BODY)


@pytest.mark.parametrize("url", [None, "http://elsewhere/"])
def test_bytes_without_a_record_or_of_another_address_are_not_used(file_server, partial, get, url):
    partial.path.write_bytes(b"x" * HALF)
    if url:
        record = {"url": url, "etag": None, "size": len(BODY), "sha256": None}
        partial.path.with_name("file.part.json").write_text(json.dumps(record))
    get()
    assert "range" not in file_server.headers_of(PATH)[0]


def test_all_bytes_from_before_a_kill_are_verified_without_another_request(file_server, partial, get):
    partial.restart(Version(url=file_server.url + PATH, etag=None, size=len(BODY), sha256=None))
    partial.path.write_bytes(BODY)
    get()
    assert file_server.requests == []


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_temporary_refusals_are_retried(file_server, get, status):
    file_server.plans[PATH] = [refuse(status)] * 2
    get()
    assert len(file_server.requests) == 3


def test_retry_after_is_honoured(file_server, get, caplog):
    caplog.set_level("INFO", logger="kits_ml")
    file_server.plans[PATH] = [refuse(503, **{"Retry-After": "1"})]
    start = time.monotonic()
    get()
    assert time.monotonic() - start >= 1  # the back-off alone would be 0.01 s
    assert "HTTP 503 Service Unavailable; trying again in 1.0 s" in caplog.text
    moment = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2))
    for text in ("7200", moment):
        file_server.plans[PATH] = [refuse(429, **{"Retry-After": text})]
        with pytest.raises(InputError, match=r"HTTP 429 .*come back in (7200|719.) s"):
            get()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_refusals_are_not_retried_and_name_the_address(file_server, get, status):
    file_server.plans[PATH] = [refuse(status)]
    with pytest.raises(InputError, match=rf"^{file_server.url}{PATH}: HTTP {status} .*expected the file"):
        get()
    assert len(file_server.requests) == 1


def test_retries_end(file_server, get):
    file_server.plans[PATH] = [refuse(500)] * 9
    with pytest.raises(InputError, match=r"HTTP 500 .*given up after 4 tries in a row without a new byte"):
        get()
    assert len(file_server.requests) == 4  # the first, and num_retries=3


def test_tries_that_bring_bytes_do_not_count(file_server, get):
    file_server.plans[PATH] = [cut(20_000)] * 8
    get()
    assert len(file_server.requests) == 9


def other_range(handler, body):
    handler.answer(206, body[5:], {"Content-Range": f"bytes 5-{len(body) - 1}/{len(body)}"})


@pytest.mark.parametrize(
    "plans",
    [
        [content(MAGIC + b"x" * (len(BODY) - len(MAGIC)))],  # damaged
        [cut(150_000), other_range],
        [content(BODY[:150_000], **{"Content-Length": str(len(BODY) + 7)}), refuse(416)],
    ],
)
def test_after_a_copy_of_no_use_tries_that_bring_bytes_do_not_count_either(file_server, get, plans):
    file_server.plans[PATH] = plans + [cut(20_000)] * 8
    get()
    assert len(file_server.requests) == len(plans) + 9


def test_beginnings_that_are_of_no_use_end(file_server, get):
    too_long = answer(200, length=len(BODY) + 7)
    file_server.plans[PATH] = [too_long, refuse(416)] * 9
    with pytest.raises(InputError, match=r"nothing after byte .*; given up after 4 beginnings that were of no use"):
        get()
    assert len(file_server.requests) == 8  # the first beginning, and num_retries=3


def test_a_server_without_ranges_starts_afresh(file_server, get):
    file_server.plans[PATH] = [cut(HALF), answer(200)]
    get()
    assert "range" in file_server.headers_of(PATH)[1]
    assert file_server.num_bytes_sent[PATH] == HALF + len(BODY)


def test_another_range_than_asked_for_is_not_appended(file_server, get):
    file_server.plans[PATH] = [cut(HALF), other_range]
    get()


@pytest.mark.parametrize("etag", ['"old"', 'W/"old"', None])
def test_two_versions_of_a_file_are_never_mixed(file_server, get, etag):
    old = MAGIC + b"o" * (len(BODY) - len(MAGIC))

    def another_range(handler, body):  # ignores If-Range, and has another version by now
        headers = {"ETag": 'W/"new"', "Content-Range": f"bytes {HALF}-{len(body) - 1}/{len(body)}"}
        handler.answer(206, body[HALF:], headers)

    file_server.plans[PATH] = [lambda handler, body: handler.answer(200, old, {"ETag": etag}, cut_after=HALF)]
    file_server.plans[PATH] += [another_range]
    get()
    assert file_server.headers_of(PATH)[1].get("if-range") == (etag if etag == '"old"' else None)  # no weak tag there


def test_if_range_makes_a_good_server_send_the_new_version(file_server, get):
    old = MAGIC + b"o" * (len(BODY) - len(MAGIC))
    file_server.plans[PATH] = [lambda handler, body: handler.serve(old, cut_after=HALF)]
    get()
    assert len(file_server.requests) == 2


def test_a_length_announced_too_long(file_server, get):
    file_server.plans[PATH] = [answer(200, length=len(BODY) + 7)]
    get()  # at the second try nothing is left: afresh
    file_server.plans[PATH] = [answer(200, length=len(BODY) + 7)] * 9
    with pytest.raises(InputError, match=f"cut; given up .* {len(BODY)} of {len(BODY) + 7} bytes are kept"):
        get()


def test_a_length_announced_too_short(file_server, get):
    file_server.plans[PATH] = [answer(200, length=len(BODY) - 7)]
    get()
    file_server.plans[PATH] = [answer(200, length=len(BODY) - 7)] * 2
    with pytest.raises(InputError, match="found other bytes; so were 2 copies in a row"):
        get()


def test_no_length_at_all(file_server, get):
    def chunked(handler, body):
        handler.answer(200, b"", {"Content-Length": None, "Transfer-Encoding": "chunked"})
        handler.send(b"%x\r\n%b\r\n" % (HALF, body[:HALF]) + b"%x\r\n%b\r\n" % (len(body) - HALF, body[HALF:]))
        handler.send(b"0\r\n\r\n")

    def chunked_and_cut(handler, body):
        handler.answer(200, b"", {"Content-Length": None, "Transfer-Encoding": "chunked"})
        handler.send(b"%x\r\n%b\r\n" % (HALF, body[:HALF]) + b"%x\r\n%b" % (len(body) - HALF, body[HALF:-9]))

    file_server.plans[PATH] = [answer(200, **{"Content-Length": None})]  # until the connection closes
    get()
    file_server.plans[PATH] = [chunked_and_cut, chunked]
    get()


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (content(b"<p>log in</p>", **{"Content-Type": "text/html; charset=utf-8"}), "web page"),
        (content(b"\n<!DOCTYPE html><html></html>"), "web page"),
        (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "Git LFS pointer"),
        (content(b"PK34 and so on"), r"begins with b'PK34 and', expected b'KITS'"),
    ],
)
def test_something_else_than_the_file_is_named_and_leaves_the_partial(file_server, partial, get, plan, found):
    file_server.plans[PATH] = [cut(HALF), plan]
    with pytest.raises(InputError, match=f"{PATH}: .*{found}"):
        get()
    assert partial.size == HALF
    get()


def test_hugging_face_tells_size_and_checksum_where_it_redirects(file_server, get):
    def redirect(sha256, size):
        headers = {"Location": "/storage/1", "X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(size)}
        return lambda handler, body: handler.answer(302, b"", headers)

    good = hashlib.sha256(BODY).hexdigest()
    file_server.files["/storage/1"] = BODY
    file_server.plans["/storage/1"] = [cut(HALF)]
    file_server.plans[PATH] = [redirect(good, len(BODY))] * 2
    get()
    assert file_server.headers_of("/storage/1")[1]["range"] == f"bytes={HALF}-"
    file_server.plans[PATH] = [redirect("0" * 64, len(BODY))] * 2
    with pytest.raises(InputError, match=f"found SHA-256 {good}, expected 0000"):
        get(check=lambda path: None)
    file_server.plans[PATH] = [redirect(good, len(BODY) + 1)] * 2
    with pytest.raises(InputError, match=f"storage offers {len(BODY)} bytes, the hub says {len(BODY) + 1}"):
        get()


def test_an_ordinary_etag_is_no_checksum(file_server, get):
    file_server.plans[PATH] = [answer(200, ETag=f'"{"0" * 64}"')]
    get()


def test_a_silent_server_is_given_up_and_asked_again(file_server, get):
    silent = threading.Event()

    def hangs(handler, body):
        handler.answer(200, body, cut_after=HALF)
        silent.wait()

    file_server.plans[PATH] = [lambda handler, body: silent.wait(), hangs]
    try:
        get(patience=Patience(timeout_s=1.5, num_retries=3, backoff_s=0.01))  # long enough for a busy machine
    finally:
        silent.set()
    assert len(file_server.requests) == 3
    assert file_server.headers_of(PATH)[2]["range"] == f"bytes={HALF}-"


def test_no_server_at_all(file_server, partial):
    with pytest.raises(UnreachableError, match=r"^http://127.0.0.1:1/x: .*refused.*given up after 2 tries"):
        download(
            "http://127.0.0.1:1/x",
            partial,
            patience=Patience(num_retries=1, backoff_s=0),
            magic=b"",
            check=check_body,
            on_progress=lambda num_bytes, size: None,
            stop=threading.Event(),
        )


def test_stop_keeps_the_bytes(file_server, partial, get):
    stop = threading.Event()
    file_server.plans[PATH] = [cut(HALF)]
    with pytest.raises(StoppedError):
        get(stop=stop, on_progress=lambda num_bytes, size: stop.set())
    assert 0 < partial.size <= HALF
    with pytest.raises(StoppedError):
        get(stop=stop)
    get()


def test_a_full_disk_is_named_and_the_bytes_kept(file_server, partial, get, monkeypatch):
    def full(num_bytes, size):
        if num_bytes >= HALF:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"file.part: the disk is full; what has come so far is kept"):
        get(on_progress=full)
    assert partial.size >= HALF
    usage = shutil.disk_usage(partial.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(DiskFullError, match=r"10 bytes free, .* needs \d+ more"):
        get()


def test_bytes_that_are_about_to_go_make_room(file_server, partial, get, monkeypatch):
    partial.path.write_bytes(b"x" * HALF)  # without a record: of no use
    usage = shutil.disk_usage(partial.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(BODY) - HALF - 1))
    with pytest.raises(DiskFullError, match=f"free, .* needs {len(BODY) - HALF} more"):
        get()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(BODY) - HALF))
    get()


def test_the_wait_doubles_and_is_half_chance():
    patience = Patience(backoff_s=1)
    for num_failures, longest in [(1, 1), (2, 2), (4, 8), (20, 60), (10**6, 60)]:
        assert longest / 2 <= patience.wait_s(num_failures) <= longest
