"""An answer of an upstream as `aiohttp` brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from thinkonce.upstream.exchange import Exchange, say
from thinkonce.upstream.failure import Broken, Stalled
from thinkonce.upstream.wire import Answer

__all__ = ("Received",)

FEW = 2  # chunks, below which nothing is to be gained


class Received(Exchange):
    """`gap`: most seconds between two pieces. `closed` is called once, when the server is done.

    It gets what broke the answer off, if anything did.
    """

    def __init__(
        self,
        response: Answer | aiohttp.ClientResponse,
        gap: float,
        raw: bool,
        closed: Callable[[Exception | None], object],
    ) -> None:
        super().__init__(response.status, response.raw_headers, raw=raw)
        self._response, self._gap, self._closed = response, gap, closed
        self._due = float("inf")
        self._late = False
        self._failure: Exception | None = None
        self._watch: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()
        closed, self._closed = self._closed, _nothing
        closed(self._failure)

    async def _read(self) -> bytes:
        content = self._response.content
        try:
            if not content.is_eof() and not content._buffer and content.exception() is None:
                loop = asyncio.get_running_loop()
                self._due = loop.time() + self._gap
                if self._watch is None:
                    self._watch = loop.call_later(self._gap, self._check, loop)
                while not content._buffer and not content.is_eof():
                    await content._wait("read")
            return _all_of(content)
        except (aiohttp.ClientError, ConnectionError) as error:
            self._failure = (
                Stalled(f"the upstream paused for more than {self._gap:g} s")
                if self._late
                else Broken(f"the upstream's answer broke off: {say(error)}")
            )
            raise self._failure from error
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


def _all_of(content: aiohttp.StreamReader) -> bytes:
    """What has come. As `content.read_nowait` gives it, which looks at each chunk by itself."""
    few = not content.total_bytes or len(content._buffer) < FEW
    if few or content._buffer_offset or content.exception() is not None:
        return content.read_nowait()
    data = b"".join(content._buffer)
    content._buffer.clear()
    content._cursor += len(data)
    content._size = 0
    splits = content._http_chunk_splits
    while splits and splits[0] < content._cursor:
        splits.popleft()
    if content._protocol._reading_paused:
        content._protocol.resume_reading()
    return data


def _nothing(failure: Exception | None) -> None:
    pass
