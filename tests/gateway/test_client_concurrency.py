"""How many requests a client may have under way: `max_concurrent` in [clients.NAME]."""

from __future__ import annotations

import asyncio

import pytest

from gateway.conftest import CHAT, Got, Running, Stage, settings_of, until
from gateway.test_clients import bearer, client
from gateway.upstream import Out, Seen, answer, chunks
from gateway.wire import asked, connections, held, line
from thinkonce.settings import Client
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import Pools

ALICE = "authorization: Bearer tk-a"


@pytest.fixture
def way(all_ways: str) -> str:
    """Hits must be refused as misses are, whoever answers them."""
    return all_ways


async def gateway_for(stage: Stage, **clients: Client) -> Running:
    return await stage.gateway(clients=clients, clock=stage.moving.clock)


class Held:
    """An upstream that answers `known` at once and everything else when it may."""

    def __init__(self, stage: Stage) -> None:
        self.go_on = asyncio.Event()
        self._stage = stage
        stage.upstream.script = self.script

    async def script(self, seen: Seen, out: Out) -> None:
        if seen.json["messages"][0]["content"] != "known":
            await self.go_on.wait()
        await answer(seen, out)

    async def under_way(self, gateway: Running, *contents: str) -> list[asyncio.Task[Got]]:
        before = self._stage.upstream.calls
        tasks = [
            asyncio.ensure_future(gateway.chat(content, headers=bearer("tk-a")))
            for content in contents
        ]
        await until(lambda: self._stage.upstream.calls == before + len(contents))
        return tasks


def room_of(gateway: Running, key: str = "tk-a") -> int:
    found = gateway.assembly.service.clients.find([(b"authorization", f"Bearer {key}".encode())])
    assert found is not None
    assert found.room is not None
    return found.room.busy


async def test_no_more_are_under_way_than_the_client_may_have(stage: Stage) -> None:
    upstream = Held(stage)
    gateway = await gateway_for(
        stage, alice=client("tk-a", max_concurrent=2, rate_limit=7), bob=client("tk-b")
    )
    for _ in range(3):  # the lane knows it by then
        assert (await gateway.chat("known", headers=bearer("tk-a"))).status == 200
    waiting = await upstream.under_way(gateway, "one", "two")
    for content in ("three", "known", "known"):
        got = await gateway.chat(content, headers=bearer("tk-a"))
        error = got.json["error"]
        assert (got.status, error["code"]) == (429, "concurrency_limit_exceeded"), content
        assert error["param"] == "max_concurrent"
        assert "2 requests" in error["message"]
        assert int(got.headers["retry-after"]) >= 1
    assert (await gateway.get("/v1/models", bearer("tk-a"))).status == 429, "other paths as well"
    assert (await gateway.chat("known", headers=bearer("tk-b"))).status == 200
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_limited_total{reason="max_concurrent"} 4.0' in text
    upstream.go_on.set()
    assert [got.status for got in await asyncio.gather(*waiting)] == [200, 200]
    statuses = [(await gateway.chat("known", headers=bearer("tk-a"))).status for _ in range(3)]
    assert statuses == [200, 200, 429], "what was refused for want of a place cost no turn"
    assert room_of(gateway) == 0


async def test_one_refused_by_the_rate_limit_gives_its_place_back(stage: Stage) -> None:
    gateway = await gateway_for(stage, alice=client("tk-a", max_concurrent=2, rate_limit=1))
    statuses = [(await gateway.chat(headers=bearer("tk-a"))).status for _ in range(4)]
    assert statuses == [200, 429, 429, 429]
    assert room_of(gateway) == 0
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_limited_total{reason="rate_limit"} 3.0' in text


async def test_a_stream_keeps_its_place_until_its_end(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def script(seen: Seen, out: Out) -> None:
        first, *rest = chunks("hel", "lo")
        await out.begin_stream()
        await out.event(first)
        await go_on.wait()
        for event in [*rest, "[DONE]"]:
            await out.event(event)
        await out.end()

    stage.upstream.script = script
    gateway = await gateway_for(stage, alice=client("tk-a", max_concurrent=1))
    body = {"model": "priced", "messages": [], "stream": True}
    async with gateway.session.post(
        gateway.url + CHAT, json=body, headers=bearer("tk-a")
    ) as response:
        assert b"data:" in await response.content.readline()
        assert (await gateway.chat("other", headers=bearer("tk-a"))).status == 429
        go_on.set()
        await response.read()
    assert (await gateway.chat("other", headers=bearer("tk-a"), stream=True)).status == 200


async def test_who_leaves_in_the_middle_gives_the_place_back(stage: Stage) -> None:
    upstream = Held(stage)
    gateway = await gateway_for(stage, alice=client("tk-a", max_concurrent=1))
    (leaving,) = await upstream.under_way(gateway, "one")
    leaving.cancel()
    await until(lambda: room_of(gateway) == 0)
    upstream.go_on.set()
    for _ in range(3):
        assert (await gateway.chat("known", headers=bearer("tk-a"))).status == 200


async def test_who_leaves_before_the_body_is_whole_gives_the_place_back(stage: Stage) -> None:
    gateway = await gateway_for(stage, alice=client("tk-a", max_concurrent=1))
    request = asked("hi", ALICE)
    for number in range(3):
        async with line(gateway) as wire:
            await wire.send(request[:-9])
            if stage.way == "lane" and number:  # it knows the head by then
                await until(lambda: held(gateway))
                assert room_of(gateway) == 0, "it takes a place once it is whole"
            else:
                await until(lambda: room_of(gateway) == 1)
        await until(lambda: not connections(gateway) and room_of(gateway) == 0)
        async with line(gateway) as wire:
            assert await wire.ask(request) == ("HIT" if number else "MISS")
        await until(lambda: not connections(gateway))


async def test_a_reload_changes_it_and_what_is_under_way_counts_on(stage: Stage) -> None:
    upstream = Held(stage)
    pools = {"main": Pool(urls=[stage.upstream.url])}
    gateway = await stage.gateway(upstreams=pools, clients={"alice": client("tk-a")})

    def allow(most: int | None) -> None:
        clients = {"alice": client("tk-a", max_concurrent=most)}
        settings = settings_of(pools, clients=clients, gateway={"fast_lane": stage.way == "lane"})
        gateway.assembly.adopt(settings, Pools.of(pools))

    async def is_let_in() -> bool:
        return (await gateway.chat("known", headers=bearer("tk-a"))).status == 200

    allow(2)
    waiting = await upstream.under_way(gateway, "one", "two")
    assert not await is_let_in()
    allow(3)
    assert await is_let_in()
    assert await is_let_in()
    allow(1)
    assert not await is_let_in()
    allow(None)
    assert await is_let_in()
    upstream.go_on.set()
    await asyncio.gather(*waiting)
    allow(1)
    assert await is_let_in()
    assert room_of(gateway) == 0
