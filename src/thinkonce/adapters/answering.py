"""One answer on its way from an endpoint to whoever reads it, on one event loop.

endpoint ── send ──► start ─► piece ─► piece ─► end      what nobody has read yet is bounded
                      │         │
reader  ◄── begin ────┘   next ─┘      leave: the endpoint is told that its client has gone
"""

from __future__ import annotations

import asyncio
from collections import deque

from thinkonce.upstream.failure import Header, Stalled
from thinkonce.web.exchange import Message

__all__ = ("Answering",)

# Bytes that may lie unread while more is made, as a server lets lie for a slow reader.
WINDOW = 64 * 1024


class Answering:
    """Belongs to one event loop. `body` is the request's."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.is_complete = False
        self.gap: float | None = None  # most seconds that the reader waits for the next piece
        self._body: bytes | None = body
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._error: BaseException | None = None
        self._changed, self._room, self._left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    # -- the endpoint's side -------------------------------------------------------------

    async def receive(self) -> Message:
        """The request's body, whole; then nothing until the reader has gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self._put(message.get("body", b""))
            self.is_complete = not message.get("more_body")
        self._changed.set()
        while self._unread > WINDOW and not (self.is_complete or self._left.is_set()):
            self._room.clear()
            await self._room.wait()

    def fail(self, error: BaseException) -> None:
        """There will be no more: `error` is the reader's."""
        self._error = error
        self._changed.set()

    def _put(self, piece: bytes) -> None:
        if piece and not self._left.is_set():
            self._pieces.append(piece)
            self._unread += len(piece)

    # -- the reader's side ---------------------------------------------------------------

    async def begin(self) -> None:
        """Wait for `status` and `headers`. Raises what the endpoint failed with."""
        while not self.status:
            await self._change()

    async def next(self) -> bytes:
        """What has come, as soon as something has; b"" at the end. Raises as `begin`."""
        while not self._pieces and not self.is_complete:
            await self._wait()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        self._room.set()
        return piece

    def whole(self) -> bytes | None:
        """All of it, where it is complete already."""
        if not self.is_complete:
            return None
        return b"".join(self._pieces)

    def leave(self) -> None:
        """Read no more; idempotent, and of no effect behind the end."""
        self._left.set()
        self._room.set()
        self._pieces.clear()

    async def _wait(self) -> None:
        if self.gap is None:
            await self._change()
            return
        try:
            async with asyncio.timeout(self.gap):
                await self._change()
        except TimeoutError as error:
            raise Stalled(f"the call that is followed paused for {self.gap:g} s") from error

    async def _change(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()
