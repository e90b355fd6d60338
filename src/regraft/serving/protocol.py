"""uvicorn's HTTP, with two limits that it lacks: how long a request's head may take, and how large it may be.

Without them anybody can hold connections, and memory, by sending a head that never ends.
"""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 1 << 16  # bytes
SECONDS = 10.0


class Protocol(HttpToolsProtocol):
    """Closes a connection whose next request's head is not complete in time, or is too large."""

    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head; send each part of an answer at once, where asyncio would have it wait for 40 ms."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what came of a head that is not complete."""
        if self._deadline and self._head_bytes > LARGEST_HEAD:
            self.transport.abort()
            return
        self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Wait for the head that has begun."""
        self._stop()
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Wait no longer."""
        self._stop()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
