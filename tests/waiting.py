"""Waiting for what another thread or process does."""

import faulthandler
import time
from collections.abc import Callable
from typing import Any


def wait_until(holds: Callable[[], Any], seconds: float = 30, pause: float = 0.01) -> None:
    """Fails where it does not come true, and shows what every thread is at."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            faulthandler.dump_traceback()
            raise AssertionError(f"waited {seconds:g} s in vain")
        time.sleep(pause)
