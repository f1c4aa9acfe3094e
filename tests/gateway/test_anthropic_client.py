"""Anthropic's official client, unchanged apart from its base URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from gateway.anthropic_upstream import CALL, IDLE, TEXT, THOUGHT, USAGE, answers, events, message
from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, Upstream

ASK: dict[str, Any] = {
    "model": "priced",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "法国的首都是哪里？"}],
}
TOOLS: list[Any] = [{"name": "weather", "input_schema": {"type": "object"}}]


@pytest.fixture
def upstream_says(upstream: Upstream) -> Upstream:
    upstream.script = answers()
    return upstream


@pytest.fixture
async def client(upstream_says: Upstream, gateway: Running) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=gateway.url, api_key="sk-ant", max_retries=0) as client:
        yield client


async def streamed(client: AsyncAnthropic, **more: Any) -> anthropic.types.Message:
    async with client.messages.stream(**{**ASK, **more}) as stream:
        return await stream.get_final_message()


def content_of(made: anthropic.types.Message) -> list[dict[str, Any]]:
    return [block.to_dict() for block in made.content]


async def test_asking_twice_is_one_call_and_the_hit_is_readable(
    client: AsyncAnthropic, upstream: Upstream
) -> None:
    first, second = [await client.messages.create(**ASK) for _ in range(2)]
    assert content_of(first) == content_of(second) == [TEXT]
    assert (first.cache_hit, second.cache_hit) == (False, True)  # type: ignore[attr-defined]
    assert second.model_extra is not None
    assert second.model_extra["kv_cache"]["saved_tokens"] == 11 + 3 + 2 + 7
    assert second.usage.to_dict() == USAGE
    assert first.id == "msg_upstream"
    assert second.id.startswith("msg_")
    assert second.id != first.id
    assert upstream.calls == 1


@pytest.mark.parametrize("stream_first", [True, False])
@pytest.mark.parametrize(
    ("blocks", "stop"),
    [
        ([TEXT], "end_turn"),
        ([THOUGHT, TEXT], "stop_sequence"),
        ([{"type": "redacted_thinking", "data": "EmwK"}, THOUGHT, TEXT, CALL, IDLE], "tool_use"),
        ([{"type": "server_tool_use", "id": "s", "name": "n", "input": {}}, TEXT], "end_turn"),
        ([{"type": "something_new", "inside": [1, {"a": 2}]}, TEXT], "end_turn"),
    ],
    ids=["text", "thinking", "tools", "server tool", "unknown block"],
)
async def test_one_entry_serves_both_shapes_without_loss(
    client: AsyncAnthropic,
    upstream: Upstream,
    blocks: list[Any],
    stop: str,
    stream_first: bool,
) -> None:
    upstream.script = answers(*blocks, stop=stop)
    ways = [streamed, lambda client: client.messages.create(**ASK)]
    made = [await way(client) for way in (ways if stream_first else ways[::-1]) * 2]
    for each in made:
        assert content_of(each) == blocks
        assert each.stop_reason == stop
        assert each.usage.to_dict() == USAGE
    assert upstream.calls == 1


async def test_the_stream_of_a_hit_brings_the_events_of_the_first(
    client: AsyncAnthropic, upstream: Upstream
) -> None:
    upstream.script = answers(THOUGHT, CALL, stop="tool_use")
    seen = []
    for _ in range(2):
        stream = await client.messages.create(**ASK, stream=True)
        seen.append([event async for event in stream])
    assert [event.type for event in seen[0]] == [event.type for event in seen[1]]
    assert seen[0][1:-1] == seen[1][1:-1]
    marks = [events[-1].model_extra for events in seen]
    assert [mark and mark["cache_hit"] for mark in marks] == [False, True]


async def test_helpers_of_the_stream_work_on_a_hit(client: AsyncAnthropic) -> None:
    for _ in range(2):
        async with client.messages.stream(**ASK, tools=TOOLS) as stream:
            assert "".join([text async for text in stream.text_stream]) == "hello"


async def test_the_blocking_client_works_the_same(
    stage: Stage, upstream_says: Upstream, gateway: Running
) -> None:
    def ask() -> list[Any]:
        with Anthropic(base_url=gateway.url, api_key="k", max_retries=0) as client:
            made = [client.messages.create(**ASK) for _ in range(2)]
            with client.messages.stream(**ASK) as stream:
                text = stream.get_final_text()
            counted = client.messages.count_tokens(model="priced", messages=ASK["messages"])
            marks = [one.model_extra["cache_hit"] for one in made if one.model_extra]
            return [*marks, text, counted.input_tokens]

    assert await asyncio.to_thread(ask) == [False, True, "hello", 42]
    assert upstream_says.calls == 2


async def test_tokens_are_counted_by_the_provider_each_time(
    client: AsyncAnthropic, upstream: Upstream
) -> None:
    for _ in range(2):
        raw = await client.messages.with_raw_response.count_tokens(
            model="priced", messages=ASK["messages"], extra_body={"kv_cache": {"ttl": 5}}
        )
        assert (await raw.parse()).input_tokens == 42
        assert (raw.headers["x-cache"], raw.headers["x-cache-reason"]) == ("BYPASS", "endpoint")
    assert upstream.calls == 2
    assert upstream.seen[0].path == "/v1/messages/count_tokens"
    assert upstream.seen[0].json["kv_cache"] == {"ttl": 5}, "nothing in it is touched"
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-ant"


async def test_headers_tell_through_the_raw_response(client: AsyncAnthropic) -> None:
    for expected in ("MISS", "HIT"):
        raw = await client.messages.with_raw_response.create(
            **ASK, extra_body={"kv_cache": {"tags": ["faq"]}}
        )
        assert raw.headers["x-cache"] == expected
    assert raw.headers["x-cache-source-id"] == "msg_upstream"


async def test_the_credential_and_the_version_reach_the_provider_and_part_tenants(
    upstream_says: Upstream, gateway: Running
) -> None:
    async def ask(key: str, **more: Any) -> str:
        async with AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=0) as client:
            raw = await client.messages.with_raw_response.create(**ASK, **more)
            return str(raw.headers["x-cache"])

    beta = {"extra_headers": {"anthropic-beta": "context-1m"}}
    told = [await ask("one"), await ask("two"), await ask("two"), await ask("two", **beta)]
    assert told == ["MISS", "MISS", "HIT", "MISS"]
    sent = [seen.headers for seen in upstream_says.seen]
    assert [each["authorization"] for each in sent] == ["Bearer one", "Bearer two", "Bearer two"]
    assert len({each["anthropic-version"] for each in sent}) == 1
    assert [each.get("anthropic-beta") for each in sent] == [None, None, "context-1m"]


async def test_an_api_key_as_older_clients_send_it_is_a_credential_too(
    upstream_says: Upstream, gateway: Running
) -> None:
    told = []
    for key in ("one", "two", "two"):
        got = await gateway.post("/v1/messages", ASK, {"x-api-key": key})
        told.append(got.cache)
    assert told == ["MISS", "MISS", "HIT"]
    assert [seen.headers["x-api-key"] for seen in upstream_says.seen] == ["one", "two"]


@pytest.mark.parametrize("shown", ["api_key", "auth_token"])
async def test_what_was_asked_ahead_is_a_hit_however_the_client_shows_its_key(
    upstream_says: Upstream, gateway: Running, shown: str
) -> None:
    def client(key: str) -> AsyncAnthropic:
        options: dict[str, Any] = {shown: key}
        return AsyncAnthropic(base_url=gateway.url, max_retries=0, **options)

    async def ask(key: str) -> str:
        async with client(key) as asking:
            raw = await asking.messages.with_raw_response.create(**ASK)
            return str(raw.headers["x-cache"])

    async with client("sk-ant") as any_client:
        version = str(any_client.default_headers["anthropic-version"])
    ahead = {"custom_id": "1", "method": "POST", "url": "/v1/messages", "body": ASK}
    headers = {
        "content-type": "application/jsonl",
        "anthropic-version": version,
        "x-thinkonce-client-api-key": "sk-ant",
    }
    got = await gateway.send("POST", "/cache/preload", json.dumps(ahead).encode(), headers)
    assert json.loads(got.body.splitlines()[0])["stored"], got.body
    assert [await ask("sk-ant"), await ask("sk-other")] == ["HIT", "MISS"]


async def test_errors_become_the_clients_own(client: AsyncAnthropic, upstream: Upstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"kv_cache\.tll") as caught:
        await client.messages.create(**ASK, extra_body={"kv_cache": {"tll": 1}})
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(anthropic.InternalServerError, match="not_cached"):
        await client.messages.create(**ASK, extra_headers={"cache-control": "only-if-cached"})

    async def refuse(seen: Seen, out: Out) -> None:
        wrong = {"type": "overloaded_error", "message": "Overloaded"}
        await out.json({"type": "error", "error": wrong}, 529, retry_after="7")

    upstream.script = refuse
    with pytest.raises(anthropic.InternalServerError, match="Overloaded") as overloaded:
        await client.messages.create(**ASK)
    assert overloaded.value.status_code == 529
    assert overloaded.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("cut", [True, False], ids=["broken", "error event"])
async def test_a_stream_that_fails_raises_in_the_client_and_is_not_stored(
    client: AsyncAnthropic, upstream: Upstream, cut: bool
) -> None:
    said = events(message())[:4]
    wrong = {"type": "error", "error": {"type": "overloaded_error", "message": "it broke off"}}

    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for each in said if cut else [*said, wrong]:
            await out.piece(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode())
        if cut:
            out.cut()
        else:
            await out.end()

    upstream.script = half
    for calls in (1, 2):
        stream = await client.messages.create(**ASK, stream=True)
        with pytest.raises(anthropic.APIError, match="broke off"):
            async for _ in stream:
                pass
        assert upstream.calls == calls


async def test_a_client_that_closes_its_stream_ends_the_call(
    client: AsyncAnthropic, upstream: Upstream
) -> None:
    async def forever(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.piece(b"event: message_start\ndata: " + json.dumps(events(message())[0]).encode())
        await out.piece(b"\n\n")
        await asyncio.Event().wait()

    upstream.script = forever
    stream = await client.messages.create(**ASK, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await upstream.left()
