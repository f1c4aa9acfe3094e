"""How much of all request bodies a gateway holds at once: [gateway] bodies_limit."""

from __future__ import annotations

import asyncio
import gzip
import json
from random import Random
from typing import Any

import pytest

from gateway.conftest import CHAT, Got, Running, Stage, settings_of, until
from gateway.upstream import Out, Seen, answer
from gateway.wire import asked, connections, held, line
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import Pools

KIB = 1024
JSON = {"content-type": "application/json"}


@pytest.fixture
def way(all_ways: str) -> str:
    """A hit must be refused as a miss is, whoever reads its body."""
    return all_ways


async def gateway_of(stage: Stage, limit: int | None = 64 * KIB, **more: Any) -> Running:
    return await stage.gateway(gateway={"bodies_limit": limit, **more})


def bytes_held(gateway: Running) -> int:
    return gateway.assembly.metrics.bodies.held


async def busy(
    stage: Stage, gateway: Running, size: int
) -> tuple[asyncio.Event, asyncio.Task[Got]]:
    """A request of `size` bytes and a few is under way until the event is set."""
    go_on = asyncio.Event()

    async def script(seen: Seen, out: Out) -> None:
        await go_on.wait()
        await answer(seen, out)

    calls, stage.upstream.script = stage.upstream.calls, script
    asking = asyncio.ensure_future(gateway.chat("x" * size))
    await until(lambda: stage.upstream.calls > calls)
    stage.upstream.script = answer
    return go_on, asking


def refused(got: Got) -> bool:
    if got.status != 503:
        return False
    assert got.json["error"]["code"] == "bodies_limit_exceeded"
    assert got.json["error"]["param"] == "bodies_limit"
    assert "[gateway] bodies_limit" in got.json["error"]["message"]
    assert int(got.headers["retry-after"]) >= 1
    return True


async def test_a_body_for_which_there_is_no_room_is_refused_and_counted(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    go_on, asking = await busy(stage, gateway, 40 * KIB)
    assert 40 * KIB < await gateway.metric("thinkonce_body_bytes") < 41 * KIB
    assert refused(await gateway.chat("y" * 30 * KIB))
    assert refused(await gateway.send("POST", "/v1/audio/speech", b"z" * 30 * KIB, JSON))
    assert (await gateway.chat("y" * 20 * KIB)).status == 200, "a smaller one has room"
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_limited_total{reason="bodies_limit"} 2.0' in text
    go_on.set()
    assert (await asking).status == 200
    assert (await gateway.chat("y" * 30 * KIB)).status == 200
    assert bytes_held(gateway) == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/audio/speech"])
@pytest.mark.parametrize("more", ["", "expect: 100-continue\r\n"])
async def test_it_is_said_before_the_body_is_sent(stage: Stage, path: str, more: str) -> None:
    gateway = await gateway_of(stage)
    go_on, asking = await busy(stage, gateway, 40 * KIB)
    async with line(gateway) as wire:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{more}content-length: 30720\r\n\r\n"
        await wire.send(head.encode())
        async with asyncio.timeout(10):
            assert (await wire.answer())[0] == "503", "and no 100"
    go_on.set()
    await asking


async def test_what_is_announced_and_does_not_come_takes_no_room(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60000\r\n\r\n".encode()
    async with line(gateway) as one, line(gateway) as other:
        for wire in (one, other):
            await wire.send(head + b"{")
        await until(lambda: len(connections(gateway)) > 1 and bytes_held(gateway) >= 2)
        assert bytes_held(gateway) < KIB
        assert (await gateway.chat("y" * 50 * KIB)).status == 200
    await until(lambda: bytes_held(gateway) == 0)


async def test_a_body_of_unknown_length_is_refused_once_there_is_no_room(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    go_on, asking = await busy(stage, gateway, 40 * KIB)
    async with line(gateway) as wire:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        await wire.send(head.encode())
        for _ in range(3):
            await wire.send(b"2800\r\n" + b" " * 0x2800 + b"\r\n")
        async with asyncio.timeout(10):
            assert (await wire.answer())[0] == "503"
    await until(lambda: bytes_held(gateway) < 41 * KIB)
    go_on.set()
    await asking


async def test_a_compressed_body_counts_as_what_it_unfolds_to(stage: Stage) -> None:
    gateway = await gateway_of(stage, 600 * KIB)
    content = Random(4).randbytes(10 * KIB).hex() * 20
    message = {"model": "priced", "messages": [{"role": "user", "content": content}]}
    sent = gzip.compress(json.dumps(message).encode())
    assert len(sent) < 20 * KIB
    zipped = JSON | {"content-encoding": "gzip"}
    go_on, asking = await busy(stage, gateway, 300 * KIB)
    assert refused(await gateway.send("POST", CHAT, sent, zipped))
    assert 300 * KIB < bytes_held(gateway) < 301 * KIB
    go_on.set()
    await asking
    assert (await gateway.send("POST", CHAT, sent, zipped)).status == 200
    assert bytes_held(gateway) == 0


async def test_one_alone_is_served_whatever_its_size(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    for content in ("y" * 300 * KIB, "z" * 300 * KIB):
        assert (await gateway.chat(content)).status == 200
    assert bytes_held(gateway) == 0


async def test_whoever_leaves_gives_the_room_back(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    go_on, asking = await busy(stage, gateway, 40 * KIB)
    asking.cancel()
    await until(lambda: bytes_held(gateway) == 0)
    request = asked("y" * 40 * KIB)
    async with line(gateway) as wire:
        assert await wire.ask(request) == "MISS"
    for _ in range(2):
        async with line(gateway) as wire:
            await wire.send(request[: 30 * KIB])
            await until(lambda: bytes_held(gateway) > 20 * KIB)
        await until(lambda: bytes_held(gateway) == 0)
    go_on.set()


async def test_a_body_that_the_lane_waits_for_counts_too(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    request = asked("y" * 40 * KIB)
    async with line(gateway) as wire:
        for cache in ("MISS", "HIT", "HIT"):
            assert await wire.ask(request) == cache
    async with line(gateway) as one, line(gateway) as other:
        await one.send(request[: 30 * KIB])
        await until(lambda: bytes_held(gateway) > 20 * KIB)
        assert held(gateway) is (stage.way == "lane")
        await other.send(request[: 35 * KIB])
        async with asyncio.timeout(10):
            assert (await other.answer())[0] == "503"
        assert await one.ask(request[30 * KIB :]) == "HIT"
        assert bytes_held(gateway) == 0
    await until(lambda: not connections(gateway))


async def test_a_reload_changes_it(stage: Stage) -> None:
    gateway = await gateway_of(stage)
    go_on, asking = await busy(stage, gateway, 40 * KIB)
    pools = {"main": Pool(urls=[stage.upstream.url])}
    for limit, status in ((None, 200), (64 * KIB, 503), (128 * KIB, 200)):
        chosen = {"bodies_limit": limit, "fast_lane": stage.way == "lane"}
        settings = settings_of(pools, gateway=chosen)
        gateway.assembly.adopt(settings, Pools.of(pools))
        assert (await gateway.chat(f"{status}" + "y" * 30 * KIB)).status == status, limit
    go_on.set()
    await asking
