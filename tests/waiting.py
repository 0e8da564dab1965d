"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(holds: Callable[[], Any], seconds: float = 30, pause: float = 0.01) -> None:
    """Fails where it does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain"
        time.sleep(pause)
