"""The probe answers what the flow has decided, in the flow's own words, and nothing else."""

from __future__ import annotations

import gc
import re
import tracemalloc

import pytest

from gateway.asking import asking_of
from gateway.conftest import CHAT, Got, Running, Stage
from gateway.upstream import Upstream
from gateway.wire import asked, line
from thinkonce.engine.memo import MAX_BODY, MAX_KNOWN, OVERHEAD, Memo
from thinkonce.request.headers import Taken
from thinkonce.tiers.tier import Key

# What two answers to one question never share.
FRESH = re.compile(rb'"chatcmpl-[0-9a-f]{30}"|"created": ?\d+|"age":[\d.]+|"ttl":[\d.]+')


def bare(got: Got) -> tuple[int, dict[str, str], bytes]:
    changing = ("date", "x-request-id", "content-length")
    headers = {name: value for name, value in got.headers.items() if name not in changing}
    return got.status, headers, FRESH.sub(b"", got.body)


async def test_all_three_ways_give_the_same_bytes(stage: Stage) -> None:
    clock, store = stage.moving.clock, {"url": "memory://", "secret": "one for all " * 3}
    ways = [
        await stage.gateway(gateway=chosen, store=store, clock=clock)
        for chosen in (
            {"inline": True, "fast_lane": True},
            {"inline": True, "fast_lane": False},
            {"inline": False, "fast_lane": True},
        )
    ]
    questions = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]
    for gateway in ways:
        for fields in questions:
            await gateway.chat(**fields)
    stage.moving.move(7)
    for fields in questions * 2:
        lane, asgi, flow = [bare(await gateway.chat(**fields)) for gateway in ways]
        assert lane[1]["x-cache"] == "HIT"
        assert lane == asgi == flow
    assert [len(memo_of(gateway)) for gateway in ways] == [3, 3, 0]
    assert [len(gateway.assembly.lane) for gateway in ways] == [3, 0, 0]


async def test_the_second_identical_request_is_answered_by_the_probe(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields in ({}, {"stream": True, "seed": 1}):
        assert (await gateway.chat(**fields)).cache == "MISS"
    endpoint = gateway.assembly.gateway.cached[CHAT]
    if not endpoint._inline:
        assert len(memo_of(gateway)) == 0
        return
    monkeypatch.setattr(gateway.assembly.world, "carry_out", None)
    monkeypatch.setattr(endpoint.reader, "read", None)
    for fields in ({}, {"stream": True, "seed": 1}):
        assert (await gateway.chat(**fields)).cache == "HIT", "neither reader nor flow was asked"


async def test_the_probe_obeys_purge_expiry_and_controls(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"ttl": 60.0}, clock=stage.moving.clock)
    for _ in range(3):
        await gateway.chat()
    assert (await gateway.chat(headers={"cache-control": "no-cache"})).cache == "REFRESH"
    assert (await gateway.chat(headers={"authorization": "Bearer other"})).cache == "MISS"
    await gateway.post("/cache/purge", {"all": True})
    assert (await gateway.chat()).cache == "MISS"
    assert (await gateway.chat()).cache == "HIT"
    stage.moving.move(61)
    assert (await gateway.chat()).reason == "expired"


async def test_the_memo_is_bounded_and_keeps_no_bodies_apart_from_its_keys() -> None:
    memo = Memo(frozenset(), max_bytes=10 * (OVERHEAD + 100))
    asking = asking_of(body={"a": 1})
    known = memo.known(b"", [(b"authorization", b"Bearer one")])
    for n in range(50):
        memo.put(known, b"%0100d" % n, asking)
    assert (len(memo), len(known)) == (10, 10)
    assert known[b"%0100d" % 49].body == {}
    assert b"%0100d" % 0 not in known, "the oldest go first"
    memo.put(known, b"x" * (MAX_BODY + 1), asking)
    assert len(memo) == 10


