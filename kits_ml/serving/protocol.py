"""HTTP as uvicorn speaks it, with an end to patience: connections are counted, so none may be kept for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """Hangs up on who does not come to a request, and on who does not read the answer.

    The first are: who says nothing after connecting, who never ends a request's headers, and who goes on sending the
    body of a request that was refused. Between two requests uvicorn's own limit holds, and for a body
    `upload_seconds`. What is sent lies in memory until it has been read, and a connection that is closed stays until
    then, so whoever reads too slowly is cut off.

    Args:
        answer_s: how long it may take to read an answer.
        **options: what uvicorn gives.

    Attributes:
        patience_s: how long it may take to come to a request.
    """

    patience_s = 20.0

    def __init__(self, *, answer_s: float, **options: Any):
        super().__init__(**options)
        self.answer_s = answer_s
        self._patience: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # writing pauses while there is anything left to be read
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._patience is None:
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reader_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_reader_timer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._patience = self.loop.call_later(self.patience_s, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _hang_up(self) -> None:
        self._patience = None
        if not self._is_answering():
            self.transport.close()  # what was sent may still be read; `answer_s` sees to the end of that

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
