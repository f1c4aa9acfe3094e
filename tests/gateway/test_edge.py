"""Clients that are slow, many, or gone: on real sockets, in the lane and in plain ASGI."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, until
from gateway.upstream import Out, Seen, Upstream, chunk, completion, once, saying
from gateway.wire import Line, asked, connections, line
from thinkonce.web.edge import LEAST_TAKEN, Edge, EdgeLimits, descriptors_for
from thinkonce.web.protocol import _peer_of

SOON = {"request_timeout": 0.05}


@pytest.fixture(params=["lane", "asgi"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ended(gateway: Running, reason: str) -> int:
    """How many connections were ended for `reason`."""
    page = (await gateway.get("/metrics")).body.decode()
    name = f'thinkonce_connections_ended_total{{reason="{reason}"}}'
    (row,) = [row for row in page.splitlines() if row.startswith(name)]
    return int(float(row.rpartition(" ")[2]))


async def last_answer(client: Line) -> tuple[int, dict[str, str], Any]:
    """What comes until the server ends the connection."""
    async with asyncio.timeout(10):
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(row.split(": ", 1) for row in lines)
    return int(first.split()[1]), headers, json.loads(body)


# -- requests that do not come -----------------------------------------------------------


@pytest.mark.parametrize("sent", [b"P", asked()[:40], asked()[:-5]], ids=["byte", "head", "body"])
async def test_a_request_that_does_not_come_whole_gets_a_408_and_the_connection_ends(
    stage: Stage, upstream: Upstream, sent: bytes
) -> None:
    gateway = await stage.gateway(gateway=SOON)
    async with line(gateway) as client:
        await client.send(sent)
        status, headers, body = await last_answer(client)
    assert (status, headers["connection"]) == (408, "close")
    assert body["error"]["code"] == "request_timeout"
    assert headers["x-request-id"]
    assert upstream.calls == 0
    assert await ended(gateway, "request") == 1


async def test_a_known_head_without_its_body_gets_a_408_too(
    stage: Stage, upstream: Upstream
) -> None:
    gateway = await stage.gateway(gateway={"request_timeout": 0.3})
    async with line(gateway) as client:
        await client.ask(asked())  # after which the lane knows the head
        await client.send(asked()[:-5])
        status, headers, body = await last_answer(client)
    assert (status, headers["connection"]) == (408, "close")
    assert body["error"]["code"] == "request_timeout"
    assert upstream.calls == 1


async def test_a_408_has_the_shape_of_the_protocol_that_was_spoken(stage: Stage) -> None:
    gateway = await stage.gateway(gateway=SOON)
    async with line(gateway) as client:
        await client.send(
            b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"
        )
        status, _, body = await last_answer(client)
    assert (status, body["type"]) == (408, "error")


async def test_bytes_that_trickle_in_do_not_extend_the_time(stage: Stage) -> None:
    """And each of several requests on a connection has its own."""
    gateway = await stage.gateway(gateway={"request_timeout": 0.2})
    whole = asked(more=f"x-long: {'y' * 4000}")
    async with line(gateway) as client:
        await client.ask(asked())
        began = asyncio.get_running_loop().time()
        answer = asyncio.ensure_future(last_answer(client))
        for byte in whole:
            if answer.done():
                break
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        # What was on its way as the connection ended may have reset it.
        with suppress(ConnectionResetError):
            assert (await answer)[0] == 408
        took = asyncio.get_running_loop().time() - began
    assert took < 4.0, "byte by byte it would have been longer"


async def test_blank_lines_are_no_request_and_get_no_answer(stage: Stage) -> None:
    gateway = await stage.gateway(gateway=SOON)
    async with line(gateway) as client:
        await client.send(b"\r\n\r\n")
        assert await client.ended()


async def test_who_says_nothing_is_sent_away(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"idle_timeout": 0.05})
    async with line(gateway) as client:
        assert await client.ended()


async def test_an_idle_connection_is_kept_for_its_time(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"idle_timeout": 30.0, "request_timeout": 0.01})
    async with line(gateway) as client:
        for _ in range(2):
            await client.ask(asked())
            (link,) = connections(gateway)
            timer = link.timeout_keep_alive_task
            assert 0 < timer.when() - link.loop.time() <= 30
            link._look_at_request()  # as if a request's time were up: there is none
            assert not link.transport.is_closing()


async def test_a_large_body_has_time_for_its_size(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"request_timeout": 0.05})
    body = asked("x" * 400_000)
    async with line(gateway) as client:
        for at in range(0, len(body), 40_000):
            await client.send(body[at : at + 40_000])
            await asyncio.sleep(0.03)
        assert (await client.answer())[0] == "MISS"


async def test_a_late_request_behind_one_under_way_waits_for_its_answer(
    stage: Stage, upstream: Upstream
) -> None:
    go_on = asyncio.Event()

    upstream.script = once(go_on, saying(completion()))
    gateway = await stage.gateway(gateway=SOON)
    async with line(gateway) as client:
        await client.send(asked() + b"POST /v1/cha")
        await upstream.called()
        await asyncio.sleep(0.15)
        go_on.set()
        assert (await client.answer())[0] == "MISS"
        status, _, _ = await last_answer(client)
    assert status == 408


# -- connections that are too many -------------------------------------------------------


async def test_a_connection_beyond_the_limit_gets_a_503(stage: Stage, upstream: Upstream) -> None:
    gateway = await stage.gateway(gateway={"max_connections": 3})
    async with line(gateway) as one, line(gateway) as two, line(gateway) as three:
        for client in (one, two, three):
            assert await client.ask(asked()) in ("MISS", "HIT")
        async with line(gateway) as fourth:
            status, headers, body = await last_answer(fourth)
        assert (status, headers["retry-after"]) == (503, "1")
        assert body["error"]["code"] == "too_many_connections"
        assert await one.ask(asked()) == "HIT", "who is inside is served"
    await until(lambda: not connections(gateway))
    async with line(gateway) as client:
        assert await client.ask(asked()) == "HIT", "there is room again"
    assert await ended(gateway, "connections") == 1
    assert upstream.calls == 1


async def test_a_peer_has_a_limit_of_its_own(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"max_connections_per_peer": 1})
    async with line(gateway) as one:
        assert await one.ask(asked()) == "MISS"
        async with line(gateway) as another:
            status, _, body = await last_answer(another)
        assert status == 503
        assert "from this address" in body["error"]["message"]
        assert await one.ask(asked()) == "HIT"
    await until(lambda: not connections(gateway))
    assert await ended(gateway, "peer") == 1


async def test_a_flood_leaves_nothing_behind(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"max_connections": 50})
    clients = [line(gateway) for _ in range(300)]
    opened = [await client.__aenter__() for client in clients]
    await until(lambda: len(connections(gateway)) == 50)
    for client in clients:
        await client.__aexit__(None, None, None)
    assert len(opened) == 300
    await until(lambda: not connections(gateway))
    assert (gateway.edge.open, len(gateway.edge)) == (0, 0)
    assert gateway.edge.ended["connections"] == 250


def test_addresses_without_a_connection_are_forgotten() -> None:
    edge = Edge(EdgeLimits(per_peer=2))
    for number in range(10_000):
        assert edge.enter(f"peer {number}") is None
        edge.leave(f"peer {number}")
    assert len(edge) == 0


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
    ],
)
def test_a_network_of_ipv6_is_one_peer(address: str, peer: str) -> None:
    assert _peer_of((address, 1234)) == peer


def test_no_more_connections_are_promised_than_the_system_gives_descriptors_for() -> None:
    assert descriptors_for(100) == 100
    assert 0 < descriptors_for(10**12) < 10**12


# -- answers that are not taken ----------------------------------------------------------


async def test_who_does_not_take_its_answer_is_cut_off(stage: Stage, upstream: Upstream) -> None:
    text = "x" * 900_000
    upstream.script = lambda seen, out: out.json(completion(text))
    gateway = await stage.gateway(gateway={"write_timeout": 0.1})
    await gateway.chat()  # so that the rest are hits
    async with line(gateway) as client:
        stop_reading(gateway, client)
        for _ in range(20):
            client.writer.write(asked())
        await until(lambda: not [link for link in connections(gateway) if link.pipeline])
        await until(lambda: gateway.edge.ended["write"] == 1)
    await until(lambda: gateway.assembly.metrics.inflight == 0)
    assert upstream.calls == 1


async def test_a_stream_that_nobody_takes_ends_and_its_call_with_it(
    stage: Stage, upstream: Upstream
) -> None:
    async def endless(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        while True:
            await out.event(chunk({"content": "y" * 10_000}))

    upstream.script = endless
    gateway = await stage.gateway(gateway={"write_timeout": 0.1})
    async with line(gateway) as client:
        stop_reading(gateway, client)
        await client.send(asked(stream=True))
        await until(lambda: gateway.edge.ended["write"] == 1)
    await until(lambda: gateway.assembly.metrics.inflight == 0)
    await until(lambda: len(gateway.assembly.shelf.flights) == 0)
    assert gateway.assembly.shelf.memory.stats().entries == 0


async def test_who_takes_its_answer_slowly_gets_all_of_it(stage: Stage, upstream: Upstream) -> None:
    text = "x" * 900_000
    upstream.script = lambda seen, out: out.json(completion(text))
    gateway = await stage.gateway()
    async with line(gateway) as client:
        await client.ask(asked("first"))
        stop_reading(gateway, client)
        (link,) = connections(gateway)
        await client.send(asked())
        await until(lambda: link.flow.write_paused)
        for _ in range(3):
            client.writer.transport.resume_reading()
            await until(lambda: has_taken(link))
            client.writer.transport.pause_reading()
            link._look_at_write()  # as if the time were up
            assert not link.transport.is_closing()
        client.writer.transport.resume_reading()
        cache, body = await client.answer()
    assert (cache, len(json.loads(body)["choices"][0]["message"]["content"])) == ("MISS", 900_000)


def has_taken(link: Any) -> bool:
    """Whether the client has taken enough since the timer looked, or all."""
    unsent: int = link.transport.get_write_buffer_size()
    return unsent <= link._unsent - LEAST_TAKEN or not link.flow.write_paused


def stop_reading(gateway: Running, client: Line) -> None:
    """And let no buffer of the system hide it."""
    client.writer.transport.pause_reading()
    client.writer.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 2**14)
    for link in connections(gateway):
        link.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 2**14)


# -- ends that come early ----------------------------------------------------------------


async def test_a_request_and_the_end_of_what_is_sent_is_a_client_that_has_left(
    gateway: Running, upstream: Upstream
) -> None:
    """A closed socket cannot be told from a half-closed one, and a call must not outlive it."""
    upstream.script = lambda seen, out: asyncio.Event().wait()  # type: ignore[assignment, return-value]
    async with line(gateway) as client:
        await client.send(asked())
        await upstream.called()
        client.writer.write_eof()
        assert await client.ended()
    await upstream.left()
    await until(lambda: gateway.assembly.metrics.inflight == 0)
    await until(lambda: len(gateway.assembly.shelf.flights) == 0)


@pytest.mark.parametrize("cut", [1, 40, -5])
async def test_a_request_that_breaks_off_leaves_nothing(
    gateway: Running, upstream: Upstream, cut: int
) -> None:
    async with line(gateway) as client:
        await client.send(asked()[:cut])
        await until(lambda: bool(connections(gateway)))
        client.writer.transport.abort()
    await until(lambda: not connections(gateway))
    await until(lambda: gateway.assembly.metrics.inflight == 0)
    assert upstream.calls == 0
    assert gateway.edge.open == 0


@pytest.mark.parametrize("cut", [1, 40, -5], ids=["byte", "head", "body"])
async def test_a_request_half_sent_gets_its_answer_though_the_server_drains(
    gateway: Running, cut: int
) -> None:
    async with line(gateway) as client:
        await client.send(asked()[:cut])
        await until(lambda: any(link._began for link in connections(gateway)))
        for link in connections(gateway):
            link.shutdown()
        assert await client.ask(asked()[cut:]) == "MISS"
        assert await client.ended()


async def test_rubbish_behind_a_request_does_not_cost_its_answer(
    gateway: Running, upstream: Upstream
) -> None:
    go_on = asyncio.Event()

    upstream.script = once(go_on, saying(completion()))
    async with line(gateway) as client:
        await client.send(asked() + b"rubbish\r\n\r\n")
        await upstream.called()
        go_on.set()
        assert (await client.answer())[0] == "MISS"
        assert await client.ended()


async def test_a_body_announced_too_large_is_refused_before_it_is_asked_for(
    stage: Stage, upstream: Upstream
) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 1024})
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        "content-length: 9999\r\n\r\n"
    )
    async with line(gateway) as client:
        await client.send(head.encode())
        status, _, _ = await last_answer(client)
    assert status == 413, "and no 100 before it"


async def test_a_body_that_was_waited_for_with_expect_is_read(gateway: Running) -> None:
    async with line(gateway) as client:
        whole = asked(more="expect: 100-continue")
        end = whole.index(b"\r\n\r\n") + 4
        await client.send(whole[:end])
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await client.ask(whole[end:]) == "MISS"
