"""Downloading one file over HTTP, whichever way the connection fails: resumed, retried, whole at the end.

What has come so far lies in a partial file beside a small record of which version of which address it belongs to.
A process may be killed at any moment: the next call reads the record and asks for the rest only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import email.utils
import http.client
import logging
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from kits_ml.data.partial import DamagedError, DiskFullError, Partial, Version, disk_errors, sha256_of
from kits_ml.errors import InputError

_LOG = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 64
_LONGEST_WAIT_S = 60.0
#: Longer waits are said on screen (as a warning), so that nobody takes them for a hang.
_LONG_WAIT_S = 5.0
_LONGEST_RETRY_AFTER_S = 900.0
_TEMPORARY_STATUSES = {408, 425, 429}
#: A second complete but damaged copy means that the source is damaged: no third is asked for.
_MOST_DAMAGED = 2


class UnreachableError(InputError):
    """No connection to the server, however often it was tried."""


class StoppedError(Exception):
    """The caller asked to stop; what has come so far is kept."""


class _RetryError(Exception):
    """One try failed in a way that another may not."""

    def __init__(self, message: str, *, connected: bool = True, retry_after_s: float = 0.0, discarded: bool = False):
        super().__init__(message)
        self.connected = connected
        self.retry_after_s = retry_after_s
        self.discarded = discarded  # what had come was of no use: the next try begins another version


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server, and how often to come back.

    Attributes:
        timeout_s: seconds without a byte after which a connection is given up.
        num_retries: tries in a row without a new byte, after the first, before the file is given up; also beginnings
            that turned out to be of no use.
        backoff_s: wait before the first retry in seconds; doubles with each up to a minute, and half of it is chance.
    """

    timeout_s: float = 60.0
    num_retries: int = 8
    backoff_s: float = 1.0

    def wait_s(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row (1, 2, ...)."""
        longest = min(self.backoff_s * 2.0 ** min(num_failures - 1, 30), _LONGEST_WAIT_S)
        return longest * random.uniform(0.5, 1.0)


def download(
    url: str,
    partial: Partial,
    *,
    patience: Patience,
    magic: bytes,
    check: Callable[[Path], None],
    on_progress: Callable[[int, int | None], None],
    stop: threading.Event,
) -> None:
    """Brings a partial file to its verified end; a call that fails leaves what has come, for the next.

    Args:
        url: what to get; redirects are followed, and asked for again at every try (theirs run out).
        partial: where the bytes are collected. The caller makes sure that nobody else writes there.
        patience: timeouts and retries.
        magic: the bytes the file must begin with.
        check: reads the finished file, and raises `DamagedError` where it is not what it should be.
        on_progress: takes the bytes so far and the size, `None` where the server names none.
        stop: ends the download at the next byte or wait.

    Raises:
        InputError: refused by the server, something else than the file, or too many failures in a row.
        UnreachableError: no connection at all.
        DiskFullError: no room.
        StoppedError: `stop` was set.
    """
    num_failures = num_damaged = num_discarded = 0
    most_bytes = partial.size
    while True:
        if stop.is_set():
            raise StoppedError(url)
        try:
            with disk_errors(partial.path):
                version = _receive(url, partial, patience=patience, magic=magic, on_progress=on_progress, stop=stop)
                _verify(partial, version, check)
            return
        except DamagedError as error:
            partial.discard()
            num_damaged += 1
            if num_damaged == _MOST_DAMAGED:
                raise InputError(f"{url}: {error}; so were {num_damaged} copies in a row") from error
            failure = _RetryError(str(error), discarded=True)
        except _RetryError as error:
            failure = error
        if failure.discarded:
            num_discarded += 1
            most_bytes = 0
        num_failures = 1 if partial.size > most_bytes else num_failures + 1
        most_bytes = max(most_bytes, partial.size)
        if num_failures > patience.num_retries:
            raise _given_up(url, failure, f"{num_failures} tries in a row without a new byte", partial) from failure
        if num_discarded > patience.num_retries:  # each brought new bytes, and would for ever
            raise _given_up(url, failure, f"{num_discarded} beginnings that were of no use", partial) from failure
        wait_s = max(patience.wait_s(num_failures), failure.retry_after_s)
        level = logging.WARNING if wait_s >= _LONG_WAIT_S else logging.INFO
        _LOG.log(level, "%s: %s; trying again in %.1f s", url, failure, wait_s)
        if stop.wait(wait_s):
            raise StoppedError(url)


def _receive(
    url: str,
    partial: Partial,
    *,
    patience: Patience,
    magic: bytes,
    on_progress: Callable[[int, int | None], None],
    stop: threading.Event,
) -> Version:
    """One try: asks for what is missing and appends it."""
    known = partial.version(url)
    offset = partial.size if known else 0
    if known and known.size is not None and offset == known.size > 0:
        return known
    # Bytes as they are stored: a file packed once more on the way has other sizes, ranges and checksums.
    headers = {"Accept-Encoding": "identity", "User-Agent": "kits-ml"}
    if known and offset:
        headers["Range"] = f"bytes={offset}-"
        if known.etag and not known.etag.startswith("W/"):  # RFC 9110, 13.1.5: no weak tag in If-Range
            headers["If-Range"] = known.etag
    with (
        _network_errors(url, patience),
        requests.get(url, headers=headers, stream=True, timeout=patience.timeout_s) as response,
    ):
        if response.status_code == 416 and known:
            return _nothing_left(partial, known, offset, response)
        _check_status(url, response)
        version = _version(url, response)
        resumes = response.status_code == 206
        if resumes and not (known and known.fits(version) and _range_start(response) == offset):
            partial.discard()
            raise _RetryError("the server resumed another range or version than the one asked for", discarded=True)
        head = b"" if resumes else _checked_head(url, response, magic)
        # what has come is either gone on with or makes room
        remaining = 0 if version.size is None else version.size - partial.size
        _check_room(url, partial, remaining)
        if not resumes:
            partial.restart(version)
        _append(partial, version, response=response, head=head, on_progress=on_progress, stop=stop)
    if version.size is not None and partial.size < version.size:
        raise _RetryError("the connection was cut")
    return version


def _append(
    partial: Partial,
    version: Version,
    *,
    response: requests.Response,
    head: bytes,
    on_progress: Callable[[int, int | None], None],
    stop: threading.Event,
) -> None:
    with partial.path.open("ab") as stream:
        chunk = head or response.raw.read1(_CHUNK_BYTES, decode_content=False)
        while chunk:
            stream.write(chunk)
            stream.flush()
            on_progress(stream.tell(), version.size)
            if stop.is_set():
                raise StoppedError(version.url)
            chunk = response.raw.read1(_CHUNK_BYTES, decode_content=False)


def _nothing_left(partial: Partial, known: Version, offset: int, response: requests.Response) -> Version:
    """416: the server has no byte beyond the offset. Either the file is whole, or it is another file by now."""
    total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    if total and int(total[1]) == offset and (known.sha256 or known.size is None):
        return dataclasses.replace(known, size=offset)
    partial.discard()
    announced = "of unknown size" if known.size is None else f"of {known.size} bytes"
    message = f"the server announced a file {announced} and has nothing after byte {offset}"
    raise _RetryError(message, discarded=True)


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    found = f"HTTP {status} {response.reason or ''}".strip()
    if status in _TEMPORARY_STATUSES or status >= 500:
        retry_after_s = _retry_after_s(response.headers.get("Retry-After", ""))
        if retry_after_s > _LONGEST_RETRY_AFTER_S:
            raise InputError(f"{url}: {found}, the server asks to come back in {retry_after_s:.0f} s; run again then")
        raise _RetryError(found, retry_after_s=retry_after_s)
    raise InputError(f"{url}: {found}, expected the file; check the base URL")


def _retry_after_s(text: str) -> float:
    if text.strip().isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def _version(url: str, response: requests.Response) -> Version:
    linked_etag = linked_size = None
    for hop in (*response.history, response):  # Hugging Face describes the file where it redirects to its storage
        linked_etag = linked_etag or hop.headers.get("X-Linked-ETag")
        linked_size = linked_size or hop.headers.get("X-Linked-Size")
    hexadecimal = re.fullmatch(r'(?:W/)?"?([0-9a-fA-F]{64})"?', linked_etag or "")
    if response.status_code == 206:
        total = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        size = int(total[1]) if total else None
    else:
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
    if linked_size and linked_size.isdigit():
        if size is not None and size != int(linked_size):
            raise DamagedError(f"the storage offers {size} bytes, the hub says {linked_size}")
        size = int(linked_size)
    return Version(
        url=url, etag=response.headers.get("ETag"), size=size, sha256=hexadecimal[1].lower() if hexadecimal else None
    )


def _range_start(response: requests.Response) -> int | None:
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(start[1]) if start else None


def _checked_head(url: str, response: requests.Response, magic: bytes) -> bytes:
    """The first bytes, looked at before anything is written: a page instead of the file is named as one."""
    head = response.raw.read(_HEAD_BYTES, decode_content=False)
    content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    start = head.lstrip().lower()
    if content_type in ("text/html", "application/xhtml+xml") or start.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{url}: found a web page (HTML), expected the file; check the base URL, log-in and proxy")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{url}: found a Git LFS pointer, expected the file itself; use the server's media address")
    if head and not head.startswith(magic):
        raise InputError(f"{url}: begins with {head[:8]!r}, expected {magic!r}")
    return head


def _check_room(url: str, partial: Partial, num_bytes: int) -> None:
    partial.path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(partial.path.parent).free
    if free < num_bytes:
        raise DiskFullError(f"{partial.path.parent}: {free} bytes free, {url} needs {num_bytes} more")


def _verify(partial: Partial, version: Version, check: Callable[[Path], None]) -> None:
    if version.size is not None and partial.size != version.size:
        raise DamagedError(f"found {partial.size} bytes, expected {version.size}")
    if version.sha256 is not None and (sha256 := sha256_of(partial.path)) != version.sha256:
        raise DamagedError(f"found SHA-256 {sha256}, expected {version.sha256}")
    check(partial.path)


@contextlib.contextmanager
def _network_errors(url: str, patience: Patience) -> Iterator[None]:
    """Sorts what the HTTP library raises into "again" and "never"."""
    unusable = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.TooManyRedirects,
    )
    try:
        yield
    except unusable as error:
        raise InputError(f"{url}: {error}; expected an http or https address that answers") from error
    except (requests.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
        connected = not isinstance(error, requests.ConnectTimeout)
        raise _RetryError(f"no answer for {patience.timeout_s:g} s", connected=connected) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        connected = not isinstance(reason, urllib3.exceptions.NewConnectionError)
        raise _RetryError(_plainly(error), connected=connected) from error


def _plainly(error: BaseException) -> str:
    """The innermost reason of nested library errors, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    return f"the connection failed ({(str(error) or type(error).__name__).splitlines()[0]})"


def _given_up(url: str, failure: _RetryError, after: str, partial: Partial) -> InputError:
    message = f"{url}: {failure}; given up after {after}"
    version = partial.version(url)
    if version and partial.size:
        message += f", {partial.size} of {version.size or 'unknown'} bytes are kept"
    return InputError(message) if failure.connected else UnreachableError(message)
