"""What a transport keeps beside its cache, however many base URLs and event loops it serves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable

import httpx2

from adapters.conftest import Stage
from gateway.upstream import Out, Seen, completion
from thinkonce.adapters.bench import Bench
from thinkonce.engine.parts import LEAST, MIB, Parts
from thinkonce.httpx2 import AsyncCachingTransport

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
# An eighth of it may lie beside it, and as much again: what is least.
MOST = {"max_bytes": 8 * LEAST, "max_entry_bytes": 2 * MIB}


def parts_in(benches: Iterable[Bench]) -> list[Parts]:
    """Every table of ready answers, once."""
    return list({id(bench.beside.parts): bench.beside.parts for bench in benches}.values())


async def test_ready_answers_of_many_base_urls_have_one_bound(stage: Stage) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.json(completion("x" * (2 * MIB - 4096)))

    stage.upstream.script = speak
    client = stage.client(**MOST)
    for base in range(6):
        url = client.url.removesuffix("v1") + f"{base}/v1/chat/completions"
        assert [(await client.post(url, ASKED)).cache for _ in "12"] == ["MISS", "HIT"]
    transport = client.transport
    is_async = stage.kind.is_async
    benches = transport._benches.values() if is_async else [transport._side._running[2]]
    held = sum(parts.bytes for parts in parts_in(benches))
    assert LEAST / 4 < held <= LEAST


class Provider(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=completion())


async def ask(transport: AsyncCachingTransport, host: str) -> str:
    request = httpx2.Request("POST", f"http://{host}/v1/chat/completions", json=ASKED)
    answer = await transport.handle_async_request(request)
    return str(answer.headers["x-cache"])


def test_loops_have_one_bound_together_and_give_back_what_they_had() -> None:
    transport = AsyncCachingTransport(Provider(), max_bytes=16 * MIB)
    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops:
        for host in ("x", "y"):
            assert loop.run_until_complete(ask(transport, host)) in ("MISS", "HIT")
    benches = list(transport._benches.values())
    bounds = [parts.max_bytes for parts in parts_in(benches)]
    assert LEAST * 0.9 < sum(bounds) <= LEAST
    memos = [memo._max_bytes for bench in benches for memo in bench.beside.memos.values()]
    assert 2 * MIB * 0.9 < sum(memos) <= 2 * MIB
    del loop, benches
    while loops:
        loops.pop().close()
    gc.collect()
    assert asyncio.run(_bounds_of(transport)) == [max(bounds)]


async def _bounds_of(transport: AsyncCachingTransport) -> list[int]:
    await ask(transport, "x")
    return [parts.max_bytes for parts in parts_in(transport._benches.values())]


async def test_requests_to_two_base_urls_are_told_apart_in_one_memo(stage: Stage) -> None:
    client, other = stage.client(), await stage.another_upstream()
    here, there = client.url + "/chat/completions", other.url + "/chat/completions"

    async def speak(seen: Seen, out: Out) -> None:
        await out.json(completion("another"))

    other.script = speak
    urls = [here, there] * 3  # the third time a request is known byte for byte
    got = [await client.post(url, ASKED) for url in urls]
    assert [each.text for each in got] == ["hello", "another"] * 3
    assert [each.cache for each in got] == ["MISS"] * 2 + ["HIT"] * 4
