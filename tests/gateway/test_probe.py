"""The probe answers what the flow has decided, in the flow's own words, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from gateway.conftest import CHAT, Got, Running, Stage
from gateway.upstream import Upstream
from thinkonce.gateway.asking import Asking
from thinkonce.gateway.memo import MAX_BODY, OVERHEAD, Memo
from thinkonce.protocols.dialect import Asked

# What two answers to one question never share.
FRESH = re.compile(rb'"chatcmpl-[0-9a-f]{30}"|"created": ?\d+|"age":[\d.]+|"ttl":[\d.]+')


def bare(got: Got) -> tuple[int, dict[str, str], bytes]:
    changing = ("date", "x-request-id", "content-length")
    headers = {name: value for name, value in got.headers.items() if name not in changing}
    return got.status, headers, FRESH.sub(b"", got.body)


async def test_with_and_without_the_probe_answers_are_the_same_bytes(stage: Stage) -> None:
    clock, store = stage.moving.clock, {"url": "memory://", "secret": "one for both " * 3}
    with_probe = await stage.gateway(gateway={"inline": True}, store=store, clock=clock)
    without = await stage.gateway(gateway={"inline": False}, store=store, clock=clock)
    questions = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]
    for gateway in (with_probe, without):
        for fields in questions:
            await gateway.chat(**fields)
    stage.moving.move(7)
    for fields in questions * 2:
        one, other = await with_probe.chat(**fields), await without.chat(**fields)
        assert one.cache == "HIT"
        assert bare(one) == bare(other)
    assert len(memo_of(with_probe)) == 3
    assert len(memo_of(without)) == 0


async def test_the_second_identical_request_is_answered_by_the_probe(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields in ({}, {"stream": True, "seed": 1}):
        assert (await gateway.chat(**fields)).cache == "MISS"
    endpoint = gateway.assembly.gateway._cached[CHAT]
    if not endpoint._inline:
        assert len(memo_of(gateway)) == 0
        return
    monkeypatch.setattr(gateway.assembly.world, "carry_out", None)
    monkeypatch.setattr(endpoint._reader, "read", None)
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
    asking = Asking(b"", {"a": 1}, Asked(), None, None, "", None, None, None)  # type: ignore[arg-type]
    for n in range(50):
        memo.put((b"%0100d" % n, ()), asking)
    assert len(memo) == 10
    assert memo.get((b"%0100d" % 49, ())) is not None, "the oldest go first"
    assert memo.get((b"%0100d" % 0, ())) is None
    memo.put((b"x" * (MAX_BODY + 1), ()), asking)
    assert len(memo) == 10


async def test_pipelined_requests_are_answered_in_order(
    gateway: Running, upstream: Upstream
) -> None:
    """hit, miss, hit, error, hit in one packet: in that order, on one connection."""
    await gateway.chat("known")
    await gateway.chat("known")

    def asked(content: str) -> bytes:
        message = {"model": "priced", "messages": [{"role": "user", "content": content}]}
        body = json.dumps(message).encode() if content else b"{"
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    wanted = ["known", "new", "known", "", "known"]
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join(map(asked, wanted)))
    seen = []
    for _ in wanted:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        cache = re.search(r"x-cache: (\w+)", head)
        seen.append(cache[1] if cache else head.split(" ")[1])
    assert seen == ["HIT", "MISS", "HIT", "400", "HIT"]
    writer.close()
    await writer.wait_closed()


async def test_a_head_without_end_is_cut_off(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"header_limit": 4096})
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx-long: ")
    for _ in range(5):
        writer.write(b"y" * 1000)
        await writer.drain()
    assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
    writer.close()
    await writer.wait_closed()


async def test_old_and_closing_connections_are_answered_too(gateway: Running) -> None:
    await gateway.chat()
    await gateway.chat()
    message = {"model": "priced", "messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps(message).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    for version, more in [("1.0", ""), ("1.1", "connection: close\r\n")]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST {CHAT} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n{more}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await reader.read()
        assert b"x-cache: HIT" in answer
        assert answer.endswith(b"}")
        writer.close()
        await writer.wait_closed()


def memo_of(gateway: Running) -> Memo:
    return gateway.assembly.gateway._cached[CHAT]._memo
