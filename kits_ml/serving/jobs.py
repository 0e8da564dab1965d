"""Who is served, and when: a bounded house, one at work, each for a limited time, nobody who has left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from kits_ml.serving.refusals import CLIENT_LEFT, RefusedError

T = TypeVar("T")

#: A job that was told to stop looks up after each slice. One that has not by then hangs.
GRACE_SECONDS = 120.0

#: What the next client is told to wait for while nothing is known of how long a scan takes.
_FIRST_GUESS_SECONDS = 10.0


class StoppedJobError(Exception):
    """The job was told to stop, and did."""


class Job:
    """A request's work, seen from the thread that does it.

    Attributes:
        begun: when, on the monotonic clock; None as long as it waits.
        seconds: what its parts took.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._made = time.monotonic()
        self.begun: float | None = None
        self.seconds: dict[str, float] = {}

    def begin(self) -> None:
        """Notes that its turn has come."""
        self.begun = time.monotonic()
        self.seconds["wait"] = self.begun - self._made

    def check(self) -> None:
        """Raises `StoppedJobError` where nobody waits for the result any more; to be called often."""
        if self._stop.is_set():
            raise StoppedJobError

    def stop(self) -> None:
        """Asks the job to end; it does so at its next `check`."""
        self._stop.set()


class Jobs:
    """The house. Only the event loop's thread calls its methods.

    Args:
        queue_size: requests in the house at once: they upload, wait, or are at work.
        timeout_seconds: for a job, its wait included.
    """

    def __init__(self, *, queue_size: int, timeout_seconds: float):
        self.queue_size, self.timeout_seconds = queue_size, timeout_seconds
        self.num_in_house = 0
        self._mean_seconds = _FIRST_GUESS_SECONDS
        self._running: Job | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="segment")

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """A place in the house, free again in the end.

        Raises:
            RefusedError: the house is full (429, with Retry-After).
        """
        if self.num_in_house >= self.queue_size:
            raise RefusedError(
                429, f"{self.num_in_house} scans are here already, which is the most", headers=self._retry_after()
            )
        self.num_in_house += 1
        try:
            yield
        finally:
            self.num_in_house -= 1

    async def run(self, work: Callable[[Job], T], *, gone: Callable[[], Awaitable[None]]) -> T:
        """Does the work in its turn. Comes back when nothing of it runs any more.

        Args:
            work: runs in the one thread; calls `check` of its job often.
            gone: waits until the client has left.

        Raises:
            RefusedError: the time was over before the work began (503) or before it was done (504), or the client
                left.
            Exception: what the work raised.
        """
        job = Job()
        working = self._executor.submit(self._timed, work, job)
        result, left = asyncio.wrap_future(working), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({result, left}, timeout=self.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            has_left = left.done()
            began = await _end(job, working, result)
        finally:
            job.stop()
            working.cancel()
            left.cancel()
        if has_left:
            raise RefusedError(CLIENT_LEFT, "the client left")
        if began:
            raise RefusedError(504, f"not done within {self.timeout_seconds:g} s, which is the limit")
        raise RefusedError(
            503, f"not begun within {self.timeout_seconds:g} s, which is the limit", headers=self._retry_after()
        )

    def seconds_at_work(self) -> float:
        """How long the job at work has been there; 0 where none is."""
        running = self._running
        return time.monotonic() - running.begun if running and running.begun else 0.0

    def hangs(self) -> bool:
        """Whether a job goes on long after it was told to stop."""
        return self.seconds_at_work() > self.timeout_seconds + GRACE_SECONDS

    def close(self) -> None:
        """Takes no more work; does not wait."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: Callable[[Job], T], job: Job) -> T:
        job.check()
        job.begin()
        self._running = job
        try:
            result = work(job)
            self._mean_seconds += 0.3 * (time.monotonic() - job.begun - self._mean_seconds)
            return result
        finally:
            self._running = None

    def _retry_after(self) -> dict[str, str]:
        return {"Retry-After": str(max(1, round(self._mean_seconds)))}


async def _end(job: Job, working: Future, result: asyncio.Future) -> bool:
    """Tells a job to stop and waits until it has; whether it had begun."""
    job.stop()
    if working.cancel():
        return False
    await asyncio.wait({result})
    if not result.cancelled():
        result.exception()  # looked at, so that nobody complains that it never was
    return job.begun is not None
