"""Ctrl-C and SIGTERM: in a training a request, which ends it between two steps, where all its state is known."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kits_ml.errors import StoppedError

log = logging.getLogger(__name__)


class StopRequest:
    """Whether somebody asked to stop.

    Attributes:
        signal_number: how; None as long as nobody did.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def receive(self, signal_number: int, frame: Any = None) -> None:
        """Notes a signal; Ctrl-C after one stops at once.

        Raises:
            KeyboardInterrupt: at Ctrl-C after another signal, or after Ctrl-C.
        """
        if self.signal_number is not None and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number is None:
            self.signal_number = signal_number
            log.warning(
                "stopping after this step, or after the validation that runs; Ctrl-C now stops at once and loses "
                "what came after the last checkpoint"
            )


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM an error while it is open, as Ctrl-C is one; outside the main thread it does nothing.

    Raises:
        StoppedError: at the signal, wherever the program is.
    """

    def stop(signal_number: int, frame: Any) -> None:
        signal.signal(signal_number, signal.SIG_IGN)  # once is enough; the end is on its way
        raise StoppedError("stopped by SIGTERM", signal_number=signal_number)

    with _handled_by(stop, signal.SIGTERM):
        yield


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns Ctrl-C (SIGINT) and SIGTERM into requests while it is open; outside the main thread it does nothing."""
    request = StopRequest()
    with _handled_by(request.receive, signal.SIGINT, signal.SIGTERM):
        yield request


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Gives signals a handler, and their own back; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)
