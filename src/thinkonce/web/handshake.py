"""Connections until TLS is agreed on: few at once, so that silent ones take no descriptors.

An event loop that speaks TLS itself says nothing of a connection before its handshake is over, and
no limit could hold for it. Here the connection is known from the start.

    connect ──► too many? the oldest ends ──► handshake ──► the protocol of the server
                                                └─ 10 s ─► ended
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from thinkonce.web.edge import Edge

__all__ = ("Handshakes",)

# A handshake takes as long as two or three packets on their way. Who connects and does not get
# through it gives way to those who come.
HANDSHAKES = 256
HANDSHAKE_SECONDS = 10.0


class Handshakes:
    """Those under way on one event loop: as many as `edge` has connections, at most HANDSHAKES.

    `make` gives the protocol of a connection that gets through.
    """

    def __init__(
        self, edge: Edge, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]
    ) -> None:
        self._edge, self._context, self._make = edge, context, make
        self._under_way: dict[socket.socket, asyncio.Task[None]] = {}  # oldest first

    def begin(self) -> asyncio.Protocol:
        """The protocol of a connection that has just come."""
        return _Arrival(self._enter)

    def end(self) -> None:
        """End those under way."""
        for connection in self._under_way:
            _hang_up(connection)

    def _enter(self, connection: socket.socket) -> None:
        most = self._edge.limits.max_connections
        if len(self._under_way) >= (HANDSHAKES if most is None else min(most, HANDSHAKES)):
            oldest = next(iter(self._under_way))
            del self._under_way[oldest]
            _hang_up(oldest)
            self._edge.ended["connections"] += 1
        self._under_way[connection] = asyncio.ensure_future(self._agree(connection))

    async def _agree(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # not TLS, too late, or gone
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        self._under_way.pop(connection, None)


class _Arrival(asyncio.Protocol):
    """Gives its connection away at once, before anything is read of it.

    `start_tls` would come too late: uvloop may read before it has begun.
    """

    def __init__(self, enter: Callable[[socket.socket], None]) -> None:
        self._enter = enter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        here: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # no descriptor is left
            connection = socket.fromfd(here.fileno(), here.family, here.type)
            connection.setblocking(False)
            self._enter(connection)
        cast(asyncio.Transport, transport).abort()  # its own descriptor; the connection stays


def _hang_up(connection: socket.socket) -> None:
    """Whoever reads it sees its end, and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
