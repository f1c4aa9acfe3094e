"""An answer that has no other shape than the one it came in costs each request one call at most."""

from __future__ import annotations

import asyncio

from gateway.conftest import Running, until
from gateway.upstream import Out, Seen, Upstream, completion, once

HALF = "half a pair: \ud800"  # JSON can say it, and no chunk can be made of it


async def json_whatever_was_asked(seen: Seen, out: Out) -> None:
    await out.json(completion(HALF))


async def test_an_own_answer_is_handed_out_in_the_shape_it_came_in(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = json_whatever_was_asked
    got = await gateway.chat(stream=True)
    assert (got.status, got.cache, got.reason, upstream.calls) == (200, "MISS", "new", 1)
    assert got.headers["content-type"] == "application/json"
    assert got.text == HALF


async def test_a_stored_answer_of_the_wrong_shape_is_a_miss_that_says_so(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = json_whatever_was_asked
    await gateway.chat()
    assert (await gateway.chat()).cache == "HIT"
    got = await gateway.chat(stream=True)
    assert (got.cache, got.reason, upstream.calls) == ("MISS", "shape", 2)
    refreshed = await gateway.chat(stream=True, headers={"cache-control": "no-cache"})
    assert (refreshed.cache, upstream.calls) == ("REFRESH", 3)


async def test_who_waited_for_an_answer_of_the_wrong_shape_makes_one_call(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    upstream.script = once(gate, json_whatever_was_asked)
    first = asyncio.create_task(gateway.chat())
    await upstream.called()
    second = asyncio.create_task(gateway.chat(stream=True))
    await until(lambda: gateway.assembly.world.following == 2)
    gate.set()
    assert (await first).text == (await second).text == HALF
    assert ((await second).cache, (await second).reason) == ("MISS", "shape")
    assert upstream.calls == 2
