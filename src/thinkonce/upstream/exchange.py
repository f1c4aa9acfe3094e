"""An answer of an upstream that has begun: its head, and its body piece by piece."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

import aiohttp

from thinkonce.upstream.failure import Broken, Header, Stalled

__all__ = ("Exchange", "end_to_end", "say")

# Most that one piece of a compressed answer may unfold to at once, bytes.
MAX_PIECE = 1024 * 1024

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade content-length".split()
)


class Exchange:
    """Close it, whether or not it was read to its end.

    `gap`: most seconds between two pieces. `raw`: hand out the body in the encoding it comes in.
    `closed` is called once, when the server is done with it.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        gap: float,
        raw: bool,
        closed: Callable[[], object],
    ) -> None:
        self.status = response.status
        self.headers = end_to_end(response.raw_headers)
        self.content_type = response.headers.get("content-type", "")
        self._response, self._gap, self._closed = response, gap, closed
        encoding = response.headers.get("content-encoding", "identity").lower()
        self.opaque = not raw and encoding not in ("", "identity", "gzip", "x-gzip", "deflate")
        self._decoder = None if raw or self.opaque else _decoder_for(encoding)
        if self._decoder is not None:
            self.headers = tuple(h for h in self.headers if h[0] != b"content-encoding")
        self._due = float("inf")
        self._late = False
        self._watch: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """The next piece as soon as there is one; b"" at the end. Raises Broken, Stalled."""
        while True:
            held = self._decoder.unconsumed_tail if self._decoder is not None else b""
            data = held or await self._read()
            if not data or self._decoder is None:
                return data
            try:
                data = self._decoder.decompress(data, MAX_PIECE)
            except zlib.error as error:
                raise Broken("the upstream's answer cannot be decompressed") from error
            if data:
                return data

    async def read_all(self, limit: int) -> bytes | None:
        """All that is left; None if that is more than `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else end it."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()
        closed, self._closed = self._closed, _nothing
        closed()

    async def _read(self) -> bytes:
        content = self._response.content
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._gap
        if self._watch is None:
            self._watch = loop.call_later(self._gap, self._check, loop)
        try:
            return await content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            if self._late:
                raise Stalled(f"the upstream paused for more than {self._gap:g} s") from error
            raise Broken(f"the upstream's answer broke off: {say(error)}") from error
        finally:
            self._due = float("inf")

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now and then instead of setting a timer for each piece of a stream."""
        left = min(self._due - loop.time(), self._gap)
        if left > 0:
            self._watch = loop.call_later(left, self._check, loop)
            return
        self._late = True
        self._response.close()


class _Decoder(Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _nothing() -> None:
    pass


def _decoder_for(encoding: str) -> _Decoder | None:
    if encoding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31)
    return zlib.decompressobj() if encoding == "deflate" else None


def end_to_end(headers: Iterable[Header]) -> tuple[Header, ...]:
    """`headers` in lower case without those that concern one connection only (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        part.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for part in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named
    return tuple(header for header in lowered if header[0] not in dropped)


def say(error: Exception) -> str:
    """What went wrong, also where the error has no words."""
    return str(error) or type(error).__name__
