"""One request over aiohttp's connections, without its session in between.

`ClientSession.request` makes some sixty objects for each call (a request, its writer, cookies,
timers, a payload) and takes three times as long as the rest: connection, parser and reader, which
are used as they are. For requests that are written in one go; others are the session's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from thinkonce.upstream.failure import Header
from thinkonce.upstream.kept import INTERIM, SWITCHING, KeptConnector, OwnedRequest, is_on_its_way

__all__ = ("MAX_HEADER", "MAX_WRITE", "Answer", "Wire")

# Some providers send long policy headers.
MAX_HEADER = 64 * 1024
READ_BUFFER = 64 * 1024
# A request's body is written in one go up to here, bytes.
MAX_WRITE = 512 * 1024
MOST_TARGETS = 256  # a query makes a target of its own
MOST_HEADS, LARGEST_HEAD = 256, 4096  # remembered; bytes
# Who answers otherwise may have left the request's body unread, or send one where none belongs.
KEEPING = 200
# What aiohttp writes itself, or what decides how a body is written.
_NOT_OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade")
)


class Target(NamedTuple):
    """Where a request goes. `opening`: its first lines, up to the end of `host`."""

    request: OwnedRequest  # what the connector asks for, the body apart
    opening: bytes


class Answer:
    """As much of an `aiohttp.ClientResponse` as reading it takes."""

    __slots__ = ("_connection", "content", "raw_headers", "status")

    def __init__(
        self,
        connection: Connection,
        status: int,
        raw_headers: Iterable[Header],
        content: aiohttp.StreamReader,
    ) -> None:
        self.status, self.raw_headers, self.content = status, raw_headers, content
        self._connection: Connection | None = connection
        content.on_eof(self._ended)

    def _ended(self) -> None:
        """All of it has come: another request may have the connection already."""
        connection = self._connection
        if connection is not None and not _of(connection).upgraded:
            self.release()

    def release(self) -> None:
        """Give the connection back, if it is certain where the next request begins on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not _is_sent(connection):
                _abort(connection)
            elif self.status == KEEPING:
                connection.release()
            else:
                connection.close()

    def close(self) -> None:
        if self.content.exception() is None:  # for who reads it now
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Wire:
    """The connections of `session`, which stays its owner's. Belongs to one event loop."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._targets: dict[str, Target | None] = {}
        self._heads: dict[tuple[bytes, tuple[Header, ...]], bytes] = {}

    async def ask(
        self,
        method: str,
        url: str,
        headers: Sequence[Header],
        body: bytes,
        owner: str,
        until: float = inf,
    ) -> Answer | None:
        """The beginning of the answer to a POST with a body, or to a GET without one.

        None: ask the session, which can do more. `owner`: whose connections may carry it. `until`:
        loop time when it has to have begun. Raises what `session.request` does, ValueError, and
        TimeoutError.
        """
        if len(body) > MAX_WRITE or bool(body) is not (method == "POST"):
            return None
        target = self._target(method, url)
        if target is None:
            return None
        connector, head = self._session.connector, self._head(target.opening, tuple(headers))
        assert connector is not None
        if head is None:
            return None
        length = b"content-length: %d\r\n" % len(body) if body else b""
        data = b"".join((head, length, b"\r\n", body))
        target.request.owner = owner
        connection = None
        if isinstance(connector, KeptConnector):
            connection = connector.take(target.request.connection_key)
        if connection is None:
            async with asyncio.timeout_at(None if until == inf else until):
                connection = await self._connected(connector, target.request)
        timer = None
        if until < inf:
            timer = connector._loop.call_at(until, _give_up, _of(connection))
        try:
            return await _exchanged(connection, target.request, data)
        except BaseException:
            connection.close()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _connected(
        self, connector: aiohttp.BaseConnector, request: OwnedRequest
    ) -> Connection:
        try:
            return await connector.connect(request, [], self._session.timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("connecting took too long") from error

    def _head(self, opening: bytes, headers: tuple[Header, ...]) -> bytes | None:
        """As the function. A client's requests have the same headers one after the other."""
        heads = self._heads
        head = heads.get((opening, headers))
        if head is None:
            if not _NOT_OURS.isdisjoint([name for name, _ in headers]):
                return None
            head = _head(opening, headers)
            if len(head) <= LARGEST_HEAD:
                if len(heads) >= MOST_HEADS:
                    heads.clear()
                heads[opening, headers] = head
        return head

    def _target(self, method: str, url: str) -> Target | None:
        if method != "POST":  # there are as many as there are things to look at
            return self._aim(method, url)
        if url not in self._targets:
            if len(self._targets) >= MOST_TARGETS:
                self._targets.clear()
            self._targets[url] = self._aim(method, url)
        return self._targets[url]

    def _aim(self, method: str, url: str) -> Target | None:
        """None where the URL says more than where to go: a password."""
        parsed = URL(url, encoded=True)
        if parsed.user is not None or parsed.password is not None:
            return None
        loop, session = asyncio.get_running_loop(), self._session
        request = OwnedRequest(method, parsed, loop=loop, session=session)
        path, host = parsed.raw_path_qs.encode(), request.headers["host"].encode()
        return Target(request, b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), path, host))


async def _exchanged(connection: Connection, request: OwnedRequest, data: bytes) -> Answer:
    protocol = _of(connection)
    was_used = protocol._parser is not None
    protocol.set_response_params(
        timer=TimerNoop(),
        read_until_eof=True,
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
    )
    transport = protocol.transport
    if transport is None:
        raise aiohttp.ServerDisconnectedError
    transport.write(data)
    while True:
        try:
            message, content = await protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientResponseError(
                request.request_info, (), status=error.code, message=error.message
            ) from error
        except (aiohttp.ClientError, TimeoutError):
            raise
        except OSError as error:
            raise aiohttp.ClientOSError(*error.args) from error
        if message.code not in INTERIM or message.code == SWITCHING:
            if was_used and message.code == KEEPING and is_on_its_way(protocol):
                # This is of a request before: ask again, on another connection.
                _abort(connection)
                raise aiohttp.ServerDisconnectedError("answered before all was asked")
            return Answer(connection, message.code, message.raw_headers, content)


def _give_up(protocol: ResponseHandler) -> None:
    """Who waits for the beginning of an answer waits no more."""
    protocol.set_exception(TimeoutError())


def _is_sent(connection: Connection) -> bool:
    """Whether nothing of the request waits here still: its answer may come early."""
    transport = connection.transport
    return transport is not None and not transport.get_write_buffer_size()


def _abort(connection: Connection) -> None:
    """End it without waiting for a server that reads no more."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


def _of(connection: Connection) -> ResponseHandler:
    protocol = connection.protocol
    assert protocol is not None
    return protocol


def _head(opening: bytes, headers: Iterable[Header]) -> bytes:
    """Of a request, but for the length of its body and the blank line. Raises ValueError."""
    lines = [opening]
    for name, value in headers:
        lines.append(b"%b: %b\r\n" % (name, value))
    # A line too many would be a header of somebody else's making, or a second request.
    written = len(lines) + 1  # the first piece has two lines
    head = b"".join(lines)
    if head.count(b"\n") != written or head.count(b"\r") != written or b"\0" in head:
        raise ValueError("a header with the end of a line in it")
    return head
