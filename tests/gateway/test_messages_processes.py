"""Messages between gateways in processes of their own: one call, joined live, one entry."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gateway.anthropic_upstream import CALL, THOUGHT, events, framed, message
from gateway.test_processes import Host, flushed
from gateway.upstream import Out, Seen, Upstream

ASK: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
}


async def test_a_stream_is_joined_live_from_another_process_and_shared_in_both_shapes(
    tmp_path: Path, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    said = events(message(THOUGHT, CALL, stop="tool_use"))

    async def halfway(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.piece(framed(said[:1]))
        await go_on.wait()
        await out.piece(framed(said[1:]))
        await out.end()

    upstream.script = halfway
    async with AsyncExitStack() as stack:
        one, two = await Host(stack, tmp_path, upstream).two_gateways()
        streams = []
        for each in (one, two):
            asking = each.session.post(f"{each.url}/v1/messages", json={**ASK, "stream": True})
            streams.append(await stack.enter_async_context(asking))
            first = await streams[-1].content.readuntil(b"\n\n")
            assert first == framed(said[:1]), "before the end"
        go_on.set()
        rests = [await stream.read() for stream in streams]
        assert [stream.headers["x-cache"] for stream in streams] == ["MISS", "COALESCED"]
        for rest in rests:
            assert rest.startswith(framed(said[1:-1]))
            assert rest.count(b'"cache_hit"') == 1
        await flushed(one)  # until then it lies with the call, and is joined
        whole = await two.post("/v1/messages", ASK)
    assert whole.json["content"] == [THOUGHT, CALL]
    assert (whole.cache, upstream.calls) == ("HIT", 1)
