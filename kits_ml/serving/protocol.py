"""HTTP as uvicorn speaks it, with an end to patience: connections are counted, so none may be kept for nothing."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """Hangs up on who does not come to a request.

    That is: who says nothing after connecting, who never ends a request's headers, and who goes on sending the body
    of a request that was refused. Between two requests uvicorn's own limit holds, and for a body `upload_seconds`.

    Attributes:
        patience_s: how long.
    """

    patience_s = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._patience: asyncio.TimerHandle | None = None
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._patience is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._patience = self.loop.call_later(self.patience_s, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        self._patience = None
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
