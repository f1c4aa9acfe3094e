"""What providers, clients and processes do to a call, and what the transports make of it."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adapters.conftest import Client, Kind, Stage
from gateway.conftest import MovableClock, until
from gateway.upstream import DONE, Out, Seen, Upstream, broken_off, chunks, endless, once
from gateway.whole_provider import provide
from thinkonce import Cache, ConfigError

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def failure_of(kind: Kind, asking: Any) -> tuple[str, Any]:
    """The library's own exception, by name, and the URL it names."""
    with pytest.raises(kind.library.HTTPError) as caught:
        await asking
    return type(caught.value).__name__, caught.value.request.url


async def read_stream(
    client: Client, *, pieces: int = 0, mark: bytes = b"\0", **fields: Any
) -> list[bytes]:
    """The pieces of a streamed answer, all, the first or up to `mark`; then it is closed."""
    body = ASKED | {"stream": True} | fields
    url, sent = client.url + "/chat/completions", {"authorization": "Bearer k"}

    def blocking() -> list[bytes]:
        read = []
        with client.client.stream("POST", url, json=body, headers=sent) as answer:
            for piece in answer.iter_bytes():
                read.append(piece)
                if len(read) == pieces or mark in piece:
                    break
        return read

    async def on_loop() -> list[bytes]:
        read = []
        async with client.client.stream("POST", url, json=body, headers=sent) as answer:
            async for piece in answer.aiter_bytes():
                read.append(piece)
                if len(read) == pieces or mark in piece:
                    break
        return read

    return await (on_loop() if client.kind.is_async else asyncio.to_thread(blocking))


async def test_no_connection_is_the_librarys_own_error(client: Client, upstream: Upstream) -> None:
    await upstream.stop()
    url = client.url + "/chat/completions"
    assert await failure_of(client.kind, client.chat()) == ("ConnectError", url)
    await upstream.start(upstream.port)
    assert (await client.chat()).cache == "MISS", "and nothing was kept"


async def test_a_slow_provider_meets_the_clients_own_timeout(
    stage: Stage, upstream: Upstream
) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    upstream.script = never
    client = stage.client(timeout=stage.kind.library.Timeout(10, read=0.05))
    assert (await failure_of(client.kind, client.chat()))[0] == "ReadTimeout"
    assert upstream.calls == 1


async def test_who_waits_for_anothers_call_keeps_his_own_time(
    stage: Stage, client: Client, upstream: Upstream
) -> None:
    go = asyncio.Event()

    upstream.script = once(go, provide)
    cache = Cache(ttl="1h")
    patient = stage.client(cache=cache)
    hasty = stage.client(cache=cache, timeout=0.02)
    leading = asyncio.create_task(patient.chat())
    await upstream.called()
    assert (await failure_of(hasty.kind, hasty.chat()))[0] == "ReadTimeout"
    go.set()
    assert ((await leading).cache, upstream.calls) == ("MISS", 1)


async def test_an_answer_that_breaks_off_raises_and_is_not_kept(
    client: Client, upstream: Upstream
) -> None:
    upstream.script = broken_off(chunks("half")[1])
    for calls in (1, 2):
        name, url = await failure_of(client.kind, read_stream(client))
        assert (name, url.path) in [
            (kind, "/v1/chat/completions") for kind in ("RemoteProtocolError", "ReadError")
        ]
        assert upstream.calls == calls


async def test_a_broken_answer_of_a_request_the_cache_stands_aside_for_raises_too(
    client: Client, upstream: Upstream
) -> None:
    upstream.script = broken_off(chunks("half")[1])
    name, _ = await failure_of(client.kind, read_stream(client, kv_cache={"enabled": False}))
    assert name in ("RemoteProtocolError", "ReadError")


async def test_a_failed_call_fails_for_everybody_who_waited_once(
    client: Client, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def drop(seen: Seen, out: Out) -> None:
        await go.wait()
        out.cut()

    upstream.script = drop
    asking = [asyncio.create_task(client.chat()) for _ in range(5)]
    flights = client.transport.cache.shelf.flights
    await until(lambda: sum(each.followers for each in flights._table.values()) == 5)
    go.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(each).__name__ for each in failures} <= {"RemoteProtocolError", "ReadError"}
    assert len({id(each) for each in failures}) == 5, "each has its own"
    assert upstream.calls == 1


async def test_a_stale_answer_stands_in_for_a_provider_that_is_gone(
    stage: Stage, upstream: Upstream
) -> None:
    moving = MovableClock()
    cache = Cache(ttl=60, stale_if_error=600, jitter=0, early_refresh=0, clock=moving.clock)
    client = stage.client(cache=cache)
    assert (await client.chat()).cache == "MISS"
    moving.move(61)
    await upstream.stop()
    assert ((got := await client.chat()).cache, got.text) == ("STALE", "hello")
    await upstream.start(upstream.port)


async def test_a_client_that_leaves_in_the_middle_ends_the_call(
    client: Client, upstream: Upstream
) -> None:
    upstream.script = endless(chunks("a")[1])
    assert len(await read_stream(client, pieces=1)) == 1
    await upstream.left()
    await until(lambda: len(client.transport.cache.shelf.flights) == 0)


