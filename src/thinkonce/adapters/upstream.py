"""The wrapped transport in the place of an upstream.

What it raises is what the client would have got without a cache between, so it is kept as the
cause of the UpstreamError that the flow is told, and taken out again for whoever is left without
an answer (`raised`). Timeouts are the client's own: they travel with its request.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from thinkonce.adapters.hand import Hand
from thinkonce.adapters.question import ASKED, Question
from thinkonce.errors import UpstreamError
from thinkonce.flights.landing import own_copy
from thinkonce.upstream.exchange import Exchange, say
from thinkonce.upstream.failure import Broken, Stalled, TimedOut, Unreachable
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.request import Request

__all__ = ("AsyncUpstream", "BlockingUpstream", "raised")

# Codings that are decoded here, in what a request may be answered in.
_DECODED = b"gzip, deflate"


class _Upstream:
    """A `Sender`: asks `transport` what the running task's question asks."""

    def __init__(self, library: Any, transport: Any) -> None:
        self._library, self.transport = library, transport

    async def send(
        self, pool: Pool, request: Request, *, raw: bool = False, spare: bool = False
    ) -> Exchange:
        """`pool` and `request` say less than the question: its URL, headers and timeouts."""
        question = ASKED.get()
        question.is_asked = True
        asked = self._asked(question, request, raw)
        try:
            exchange = await self._begin(asked, raw)
        except self._library.TimeoutException as error:
            raise TimedOut(f"the upstream did not answer in time: {say(error)}") from error
        except Exception as error:
            raise Unreachable(f"the upstream cannot be reached: {say(error)}") from error
        question.provider_id = exchange.request_id
        return exchange

    async def _begin(self, asked: Any, raw: bool) -> _Answer:
        raise NotImplementedError

    def _asked(self, question: Question, request: Request, raw: bool) -> Any:
        passed = question.to_pass_on()
        accepted = next((v for n, v in passed if n.lower() == b"accept-encoding"), b"identity")
        if not raw:
            accepted = _DECODED if b"gzip" in accepted.lower() else b"identity"
        again = (b"accept-encoding", b"content-length", b"transfer-encoding")
        headers = [pair for pair in passed if pair[0].lower() not in again]
        return self._library.Request(
            request.method,
            question.request.url,
            headers=[*headers, (b"accept-encoding", accepted)],
            content=request.body,
            extensions=question.request.extensions,
        )


class BlockingUpstream(_Upstream):
    """Each call is made in a thread of its own, which ends with it."""

    async def _begin(self, asked: Any, raw: bool) -> _Answer:
        hand = Hand()
        try:
            response = await hand.do(partial(self.transport.handle_request, asked), _close)
        except BaseException:
            hand.let_go()
            raise
        return _Blocking(self._library, response, raw, hand)


class AsyncUpstream(_Upstream):
    """Calls are made on the running loop. `closing`: holds what is closed in the background."""

    def __init__(self, library: Any, transport: Any) -> None:
        super().__init__(library, transport)
        self._closing: set[asyncio.Task[None]] = set()

    async def _begin(self, asked: Any, raw: bool) -> _Answer:
        response = await self.transport.handle_async_request(asked)
        return _Async(self._library, response, raw, self._close_soon)

    def _close_soon(self, pieces: Any, response: Any) -> None:
        task = asyncio.get_running_loop().create_task(_close_async(pieces, response))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def closed(self) -> None:
        """Wait for what is being closed on the running loop; other loops see to their own."""
        loop = asyncio.get_running_loop()
        here = [task for task in tuple(self._closing) if task.get_loop() is loop]
        await asyncio.gather(*here, return_exceptions=True)


class _Answer(Exchange):
    """What a transport answered. Its failures are told apart as a client tells them."""

    def __init__(self, library: Any, response: Any, raw: bool) -> None:
        super().__init__(response.status_code, response.headers.raw, raw=raw)
        self._library, self._response = library, response
        self._ended = False

    @property
    def request_id(self) -> bytes:
        return self._first(b"x-request-id").encode("latin-1")

    async def _read(self) -> bytes:
        if self._ended:
            return b""
        try:
            piece = await self._next()
        except self._library.TimeoutException as error:
            raise Stalled(f"the upstream's answer paused: {say(error)}") from error
        except Exception as error:
            raise Broken(f"the upstream's answer broke off: {say(error)}") from error
        self._ended = not piece
        return piece

    async def _next(self) -> bytes:
        raise NotImplementedError


class _Blocking(_Answer):
    def __init__(self, library: Any, response: Any, raw: bool, hand: Hand) -> None:
        super().__init__(library, response, raw)
        self._hand = hand
        self._pieces: Iterator[bytes] = iter(response.stream)

    async def _next(self) -> bytes:
        return await self._hand.do(partial(_filled, self._pieces))

    def close(self) -> None:
        if not self._ended:
            _interrupt(self._response)
        self._hand.let_go(lambda: _close(self._response))


class _Async(_Answer):
    def __init__(
        self, library: Any, response: Any, raw: bool, close: Callable[[Any, Any], None]
    ) -> None:
        super().__init__(library, response, raw)
        self._close: Callable[[Any, Any], None] | None = close
        self._pieces: AsyncIterator[bytes] = aiter(response.stream)

    async def _next(self) -> bytes:
        async for piece in self._pieces:
            if piece:
                return piece
        self._close = None
        await _close_async(self._pieces, self._response)
        return b""

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close(self._pieces, self._response)


def _filled(pieces: Iterator[bytes]) -> bytes:
    """The next piece that holds something; b"" at the end."""
    return next((piece for piece in pieces if piece), b"")


def _close(response: Any) -> None:
    with suppress(Exception):
        response.close()


async def _close_async(pieces: Any, response: Any) -> None:
    with suppress(Exception):
        if hasattr(pieces, "aclose"):
            await pieces.aclose()
    with suppress(Exception):
        await response.aclose()


def _interrupt(response: Any) -> None:
    """Wake the thread that waits for more of `response`, where nobody else reads the connection."""
    connection = response.extensions.get("network_stream")
    if connection is None or response.extensions.get("http_version") == b"HTTP/2":
        return
    with suppress(Exception):
        held = connection.get_extra_info("socket")
        if held is not None:
            held.shutdown(socket.SHUT_RDWR)


def raised(library: Any, error: UpstreamError, request: Any) -> Exception:
    """What `error` is for a client that has asked `request` through a transport of `library`."""
    cause = error.__cause__
    kind = getattr(library, type(cause).__name__, None)
    if isinstance(kind, type) and issubclass(kind, library.HTTPError):
        made: Exception = kind(str(cause), request=request)
    elif isinstance(cause, Exception):
        copied = own_copy(cause)  # of a transport that raises something of its own
        made = copied if isinstance(copied, Exception) else cause
    else:
        made = _kind_of(library, error)(str(error), request=request)
    return made


def _kind_of(library: Any, error: UpstreamError) -> Any:
    """Where the call was another process's, and only words of its failure came across."""
    if isinstance(error, TimedOut):
        return library.ReadTimeout
    if isinstance(error, Unreachable):
        return library.ConnectError
    return library.RemoteProtocolError if isinstance(error, Broken) else library.ReadError
