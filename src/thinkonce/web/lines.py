"""A request body read line by line as it arrives, so that a batch may be larger than memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from thinkonce.web.exchange import BROKEN, ClientGone, HttpError, Message, Receive, Scope

__all__ = ("Ahead", "Incoming", "Line", "lines_of", "reading_ahead")

Line = tuple[int, bytes | None]  # number from 1; None: longer than the limit


class Incoming(Protocol):
    """A request whose body is still to come. `head`: its headers, by their names in lower case."""

    @property
    def head(self) -> Mapping[bytes, bytes]: ...

    @property
    def scope(self) -> Scope: ...

    @property
    def receive(self) -> Receive: ...


class Ahead:
    """Made by `reading_ahead`. `gone` is done once the client has left: at once if less than `most`
    bytes were waiting.
    """

    def __init__(self, call: Incoming, most: int) -> None:
        self._call, self._most = call, most
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self.gone: asyncio.Task[None] = asyncio.ensure_future(self._read())

    async def receive(self) -> Message:
        """In place of the call's own."""
        while not self._waiting:
            await self._change()
        message = self._waiting.popleft()
        self._bytes -= len(message.get("body", b""))
        self._changed.set()
        return message

    async def _read(self) -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            while self._bytes >= self._most:
                await self._change()
            message = await self._call.receive()
            self._waiting.append(message)
            self._bytes += len(message.get("body", b""))
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


@asynccontextmanager
async def reading_ahead(call: Incoming, most: int = 8 * 2**20) -> AsyncIterator[Ahead]:
    """Read a request a bounded way ahead of whoever takes its messages, so that a client that
    leaves is noticed while nobody does.
    """
    ahead = Ahead(call, most)
    try:
        yield ahead
    finally:
        ahead.gone.cancel()
        await asyncio.gather(ahead.gone, return_exceptions=True)


def lines_of(call: Incoming, limit: int, receive: Receive | None = None) -> AsyncIterator[Line]:
    """Lines that are not blank, without their newline. `limit`: bytes of one line.

    `receive`: where the body comes from, if not from the call. Raises HttpError 415 at once for a
    body that is compressed; while it is read ClientGone, and HttpError where it does not come.
    """
    coding = call.head.get(b"content-encoding", b"identity")
    if coding.lower() != b"identity":
        got = coding.decode("latin-1")
        raise HttpError(415, f"content-encoding: got {got!r}; lines are accepted as they are")
    return _lines(receive or call.receive, limit, call.scope.get("state", {}))


async def _lines(receive: Receive, limit: int, state: Mapping[str, object]) -> AsyncIterator[Line]:
    number, held, more = 1, _Held(limit), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = bool(message.get("more_body"))
        if more and isinstance(broken := state.get(BROKEN), HttpError):
            raise broken
        *whole, rest = message.get("body", b"").split(b"\n")
        for piece in whole:
            held.add(piece)
            line = held.taken()
            if line is None or line.strip():
                yield number, line
            number += 1
        held.add(rest)
    line = held.taken()
    if line is None or line.strip():
        yield number, line


class _Held:
    """The pieces of one line; a line beyond the limit is let go as it comes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def taken(self) -> bytes | None:
        """The whole line, None if it was too long; the next one begins."""
        line = b"".join(self._pieces) if self._size <= self._limit else None
        self._pieces, self._size = [], 0
        return line
