"""A stream is read from the upstream no faster than its clients take it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET

import pytest

from gateway.conftest import Running, until
from gateway.upstream import Out, Seen, Upstream
from gateway.wire import Line, asked, line
from thinkonce.clock import Clock
from thinkonce.engine.pace import STALL_SECONDS, WINDOW, Pace

EVENT = "x" * 10_000
EVENTS = 1_500  # 15 MB: several times what is held for readers


@pytest.fixture
def way() -> str:
    return "lane"


@dataclass
class Told:
    """What the upstream has written so far, in events."""

    events: int = 0


@pytest.fixture
def told(upstream: Upstream) -> Told:
    told = Told()

    async def long(seen: Seen, out: Out) -> None:
        transport = out.writer.transport
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 2**16)
        await out.begin_stream()
        for number in range(EVENTS):
            delta = {"content": f"{number:05}{EVENT}"}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await out.event({"id": "c", "created": 1, "choices": [choice]})
            told.events += 1
        await out.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await out.event("[DONE]")
        await out.end()

    upstream.script = long
    return told


async def begun(client: Line) -> None:
    """Ask for a stream and read nothing of it but its head."""
    client.writer.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 2**16)
    await client.send(asked(stream=True))
    await client.reader.readuntil(b"\r\n\r\n")
    client.writer.transport.pause_reading()


async def rest(client: Line) -> list[int]:
    """The numbers of the events, to the end mark."""
    client.writer.transport.resume_reading()
    text = bytearray()
    while not text.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
        piece = await client.reader.read(2**20)
        assert piece, text[-500:]
        text += piece
    marks = [part[:5] for part in text.split(b'"content": "')[1:]]
    return [int(mark) for mark in marks]


async def test_a_client_that_reads_slowly_gets_all_of_its_own_stream(
    gateway: Running, upstream: Upstream, told: Told
) -> None:
    async with line(gateway) as client:
        await begun(client)
        await stands_still(told)
        assert told.events < EVENTS * 2 // 3, "the upstream waits for who reads"
        assert await rest(client) == list(range(EVENTS))
    assert upstream.calls == 1
    assert not gateway.assembly.world._paces


async def test_two_clients_get_all_of_a_stream_at_the_pace_of_the_slower(
    gateway: Running, upstream: Upstream, told: Told
) -> None:
    async with line(gateway) as slow, line(gateway) as fast:
        await begun(slow)
        await until(lambda: told.events > 0)
        await begun(fast)
        reading = asyncio.create_task(rest(fast))
        await stands_still(told)
        assert told.events < EVENTS * 2 // 3
        assert await rest(slow) == list(range(EVENTS))
        assert await reading == list(range(EVENTS))
    assert upstream.calls == 1


async def test_a_slow_client_that_leaves_lets_the_stream_go_on(
    gateway: Running, upstream: Upstream, told: Told
) -> None:
    async with line(gateway) as fast:
        async with line(gateway) as slow:
            await begun(slow)
            await until(lambda: told.events > 0)
            await begun(fast)
            reading = asyncio.create_task(rest(fast))
            await stands_still(told)
            slow.writer.transport.abort()
        assert await reading == list(range(EVENTS))
    assert upstream.calls == 1


async def stands_still(told: Told) -> None:
    """Until the upstream has written nothing more for a good many turns of the loop."""
    before, turns = -1, 0
    async with asyncio.timeout(20):
        while turns < 2000:
            await asyncio.sleep(0)
            turns = turns + 1 if told.events == before else 0
            before = told.events


# -- the rule by itself ------------------------------------------------------------------------


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def pace(now: list[float]) -> Pace:
    return Pace(Clock(lambda: now[0], lambda: now[0]), lambda: None, 0.001)


def waits(pace: Pace) -> bool:
    return pace._behind() > WINDOW


def test_with_nobody_to_take_it_nothing_is_waited_for(pace: Pace) -> None:
    pace.published(10 * WINDOW)
    assert not waits(pace)


def test_the_slowest_is_waited_for_while_he_takes_some(pace: Pace, now: list[float]) -> None:
    pace.took("fast", 0)
    pace.took("slow", 0)
    pace.published(WINDOW + 2)
    pace.took("fast", WINDOW + 2)
    assert waits(pace)
    pace.took("slow", 1)
    assert waits(pace)
    pace.took("slow", 1)
    assert not waits(pace)


def test_one_who_takes_nothing_for_long_holds_up_nobody_but_himself(
    pace: Pace, now: list[float]
) -> None:
    pace.took("stalled", 0)
    pace.published(WINDOW + 1)
    now[0] += STALL_SECONDS + 1
    assert waits(pace), "there is nobody else to hold up"
    pace.took("other", WINDOW)
    assert not waits(pace)
    pace.left("other")
    assert waits(pace)
    pace.left("stalled")
    assert not waits(pace)


def test_one_who_stalls_is_not_waited_for_while_another_has_taken_all_there_is(
    pace: Pace, now: list[float]
) -> None:
    pace.took("stalled", 0)
    pace.took("other", 0)
    for _ in range(3):
        pace.published(WINDOW)
        pace.took("other", WINDOW)
        now[0] += STALL_SECONDS + 1
        assert not waits(pace), "whoever has taken all is ready for more"
    pace.left("other")
    assert waits(pace), "there is nobody else to hold up"


def test_who_had_nothing_to_take_for_long_does_not_stall(pace: Pace, now: list[float]) -> None:
    pace.took("patient", 0)
    pace.took("other", 0)
    now[0] += STALL_SECONDS + 1
    pace.published(WINDOW + 1)
    pace.took("other", WINDOW + 1)
    assert waits(pace)


async def test_a_client_that_takes_nothing_does_not_stop_the_others(
    gateway: Running, upstream: Upstream, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.engine.pace.STALL_SECONDS", 0.2)
    async with line(gateway) as stalled, line(gateway) as good:
        await begun(stalled)
        await until(lambda: told.events > 0)
        await begun(good)
        async with asyncio.timeout(30):
            assert await rest(good) == list(range(EVENTS))
        stalled.writer.transport.abort()
    assert upstream.calls == 1


async def test_waiting_shows_life(now: list[float]) -> None:
    shown = asyncio.Event()
    pace = Pace(Clock(lambda: now[0], lambda: now[0]), shown.set, 0.001)
    pace.took("reader", 0)
    pace.published(WINDOW + 1)
    waiting = asyncio.create_task(pace.room())
    await shown.wait()
    assert not waiting.done()
    pace.took("reader", 1)
    await waiting
