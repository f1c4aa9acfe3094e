"""One request over aiohttp's connections, without its session in between.

`ClientSession.request` makes some sixty objects for each call (a request, its writer, cookies,
timers, a payload) and takes three times as long as the rest: connection, parser and reader, which
are used as they are. For requests that are written in one go; others are the session's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from thinkonce.upstream.failure import Header

__all__ = ("MAX_HEADER", "MAX_WRITE", "Answer", "Wire")

# Some providers send long policy headers.
MAX_HEADER = 64 * 1024
READ_BUFFER = 64 * 1024
# A request's body is written in one go up to here, bytes.
MAX_WRITE = 512 * 1024
MOST_TARGETS = 256  # a query makes a target of its own
CONTINUES = range(100, 200)
# Who answers otherwise may have left the request's body unread, or send one where none belongs.
KEEPING = 200
SWITCHING = 101  # it is the last one, and nothing of ours follows
# What aiohttp writes itself, or what decides how a body is written.
_NOT_OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade")
)


class Target(NamedTuple):
    """Where a request goes. `opening`: its first lines, up to the end of `host`."""

    request: ClientRequest  # what the connector asks for, the body apart
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

    async def ask(self, url: str, headers: Iterable[Header], body: bytes) -> Answer | None:
        """The beginning of the answer to a POST; None: ask the session, which can do more.

        Raises what `session.request` does, and ValueError.
        """
        if not (0 < len(body) <= MAX_WRITE and _NOT_OURS.isdisjoint(name for name, _ in headers)):
            return None
        target = self._targets[url] if url in self._targets else self._aim(url)
        if target is None:
            return None
        head, connector = _head(target.opening, headers, body), self._session.connector
        assert connector is not None
        try:
            connection = await connector.connect(target.request, [], self._session.timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("connecting took too long") from error
        try:
            return await _exchanged(connection, target.request, head + body)
        except BaseException:
            connection.close()
            raise

    def _aim(self, url: str) -> Target | None:
        """None where the URL says more than where to go: a password."""
        parsed = URL(url, encoded=True)
        if len(self._targets) >= MOST_TARGETS:
            self._targets.clear()
        target: Target | None = None
        if parsed.user is None and parsed.password is None:
            loop, session = asyncio.get_running_loop(), self._session
            request = ClientRequest("POST", parsed, loop=loop, session=session)
            path, host = parsed.raw_path_qs.encode(), request.headers["host"].encode()
            target = Target(request, b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (path, host))
        self._targets[url] = target
        return target


async def _exchanged(connection: Connection, request: ClientRequest, data: bytes) -> Answer:
    protocol = _of(connection)
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
        except aiohttp.ClientError:
            raise
        except OSError as error:
            raise aiohttp.ClientOSError(*error.args) from error
        if message.code not in CONTINUES or message.code == SWITCHING:
            return Answer(connection, message.code, message.raw_headers, content)


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


def _head(opening: bytes, headers: Iterable[Header], body: bytes) -> bytes:
    lines = [opening]
    for name, value in headers:
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    head = b"".join(lines)
    # A line too many would be a header of somebody else's making, or a second request.
    written = len(lines) + 2  # the first piece has two lines, the last one ends the head
    if head.count(b"\n") != written or head.count(b"\r") != written or b"\0" in head:
        raise ValueError("a header with the end of a line in it")
    return head