async def test_requests_that_are_never_asked_again_do_not_take_the_place_of_others() -> None:
    memo = Memo(frozenset(), max_bytes=10 * (OVERHEAD + 100))
    asking = asking_of()
    known = memo.known(b"", [])
    memo.put(known, b"asked again", asking)
    for n in range(50):
        known[b"asked again"].used = True  # as a hit notes it
        memo.put(known, b"%0100d" % n, asking)
    assert b"asked again" in known
    for n in range(50, 80):
        memo.put(known, b"%0100d" % n, asking)
    assert b"asked again" not in known, "its turn is used up"
    assert (len(memo), len(known)) == (10, 10)
    assert memo._bytes <= 10 * (OVERHEAD + 100)


async def test_the_memo_tells_apart_what_matters_and_nothing_else() -> None:
    memo = Memo(frozenset({b"x-mine"}), max_bytes=2**20)
    one = [(b"authorization", b"Bearer one"), (b"user-agent", b"a")]
    assert memo.known(b"", one) is memo.known(b"", [one[0], (b"user-agent", b"b")])
    others = [
        memo.known(b"a=1", one),
        memo.known(b"", [(b"authorization", b"Bearer two")]),
        memo.known(b"", [*one, (b"x-mine", b"1")]),
        memo.known(b"", [*one, (b"anthropic-beta", b"x")]),
        memo.known(b"", [*one, (b"x-thinkonce-namespace", b"x")]),
        memo.known(b"", [*one, (b"cache-control", b"no-store")]),
    ]
    assert len({id(known) for known in [memo.known(b"", one), *others]}) == 7


async def test_the_memo_bounds_the_sets_of_headers_it_tells_apart() -> None:
    memo = Memo(frozenset(), max_bytes=2**30)
    for n in range(3 * MAX_KNOWN):
        memo.known(b"", [(b"authorization", b"%d" % n)])
    assert len(memo._known) == MAX_KNOWN
    small = Memo(frozenset(), max_bytes=2**20)
    for n in range(100):
        small.known(b"", [(b"anthropic-x", b"%060000d" % n)])
    assert len(small._known) == 2, "an eighth of the bound, whatever their number"


async def test_what_the_memo_holds_is_what_it_counts() -> None:
    memo = Memo(frozenset(), max_bytes=2**24)
    known = memo.known(b"", [])
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(500):
            headers = ((b"anthropic-x", bytes(20_000)),)
            local = b"%08000d" % n
            asking = asking_of(taken=Taken(headers), key=Key(local, bytes(32)))
            memo.put(known, b"%01000d" % n, asking)
            del headers, asking, local
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(memo) == 500
    assert taken <= memo._bytes


async def test_pipelined_requests_are_answered_in_order(
    gateway: Running, upstream: Upstream
) -> None:
    """hit, miss, hit, error, hit in one packet: in that order, on one connection."""
    await gateway.chat("known")
    await gateway.chat("known")

    known, new, broken = asked("known"), asked("new"), asked("x").replace(b"{", b"[", 1)
    async with line(gateway) as client:
        await client.send(known + new + known + broken + known)
        seen = [(await client.answer())[0] for _ in range(5)]
    assert seen == ["HIT", "MISS", "HIT", "400", "HIT"]


async def test_a_head_without_end_is_cut_off(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"header_limit": 4096})
    async with line(gateway) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nx-long: ")
        for _ in range(5):
            await client.send(b"y" * 1000)
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_begins_behind_a_large_body_is_no_large_head(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"header_limit": 4096})
    whole = asked("long " * 2000)
    async with line(gateway) as client:
        client.writer.write(whole + whole[:20])
        assert (await client.answer())[0] == "MISS"
        client.writer.write(whole[20:])
        assert (await client.answer())[0] == "HIT"


async def test_old_and_closing_connections_are_answered_too(gateway: Running) -> None:
    await gateway.chat()
    await gateway.chat()
    for version, more in [(b"HTTP/1.0", ""), (b"HTTP/1.1", "connection: close")]:
        async with line(gateway) as client:
            await client.send(asked(more=more).replace(b"HTTP/1.1", version))
            answer = await client.reader.read()
        assert b"x-cache: HIT" in answer
        assert answer.endswith(b"}")


def memo_of(gateway: Running) -> Memo:
    return gateway.assembly.gateway.cached[CHAT].memo