async def test_a_client_that_leaves_at_the_end_mark_loses_no_answer(
    client: Client, upstream: Upstream
) -> None:
    left = asyncio.Event()

    async def end_late(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for each in [*chunks("hello"), DONE]:
            await out.event(each)
        await left.wait()
        await out.end()

    upstream.script = end_late
    await read_stream(client, mark=b"[DONE]")
    flights = client.transport.cache.shelf.flights
    await until(lambda: not sum(each.followers for each in flights._table.values()))
    left.set()
    await until(lambda: len(flights) == 0)
    assert ((await client.chat()).cache, upstream.calls) == ("HIT", 1)


async def test_one_that_leaves_does_not_take_the_stream_from_others(
    client: Client, upstream: Upstream
) -> None:
    both, go = asyncio.Event(), asyncio.Event()

    async def paused(seen: Seen, out: Out) -> None:
        first, *rest = chunks("hel", "lo")
        await both.wait()
        await out.begin_stream()
        await out.event(first)
        await go.wait()
        for each in [*rest, DONE]:
            await out.event(each)
        await out.end()

    upstream.script = paused
    leaving = asyncio.create_task(read_stream(client, pieces=1))
    staying = asyncio.create_task(read_stream(client))
    flights = client.transport.cache.shelf.flights
    await until(lambda: sum(each.followers for each in flights._table.values()) == 2)
    both.set()
    await leaving
    await until(lambda: sum(each.followers for each in flights._table.values()) == 1)
    go.set()
    assert b"[DONE]" in b"".join(await staying)
    assert upstream.calls == 1
    assert (await client.chat()).cache == "HIT", "it was read to its end and kept"


async def test_a_cancelled_asker_ends_a_call_nobody_else_waits_for(
    client: Client, upstream: Upstream
) -> None:
    if not client.kind.is_async:
        pytest.skip("a thread cannot be cancelled")

    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    upstream.script = never
    asking = asyncio.create_task(client.chat())
    await upstream.called()
    asking.cancel()
    await upstream.left()


async def test_an_answer_that_is_dropped_unread_is_left(client: Client, upstream: Upstream) -> None:
    upstream.script = endless(chunks("a")[1])
    request = client.client.build_request(
        "POST", client.url + "/chat/completions", json=ASKED | {"stream": True}
    )
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    answer = await client.call("send", request, stream=True)
    assert answer.status_code == 200
    del answer
    # Behind the thread that asked, and a step of the loop later: until then both have it.
    await asyncio.to_thread(gc.collect)
    await upstream.left()


async def test_a_closed_transport_leaves_nothing_running(stage: Stage, upstream: Upstream) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    before = set(threading.enumerate())
    transport = stage.kind.transport()
    client = Client(stage.kind, stage.kind.client(transport), transport, upstream.url)
    assert (await client.chat()).cache == "MISS"
    upstream.script = never
    asking = asyncio.create_task(client.chat("another"))
    await upstream.called(2)
    await client.call("aclose" if stage.kind.is_async else "close")
    with pytest.raises(stage.kind.library.HTTPError):
        await asking
    assert upstream.calls == 2, "and nobody has asked anew"
    await upstream.stop()
    left = [each for each in set(threading.enumerate()) - before if "thinkonce" in each.name]
    for thread in left:
        await asyncio.to_thread(thread.join, 5)
    assert not any(thread.is_alive() for thread in left)
    await upstream.start(upstream.port)


async def test_a_cache_that_was_given_stays_open(stage: Stage, tmp_path: Any) -> None:
    with Cache(f"sqlite:///{tmp_path}/a.db", ttl="1h") as cache:
        transport = stage.kind.transport(cache=cache)
        client = Client(stage.kind, stage.kind.client(transport), transport, stage.upstream.url)
        assert (await client.chat()).cache == "MISS"
        await client.call("aclose" if stage.kind.is_async else "close")
        cache.set("still", "open")
        assert cache.flush()
    again = stage.client(store=f"sqlite:///{tmp_path}/a.db")
    assert (await again.chat()).cache == "HIT"


def test_without_an_event_loop_of_asyncio_requests_pass_through(kind: Kind) -> None:
    if not kind.is_async:
        pytest.skip("a blocking transport needs none")

    class Wrapped(kind.library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return kind.library.Response(200, content=b"theirs")

    request = kind.library.Request("POST", "http://x/v1/chat/completions", json=ASKED)
    asking = kind.transport(Wrapped()).handle_async_request(request)
    with pytest.raises(StopIteration) as done:
        asking.send(None)
    assert "x-cache" not in done.value.value.headers


async def test_an_exception_of_a_wrapped_transports_own_is_raised_as_it_is(stage: Stage) -> None:
    class OddError(Exception):
        pass

    library = stage.kind.library

    class Blocking(library.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            raise OddError("mine")

    class Async(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            raise OddError("mine")

    client = stage.client((Async if stage.kind.is_async else Blocking)())
    with pytest.raises(OddError, match="mine"):
        await client.chat()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache": Cache(), "ttl": 5}, "ttl=5 does not work"),
        ({"ttl": "soon"}, "ttl='soon' does not work"),
        ({"priority": "first"}, "priority='first'"),
        ({"remote_media": "x"}, "remote_media='x'"),
        ({"samples": 0}, "samples=0"),
        ({"max_entry_bytes": "many"}, "max_entry_bytes"),
    ],
)
def test_what_cannot_work_is_said_at_once(kind: Kind, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind.transport(**options)
    with pytest.raises(TypeError, match="unknown argument 'tll'"):
        kind.transport(tll=1)
