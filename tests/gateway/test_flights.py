"""One upstream call for many askers, whoever of them leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter

import aiohttp
import pytest

from gateway.conftest import CHAT, Got, Running, Stage, all_ways, until
from gateway.upstream import (
    DONE,
    Out,
    Seen,
    Upstream,
    answer,
    chunks,
    completion,
    once,
    saying,
)

way = all_ways

ASKERS = 20


class Gate:
    """A script that begins to answer and waits to be let on."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def json(self, seen: Seen, out: Out) -> None:
        await self.open.wait()
        await out.json(completion())

    async def stream(self, seen: Seen, out: Out) -> None:
        await out.begin_stream()
        events = chunks("hel", "lo")
        await out.event(events[0])
        await out.event(events[1])
        await self.open.wait()
        for event in [*events[2:], DONE]:
            await out.event(event)
        await out.end()


async def askers(gateway: Running, upstream: Upstream, **fields: object) -> list[asyncio.Task]:
    """`ASKERS` identical requests, all of them inside the gateway."""
    tasks = [asyncio.create_task(gateway.chat(**fields)) for _ in range(ASKERS)]
    await until(lambda: gateway.assembly.metrics.inflight == ASKERS and upstream.calls > 0)
    return tasks


@pytest.mark.parametrize("streaming", [False, True])
async def test_twenty_identical_requests_at_once_are_one_call(
    gateway: Running, upstream: Upstream, streaming: bool
) -> None:
    gate = Gate()
    upstream.script = gate.stream if streaming else gate.json
    tasks = await askers(gateway, upstream, stream=streaming)
    gate.open.set()
    got = await asyncio.gather(*tasks)
    assert upstream.calls == 1
    assert Counter(one.cache for one in got) == {"MISS": 1, "COALESCED": ASKERS - 1}
    texts = {one.streamed_text if streaming else one.text for one in got}
    assert texts == {"hello"}
    coalesced = next(one for one in got if one.cache == "COALESCED")
    assert coalesced.headers["cache-status"] == "thinkonce; fwd=miss; collapsed"
    assert await gateway.metric("thinkonce_coalesced_total") == ASKERS - 1
    assert (await gateway.chat()).cache == "HIT"


async def test_both_shapes_share_one_call_under_way(gateway: Running, upstream: Upstream) -> None:
    for leading, script in [(True, Gate()), (False, Gate())]:
        upstream.script = script.stream if leading else script.json
        question = f"asked first as {leading}"
        first = asyncio.create_task(gateway.chat(question, stream=leading))
        calls = upstream.calls
        await upstream.called(calls + 1)
        second = asyncio.create_task(gateway.chat(question, stream=not leading))
        await until(lambda: gateway.assembly.metrics.inflight == 2)
        script.open.set()
        streamed, whole = (first, second) if leading else (second, first)
        assert (await streamed).streamed_text == (await whole).text == "hello"
        assert {(await first).cache, (await second).cache} == {"MISS", "COALESCED"}
        assert upstream.calls == calls + 1


