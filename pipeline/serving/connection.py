"""A connection of the HTTP server with time limits, so that slow or silent clients cannot block others."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from seq2serve.pipeline.serving.limits import HEADER_SECONDS, MAX_CONNECTIONS, WRITE_SECONDS


class Connection(H11Protocol):
    """Uvicorn's connection, which is closed if headers are late or a response is not read.

    Uvicorn itself closes connections that are idle after a response; rest.py limits the time for a body. If there are
    too many connections, the one that has waited longest for a complete request is closed.
    """

    _header_timer: asyncio.TimerHandle | None = None  # runs while no request is in progress
    _write_timer: asyncio.TimerHandle | None = None  # runs while the client reads more slowly than we write

    @property
    def is_waiting(self) -> bool:
        """Returns whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time limit for the headers of the first request."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._start_header_timer()
        if len(self.connections) > MAX_CONNECTIONS:
            connections = (cast("Connection", connection) for connection in self.connections)
            incomplete = (each for each in connections if each.is_waiting or each.cycle.more_body)
            candidates = [each for each in incomplete if not each.transport.is_closing()]
            min(candidates, key=lambda connection: connection.waiting_since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Ends the time limit when the headers are complete, or starts it with the first byte of another request."""
        super().data_received(data)
        if not self.is_waiting:
            self._stop_header_timer()
        elif not self.transport.is_closing():
            self._start_header_timer()

    def on_response_complete(self) -> None:
        """Notes the time; uvicorn starts its limit on idle connections."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Starts the time limit for reading a response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Ends the time limit for reading a response."""
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers, which would keep this object alive."""
        super().connection_lost(exc)
        self._stop_header_timer()
        if self._write_timer:
            self._write_timer.cancel()

    def _start_header_timer(self) -> None:
        if not self._header_timer:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer:
            self._header_timer.cancel()
            self._header_timer = None
