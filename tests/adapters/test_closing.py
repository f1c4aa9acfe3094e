"""What is left of a transport that is closed while others still use it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import pytest

from adapters.conftest import Kind, Stage
from gateway.upstream import chunks, endless
from thinkonce import Cache, ConfigError, UpstreamError
from thinkonce.adapters.side_loop import SideLoop
from thinkonce.httpx2 import AsyncCachingTransport

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/chat/completions"
SOON = 5.0  # seconds that nothing here should take


def test_a_call_begun_while_the_loop_ends_is_told_that_it_is_closed() -> None:
    side: SideLoop[None] = SideLoop(lambda: None)
    waits, chosen, ending, over = [threading.Event() for _ in range(4)]

    async def under_way() -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:  # the loop ends its tasks: what is begun now it has not seen
            ending.set()
            while not over.is_set():
                await asyncio.sleep(0)

    async def late() -> None:
        over.set()
        await asyncio.Event().wait()

    def begin_late(_: None) -> Coroutine[Any, Any, None]:
        chosen.set()  # the loop
        ending.wait(SOON)
        return late()

    told: list[str] = []

    def ask(work: Callable[[None], Coroutine[Any, Any, None]]) -> None:
        try:
            side.run(work)
        except UpstreamError as error:
            told.append(str(error))
        finally:
            over.set()

    async def nothing(_: None) -> None: ...

    works = [lambda _: under_way(), begin_late]
    askers = [threading.Thread(target=ask, args=(work,), daemon=True) for work in works]
    for asker, begun in zip(askers, (waits, chosen), strict=True):
        asker.start()
        assert begun.wait(SOON)
    side.close(nothing)
    for asker in askers:
        asker.join(SOON)
    assert told == ["the transport was closed"] * 2


async def test_a_stream_read_on_after_closing_is_the_librarys_own_error(stage: Stage) -> None:
    stage.upstream.script = endless(chunks("a")[1])
    client = stage.client()
    request = client.client.build_request("POST", client.url + PATH, json=ASKED)
    before = set(threading.enumerate())
    answer = await client.call("send", request, stream=True)
    close = "aclose" if stage.kind.is_async else "close"
    if stage.kind.is_async:
        read = aiter(answer.stream)
        assert await anext(read)
        await client.call(close)
        with pytest.raises(stage.kind.library.TransportError, match="the transport was closed"):
            await anext(read)
    else:
        read = iter(answer.stream)
        assert await asyncio.to_thread(next, read)
        await client.call(close)
        with pytest.raises(stage.kind.library.TransportError, match="the transport was closed"):
            await asyncio.to_thread(next, read)
    ours = [each for each in set(threading.enumerate()) - before if "thinkonce-tr" in each.name]
    assert not ours, "and no thread has begun anew"


class Held(httpx2.AsyncByteStream):
    """A stream that has not ended, and that takes its time to close."""

    def __init__(self) -> None:
        self.closing, self.go = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'data: {"choices": []}\n\n'
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closing.set()
        await self.go.wait()


class Provider(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self.stream: Held | None = None
        self.is_closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.stream = Held()
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, stream=self.stream
        )

    async def aclose(self) -> None:
        self.is_closed = True


async def test_closing_waits_for_the_answers_of_the_running_loop_alone() -> None:
    provider = Provider()
    transport = AsyncCachingTransport(provider)
    leaving, go = threading.Event(), threading.Event()

    async def leave_slowly() -> None:
        request = httpx2.Request("POST", "http://x/v1" + PATH, json=ASKED)
        answer = await transport.handle_async_request(request)
        await answer.aclose()
        assert provider.stream is not None
        await provider.stream.closing.wait()
        leaving.set()
        await asyncio.to_thread(go.wait, SOON)
        provider.stream.go.set()

    elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, leave_slowly()))
    assert await asyncio.to_thread(leaving.wait, SOON)
    try:
        await transport.aclose()
    finally:
        go.set()
        await elsewhere
    assert provider.is_closed


async def test_a_wrapped_transport_that_fails_to_close_keeps_no_cache_open(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Cache] = []
    monkeypatch.setattr(Cache, "close", lambda cache: closed.append(cache))
    library = kind.library

    class Blocking(library.BaseTransport):  # type: ignore[misc, name-defined]
        def close(self) -> None:
            raise OSError("mine")

    class Async(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def aclose(self) -> None:
            raise OSError("mine")

    transport = kind.transport((Async if kind.is_async else Blocking)())
    with pytest.raises(OSError, match="mine"):
        await transport.aclose() if kind.is_async else transport.close()
    assert closed == [transport.cache]


def test_a_transport_that_counts_as_false_is_wrapped_all_the_same(kind: Kind) -> None:
    base = kind.library.AsyncBaseTransport if kind.is_async else kind.library.BaseTransport

    class Empty(base):  # type: ignore[misc, valid-type]
        def __len__(self) -> int:
            return 0

    wrapped = Empty()
    assert kind.transport(wrapped)._wrapped is wrapped


def test_no_transport_is_made_for_options_that_cannot_work(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    name = "AsyncHTTPTransport" if kind.is_async else "HTTPTransport"
    monkeypatch.setattr(kind.library, name, lambda **_: made.append(name))
    with pytest.raises(ConfigError):
        kind.transport(None, priority="first")
    assert not made