async def test_one_who_joins_late_gets_every_event_from_the_first(
    gateway: Running, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.script = gate.stream
    async with open_stream(gateway) as first:
        await first.content.readuntil(b"\n\n")
        await first.content.readuntil(b"\n\n")
        async with open_stream(gateway) as second:
            assert b'"role"' in await second.content.readuntil(b"\n\n"), "from the first event on"
            gate.open.set()
            assert (await second.read()).endswith(b"data: [DONE]\n\n")
        assert (await first.read()).endswith(b"data: [DONE]\n\n")
    assert upstream.calls == 1


async def test_the_leaders_client_may_leave_while_others_stay(
    gateway: Running, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.script = gate.stream
    async with open_stream(gateway) as leader:
        await leader.content.readuntil(b"\n\n")
        async with open_stream(gateway) as follower:
            await follower.content.readuntil(b"\n\n")
            leader.close()
            await until(lambda: gateway.assembly.metrics.inflight == 1)
            gate.open.set()
            assert (await follower.read()).endswith(b"data: [DONE]\n\n")
    assert (upstream.calls, upstream.gone) == (1, 0)
    assert (await gateway.chat()).cache == "HIT", "the answer was completed and stored"


@pytest.mark.parametrize("streaming", [False, True])
async def test_with_nobody_left_the_call_is_ended_and_nothing_is_stored(
    gateway: Running, upstream: Upstream, streaming: bool
) -> None:
    gate = Gate()
    upstream.script = gate.stream if streaming else gate.json
    asking = asyncio.create_task(gateway.chat(stream=streaming))
    await upstream.called()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await upstream.left()
    gate.open.set()
    assert (await gateway.chat(stream=streaming)).cache == "MISS"
    assert upstream.calls == 2


async def test_who_comes_as_the_last_one_leaves_keeps_the_call_under_way(
    gateway: Running, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.script = gate.stream
    async with open_stream(gateway) as reading:
        await reading.content.readuntil(b"\n\n")
        (flight,) = gateway.assembly.shelf.flights._table.values()
        flight.dismiss()
        flight.enlist()  # before the loop comes to cancelling the call
        gate.open.set()
        assert (await reading.read()).endswith(b"data: [DONE]\n\n")
    assert (upstream.calls, upstream.gone) == (1, 0)


async def test_an_abandoned_answer_is_finished_and_stored_where_the_setting_says_so(
    stage: Stage,
) -> None:
    gateway = await stage.gateway(gateway={"finish_abandoned": True})
    gate = Gate()
    stage.upstream.script = gate.json
    asking = asyncio.create_task(gateway.chat())
    await stage.upstream.called()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    late = asyncio.create_task(gateway.chat())
    gate.open.set()
    assert (await late).cache in ("HIT", "COALESCED")
    assert (stage.upstream.calls, stage.upstream.gone) == (1, 0)


async def test_every_follower_gets_the_leaders_failure_once(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    upstream.script = once(gate, saying({"error": {"message": "slow down"}}, 429, retry_after="7"))
    tasks = await askers(gateway, upstream)
    gate.set()
    got = await asyncio.gather(*tasks)
    assert {one.status for one in got} == {429}
    assert {one.headers["retry-after"] for one in got} == {"7"}
    assert upstream.calls == 1, "no storm of retries"


async def test_a_stream_that_breaks_ends_with_an_error_event_for_all_and_is_not_stored(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.event(chunks("half")[1])
        await gate.wait()
        out.cut()

    upstream.script = half
    tasks = await askers(gateway, upstream, stream=True)
    gate.set()
    for got in await asyncio.gather(*tasks):
        assert got.status == 200
        assert got.events[0]["choices"][0]["delta"] == {"content": "half"}
        assert got.events[-1]["error"]["code"] == "upstream_broken"
    upstream.script = Gate().json
    assert len(gateway.assembly.shelf.memory) == 0


async def test_a_renewal_in_the_background_is_one_call(stage: Stage) -> None:
    gateway = await stage.gateway(
        cache={"ttl": 60.0, "stale_while_revalidate": 600.0}, clock=stage.moving.clock
    )
    await gateway.chat()
    stage.moving.move(61)
    gate = Gate()
    stage.upstream.script = gate.json
    stale = await asyncio.gather(*(gateway.chat() for _ in range(5)))
    assert {one.cache for one in stale} == {"STALE"}
    assert stale[0].headers["cache-status"] == "thinkonce; hit; ttl=-1"
    await stage.upstream.called(2)
    gate.open.set()
    await gateway.assembly.world.wait_for_renewals(10)
    assert (await gateway.chat()).cache == "HIT"
    assert stage.upstream.calls == 2


def open_stream(gateway: Running) -> aiohttp.client._RequestContextManager:
    body = {"model": "priced", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers = {"content-type": "application/json"}
    return gateway.session.post(gateway.url + CHAT, data=json.dumps(body), headers=headers)


@pytest.mark.parametrize("streaming", [False, True])
async def test_who_waits_for_a_call_that_the_end_of_the_gateway_cut_off_makes_it_no_more(
    gateway: Running, upstream: Upstream, streaming: bool
) -> None:
    gate = Gate()
    upstream.script = gate.json  # nothing has come yet: whoever waits could lead
    tasks = await askers(gateway, upstream, stream=streaming)
    await gateway.assembly.world.close()
    got = await asyncio.gather(*tasks)
    assert {one.status for one in got} == {502}
    assert upstream.calls == 1


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_member_of_a_group_is_not_refused_because_anothers_key_is(
    stage: Stage, streaming: bool
) -> None:
    keys = ("sk-bad", "sk-good", "sk-poor")
    team = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    gateway = await stage.gateway(groups={"team": team})
    gates = {key: asyncio.Event() for key in keys}

    async def script(seen: Seen, out: Out) -> None:
        key = seen.headers["authorization"].removeprefix("Bearer ")
        await gates[key].wait()
        if key == "sk-good":
            await answer(seen, out)
        else:
            await out.json({"error": {"message": f"not {key}"}}, 401 if key == "sk-bad" else 429)

    stage.upstream.script = script

    def ask(key: str) -> asyncio.Task[Got]:
        headers = {"authorization": f"Bearer {key}"}
        return asyncio.create_task(gateway.chat(headers=headers, stream=streaming))

    leader = ask("sk-bad")
    await stage.upstream.called(1)
    world = gateway.assembly.world
    rest = [ask(key) for key in ("sk-bad", "sk-poor", "sk-good", "sk-good", "sk-poor")]
    await until(lambda: world.following == 1 + len(rest))
    gates["sk-bad"].set()
    await stage.upstream.called(2)
    await until(lambda: world.following == len(rest) - 1)
    for gate in gates.values():
        gate.set()
    got = await asyncio.gather(leader, *rest)
    assert [each.status for each in got] == [401, 401, 429, 200, 200, 429]
    for refused in (0, 1):
        assert b"not sk-bad" in got[refused].body
    assert b"not sk-poor" in got[2].body
    asked = [seen.headers["authorization"][7:] for seen in stage.upstream.seen]
    assert sorted(asked) == ["sk-bad", "sk-good", "sk-poor"], "one call for each key"
