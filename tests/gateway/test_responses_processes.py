"""A response streamed to clients of two processes: one call, every event, from the first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.test_processes import Host, Process
from gateway.upstream import Out, Seen, Upstream, response_events

PATH = "/v1/responses"
BODY: dict[str, Any] = {"model": "gpt-4o", "input": "hi", "stream": True}


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


async def test_a_response_reaches_another_process_live_and_then_from_the_store(
    host: Host,
) -> None:
    go_on = asyncio.Event()
    said = response_events("a", "b", "c")

    async def slow(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in said:
            await out.event(event, event["type"])
            if event["type"] == "response.in_progress":
                await go_on.wait()
        await out.end()

    host.upstream.script = slow
    one, two = await host.two_gateways()
    async with asking(one) as here, asking(two) as there:
        for response in (here, there):
            first = await response.content.readuntil(b"\n\n")
            assert first.startswith(b"event: response.created\n"), "before the end"
        go_on.set()
        for response in (here, there):
            events = await rest_of(response)
            assert [event["type"] for event in events] == [event["type"] for event in said[1:]]
            assert events[-1]["response"]["output"] == said[-1]["response"]["output"]
            assert events[-1]["response"]["id"] == "resp_upstream"
        assert [r.headers["x-cache"] for r in (here, there)] == ["MISS", "COALESCED"]
    assert host.upstream.calls == 1


def asking(gateway: Process) -> Any:
    return gateway.session.post(gateway.url + PATH, json=BODY)


async def rest_of(response: Any) -> list[dict[str, Any]]:
    text = (await response.read()).decode()
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
