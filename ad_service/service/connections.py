"""Connections to the service: how many there may be, and how long a client may take to send or to read.

Without limits, anyone on this machine could stop the service by connections that send nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

ADMITTED = "texture-distiller.admitted"
"""The key in the scope of a request that access control has passed."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client can occupy, and for how long.

    Attributes:
        connections: most open connections. One more closes the oldest whose request is not admitted.
        head_seconds: time in which the head of a request must be complete.
        body_seconds: time without any byte of a body.
        read_seconds: time in which a client reads nothing of a response that fills the buffers.
    """

    connections: int = 512
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    read_seconds: float = 60.0


class LimitedServer(uvicorn.Server):
    """A uvicorn server that closes connections beyond the limits; its protocol must be `Connection`."""

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            now = time.monotonic()
            for connection in list(_limited(self.server_state.connections)):
                connection.close_if_overdue(now)
        return await super().on_tick(counter)


class Connection(H11Protocol):
    """One HTTP connection of a `LimitedServer`."""

    limits = ConnectionLimits()
    opened = last_byte = 0.0
    head_since: float | None = None
    """When the head of a request began, or the connection was opened; None when no head is awaited."""
    unread_since: float | None = None
    """When the client stopped reading; None while it reads."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.last_byte = self.head_since = time.monotonic()
        if len(self.connections) > self._most():
            waiting = [other for other in _limited(self.connections) if not other.admitted]
            min(waiting, key=lambda other: other.opened, default=self)._abort()

    def data_received(self, data: bytes) -> None:
        self.last_byte = time.monotonic()
        if self.head_since is None and not self._is_handled():
            self.head_since = self.last_byte
        super().data_received(data)
        if self._is_handled():
            self.head_since = None

    def pause_writing(self) -> None:
        self.unread_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    @property
    def admitted(self) -> bool:
        """Whether a request that access control has passed is being handled."""
        return self._is_handled() and ADMITTED in self.cycle.scope

    def close_if_overdue(self, now: float) -> None:
        """Closes the connection if its client takes too long; `now` is time.monotonic()."""
        limits = self.limits
        if self.flow.read_paused:
            self.last_byte = now  # we do not read, so the client is not late
        sends_body = self._is_handled() and self.cycle.more_body
        if (
            (self.head_since is not None and now - self.head_since > limits.head_seconds)
            or (sends_body and now - self.last_byte > limits.body_seconds)
            or (self.unread_since is not None and now - self.unread_since > limits.read_seconds)
        ):
            self._abort()

    def _is_handled(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _abort(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _most(self) -> int:
        return min(self.limits.connections, open_files() // 2)


def open_files() -> int:
    """How many files and connections this process may have open."""
    if sys.platform == "win32":
        return 8192
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _limited(connections: object) -> Iterator[Connection]:
    assert isinstance(connections, set)
    return (connection for connection in connections if isinstance(connection, Connection))
