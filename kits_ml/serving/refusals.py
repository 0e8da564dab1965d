"""Why a request gets no segmentation. Without HTTP's libraries, for the reader's process starts with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: nginx's number for a client that left; nobody reads the answer, but the counters do.
CLIENT_LEFT = 499


class RefusedError(Exception):
    """A request that gets no segmentation.

    Args:
        status: of the answer, 4xx or 5xx.
        detail: what was found and what was expected, one line without the server's paths.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:  # comes back from the reader's process
        return _again, (self.status, self.detail, self.headers)


def _again(status: int, detail: str, headers: Mapping[str, str]) -> RefusedError:
    return RefusedError(status, detail, headers=headers)
