"""Connections that wait for the next request of the tenant whose last one they carried.

    tenant A ──► server 1 ──► a connection, kept ──► tenant A again
    tenant B ──► server 1 ──► another one

An upstream that answers once too often shifts what follows on a connection: it then tells a tenant
what the same tenant has asked. Idle ones are bounded; the one that is idle for longest goes first.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import sys
import termios
from collections import Counter
from math import inf
from time import monotonic
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace

__all__ = ("KeptConnector", "OwnedRequest", "bound_interim", "handed_over")

# Idle connections of a pool, and of those to one of its servers.
MOST_IDLE, MOST_IDLE_OF_SERVER = 256, 128
MOST_KEYS = 1024  # remembered for a target, about 100 bytes each
# Answers that are none yet (RFC 9110, 15.2), before the one to a request.
MOST_INTERIM = 32
INTERIM, SWITCHING = range(100, 200), 101


class OwnedRequest(ClientRequest):
    """What the connector is asked for. `owner`: set before each `connect`, which reads it first."""

    owner = ""
    keys: dict[str, ConnectionKey] | None = None  # by owner: making one takes long

    @property
    def connection_key(self) -> ConnectionKey:
        if self.keys is None or len(self.keys) > MOST_KEYS:
            self.keys = {}
        key = self.keys.get(self.owner)
        if key is None:
            # The member tells apart what must not be shared, and no proxy is ever used here.
            key = super().connection_key._replace(proxy_headers_hash=cast(Any, self.owner))
            self.keys[self.owner] = key
        return key


class KeptConnector(aiohttp.TCPConnector):
    """aiohttp's own looks at what came when a connection is given back, and not when it is taken:

    its end of an answer is told before what stands behind it is looked at.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, socket_factory=handed_over)
        bound_interim(self)
        # The oldest first. Those that a server has ended stay until their turn comes.
        self._idle: dict[ResponseHandler, ConnectionKey] = {}
        self._idle_of: Counter[tuple[str, int | None]] = Counter()

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        return self.take(key)

    def take(self, key: ConnectionKey) -> Connection | None:
        """One that is kept and good to be used again; nobody has it besides."""
        while kept := self._conns.get(key):
            protocol, since = kept.popleft()
            if not kept:
                del self._conns[key]
            self._forget(protocol)
            is_young = monotonic() - since <= (self._keepalive_timeout or inf)
            if protocol.is_connected() and is_young and not _has_news(protocol):
                self._acquired.add(protocol)
                return Connection(self, key, protocol, self._loop)
            transport = protocol.transport
            protocol.close()
            if key.is_ssl and not self._cleanup_closed_disabled:
                self._cleanup_closed_transports.append(transport)
        return None

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        super()._release(key, protocol, should_close=should_close)
        if self._conns.get(key) and self._conns[key][-1][0] is protocol:
            self._idle[protocol] = key
            self._idle_of[key[:2]] += 1
            self._make_room(key)

    def _make_room(self, latest: ConnectionKey) -> None:
        if self._idle_of[latest[:2]] > MOST_IDLE_OF_SERVER:
            same = (each for each, key in self._idle.items() if key[:2] == latest[:2])
            self._end(next(same))
        elif len(self._idle) > MOST_IDLE:
            self._end(next(iter(self._idle)))

    def _end(self, protocol: ResponseHandler) -> None:
        """Close an idle connection; what its key has kept for longer was ended before."""
        key = self._idle[protocol]
        self._forget(protocol)
        protocol.close()
        kept = self._conns.get(key, ())
        while kept and not kept[0][0].is_connected():
            kept.popleft()
        if key in self._conns and not kept:
            del self._conns[key]

    def _forget(self, protocol: ResponseHandler) -> None:
        key = self._idle.pop(protocol, None)
        if key is not None:
            self._idle_of[key[:2]] -= 1


class _HandedOver(socket.socket):
    """uvloop closes the descriptor of a socket that it was given, also where it is cancelled before

    it has detached the object. Collected, the object would close the number once more, which may
    be another connection's by then, or a file's.
    """

    def __del__(self) -> None:
        pass


def handed_over(address: tuple[Any, ...]) -> socket.socket:
    """For `socket_factory`: whoever makes a connection closes it, the collector never does."""
    family, kind, protocol = address[:3]
    return _HandedOver(family, kind, protocol)


def bound_interim(connector: aiohttp.TCPConnector) -> None:
    """Let connections made from now on end where a server says too often that it is about to."""
    loop = connector._loop
    connector._factory = cast(Any, lambda: _Handler(loop=loop))


class _Handler(ResponseHandler):
    """aiohttp reads interim answers for as long as they come, and tells nobody who waits for a

    body that what came of it since is none.
    """

    _interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        if self._interim > MOST_INTERIM:
            return
        code = data[0].code
        self._interim = self._interim + 1 if code in INTERIM and code != SWITCHING else 0
        if self._interim <= MOST_INTERIM:
            super().feed_data(data, size)
            return
        self.set_exception(BadHttpMessage(f"more than {MOST_INTERIM} interim answers"))
        if self.transport is not None:
            self.transport.abort()

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        super().set_exception(exc, exc_cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            # Without what it quotes.
            body.set_exception(aiohttp.ClientPayloadError("its framing is broken"), exc)


def is_on_its_way(protocol: ResponseHandler) -> bool:
    """Whether a part of what was written has not reached the server's system yet.

    What comes from there meanwhile answers something else: an answer to the whole of it says that
    the whole has come (RFC 9293, 3.4: each segment acknowledges what came before it was sent).
    """
    transport = protocol.transport
    if not isinstance(transport, asyncio.WriteTransport):
        return False
    if transport.get_write_buffer_size():
        return True
    own = transport.get_extra_info("socket")
    if sys.platform != "linux" or own is None:  # elsewhere nobody tells
        return False
    waiting = fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, bytes(4))
    return bool(int.from_bytes(waiting, sys.byteorder))


def _has_news(protocol: ResponseHandler) -> bool:
    """Whether anything came since the last answer, be it a part of a line, read or unread."""
    if protocol.should_close or _is_readable(protocol):
        return True
    parser = protocol._parser
    try:
        return parser is not None and parser.feed_eof() is not None
    except Exception:  # whatever it says of what it holds
        return True


def _is_readable(protocol: ResponseHandler) -> bool:
    """Whether the system has something that the loop has not come to yet: be it the end."""
    own = None if protocol.transport is None else protocol.transport.get_extra_info("socket")
    if own is None:
        return True
    poll = select.poll()
    poll.register(own.fileno(), select.POLLIN)
    return bool(poll.poll(0))
