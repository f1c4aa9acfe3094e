"""Transports that answer from a cache what was asked before; all else the wrapped one does.

    client ──► transport ──► ours? ──► endpoints ──► hit
                              │            └──► wrapped transport ──► provider
                              └── no ───────────────┘

Both kinds run the same endpoints: the asynchronous one on the loop it is called on, the blocking
one on a loop of its own, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import Any, Unpack

from thinkonce.adapters.answering import Answering
from thinkonce.adapters.bench import Bench, NotOurs
from thinkonce.adapters.options import Options, plan_of
from thinkonce.adapters.question import Question, question_of
from thinkonce.adapters.shares import Shares
from thinkonce.adapters.side_loop import SideLoop
from thinkonce.adapters.upstream import AsyncUpstream, BlockingUpstream, raised
from thinkonce.cache import Cache
from thinkonce.errors import UpstreamError

__all__ = ("AsyncPieces", "AsyncTransport", "BlockingPieces", "BlockingTransport")

log = logging.getLogger("thinkonce")

# As the SDKs of OpenAI and Anthropic have it: a model's server is slow, so many calls wait.
CONNECTIONS, KEPT_ALIVE = 1000, 100


class _Transport:
    library: Any  # `httpx` or `httpx2`
    pieces: Any  # the class of a body that is not there yet

    def __init__(self, wrapped: Any, default: Any, options: Options) -> None:
        self._plan = plan_of(options)  # first: where it refuses, nothing is left to be closed
        self._wrapped = _default(self.library, default) if wrapped is None else wrapped

    @property
    def cache(self) -> Cache:
        """Where the answers lie: `cache.stats()`, `cache.purge(...)`."""
        return self._plan.cache

    def _question(self, request: Any) -> Question | None:
        try:
            return question_of(self.library, request)
        except Exception:
            log.exception("a request is passed on uncached: it could not be read")
            return None

    def _response(self, question: Question, answering: Answering, *reader: Any) -> Any:
        """`reader`: who reads what is not there yet."""
        whole = answering.whole()
        if whole is None:
            stream = self.pieces(answering, question.request, *reader)
        else:
            stream = self.library.ByteStream(whole)
        headers = answering.headers
        if question.provider_id:  # what a provider's support asks for
            theirs = (b"x-request-id", question.provider_id)
            headers = [theirs if pair[0] == b"x-request-id" else pair for pair in headers]
        known = {"http_version": b"HTTP/1.1"}
        return self.library.Response(
            answering.status, headers=headers, stream=stream, extensions=known
        )


def _default(library: Any, kind: Any) -> Any:
    limits = library.Limits(max_connections=CONNECTIONS, max_keepalive_connections=KEPT_ALIVE)
    return kind(limits=limits)


class BlockingTransport(_Transport):
    """Thread-safe. `transport` is what providers are asked with; it is closed with this one."""

    def __init__(self, transport: Any = None, **options: Unpack[Options]) -> None:
        library = self.library
        super().__init__(transport, library.HTTPTransport, options)
        plan, wrapped = self._plan, self._wrapped
        self._side = SideLoop(lambda: Bench(plan, BlockingUpstream(library, wrapped)))

    def handle_request(self, request: Any) -> Any:
        question = self._question(request)
        if question is None:
            return self._wrapped.handle_request(request)
        try:
            answering = self._side.run(lambda bench: bench.ask(question))
        except NotOurs:
            return self._wrapped.handle_request(request)
        except UpstreamError as error:
            raise raised(self.library, error, request) from error
        return self._response(question, answering, self._side)

    def close(self) -> None:
        """Calls under way end, and nothing is asked through it any more."""
        with ExitStack() as last:
            if self._plan.owns:
                last.callback(self._plan.cache.close)
            last.callback(self._wrapped.close)
            self._side.close(lambda bench: bench.close())


class BlockingPieces:
    """A body as it comes, for whoever reads it in another thread than it is made in."""

    library: Any

    def __init__(self, answering: Answering, request: Any, side: SideLoop[Bench]) -> None:
        self._answering, self._request, self._side = answering, request, side

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._side.run(lambda _: self._answering.next()):
                yield piece
        except UpstreamError as error:
            raise raised(self.library, error, self._request) from error

    def close(self) -> None:
        self._side.soon(self._answering.leave)

    def __del__(self) -> None:
        self.close()


class AsyncTransport(_Transport):
    """For any number of event loops of asyncio; on another's (trio) requests pass through.

    `transport` is what providers are asked with; it is closed with this one.
    """

    def __init__(self, transport: Any = None, **options: Unpack[Options]) -> None:
        super().__init__(transport, self.library.AsyncHTTPTransport, options)
        self._upstream = AsyncUpstream(self.library, self._wrapped)
        self._benches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bench]
        self._benches = weakref.WeakKeyDictionary()
        self._shares = Shares()

    async def handle_async_request(self, request: Any) -> Any:
        bench, question = self._bench(), self._question(request)
        if question is None or bench is None:
            return await self._wrapped.handle_async_request(request)
        try:
            answering = await bench.ask(question)
        except NotOurs:
            return await self._wrapped.handle_async_request(request)
        except UpstreamError as error:
            raise raised(self.library, error, request) from error
        return self._response(question, answering)

    async def aclose(self) -> None:
        """Calls under way on the running loop end."""
        bench = self._bench()
        async with AsyncExitStack() as last:
            if self._plan.owns and bench is None:
                last.callback(self._plan.cache.close)
            elif self._plan.owns:
                last.push_async_callback(asyncio.to_thread, self._plan.cache.close)
            last.push_async_callback(self._wrapped.aclose)
            if bench is not None:
                await bench.close()
                await self._upstream.closed()

    def _bench(self) -> Bench | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        bench = self._benches.get(loop)
        if bench is None:
            bench = self._shares.lend(partial(Bench, self._plan, self._upstream))
            self._benches[loop] = bench
        return bench


class AsyncPieces:
    """A body as it comes, on the loop it is made on."""

    library: Any

    def __init__(self, answering: Answering, request: Any) -> None:
        self._answering, self._request = answering, request
        self._loop = asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._answering.next():
                yield piece
        except UpstreamError as error:
            raise raised(self.library, error, self._request) from error

    async def aclose(self) -> None:
        self._answering.leave()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing runs there any more
            self._loop.call_soon_threadsafe(self._answering.leave)
