"""What a stream ends in without a blank line: told to live clients and kept, or neither."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.anthropic_upstream import events as message_events
from gateway.anthropic_upstream import message
from gateway.conftest import CHAT, Running, until
from gateway.upstream import DONE, Out, Seen, Upstream, chunks, response_events

HI = {"role": "user", "content": "hi"}
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [HI]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [HI], "max_tokens": 9},
}


def written(path: str) -> bytes:
    """A whole answer as a provider streams it."""
    if path == CHAT:
        told = [json.dumps(each) for each in chunks("hel", "lo")]
        return "".join(f"data: {data}\n\n" for data in [*told, DONE]).encode()
    events = response_events("hel", "lo") if path == "/v1/responses" else message_events(message())
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("headers", [{}, {"x-thinkonce-enabled": "false"}], ids=["kept", "bypass"])
async def test_a_whole_event_at_the_end_reaches_all_who_read_and_is_kept(
    gateway: Running, upstream: Upstream, path: str, end: bytes, headers: dict[str, str]
) -> None:
    raw, go = written(path), asyncio.Event()

    async def script(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await go.wait()
        await out.piece(raw[:-2] + end)
        await out.end()

    upstream.script = script
    body = {"model": "priced", "stream": True} | ASKS[path]
    asking = [asyncio.create_task(gateway.post(path, body, headers)) for _ in range(2)]
    await upstream.called(2 if headers else 1)
    if not headers:
        await until(lambda: gateway.assembly.world.following == 2)
    go.set()
    for got in await asyncio.gather(*asking):
        assert got.body.endswith(b"\n\n")
        assert got.body.count(b"\n\n") == raw.count(b"\n\n")
    again = await gateway.post(path, body, headers)
    assert again.cache == ("BYPASS" if headers else "HIT")


@pytest.mark.parametrize("path", ASKS)
async def test_an_event_cut_off_in_the_middle_is_told_to_nobody_and_nothing_is_kept(
    gateway: Running, upstream: Upstream, path: str
) -> None:
    raw = written(path)
    *whole, last = [data for data in raw.split(b"\n\n") if data]

    async def script(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.piece(raw[:-3])
        await out.end()

    upstream.script = script
    body = {"model": "priced", "stream": True} | ASKS[path]
    got = await gateway.post(path, body)
    assert last[:-1] not in got.body
    assert got.body.count(b"\n\n") >= len(whole)
    assert (await gateway.post(path, body)).cache == "MISS"
