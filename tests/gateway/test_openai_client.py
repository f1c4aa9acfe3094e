"""The official client, unchanged apart from its base URL."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, Upstream, chunks, endless

QUESTION: list[Any] = [{"role": "user", "content": "法国的首都是哪里？"}]


async def test_asking_twice_is_one_call_and_the_hit_is_readable(
    stage: Stage, gateway: Running
) -> None:
    client = await stage.openai(gateway)
    first = await client.chat.completions.create(model="priced", messages=QUESTION)
    second = await client.chat.completions.create(model="priced", messages=QUESTION)
    assert first.choices[0].message.content == second.choices[0].message.content == "hello"
    assert (first.cache_hit, second.cache_hit) == (False, True)  # type: ignore[attr-defined]
    assert second.model_extra is not None
    assert second.model_extra["kv_cache"]["saved_tokens"] == 18
    assert second.usage is not None
    assert second.usage.total_tokens == 18
    assert stage.upstream.calls == 1


async def test_a_stream_then_the_whole_then_a_stream(stage: Stage, gateway: Running) -> None:
    client = await stage.openai(gateway)
    texts = []
    for streaming in (True, False, True):
        texts.append(await answer_of(client, streaming))
    assert texts == ["hello"] * 3
    assert stage.upstream.calls == 1


async def answer_of(client: AsyncOpenAI, streaming: bool) -> str:
    if not streaming:
        whole = await client.chat.completions.create(model="priced", messages=QUESTION)
        return whole.choices[0].message.content or ""
    stream = await client.chat.completions.create(
        model="priced", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    pieces, usage = [], None
    async for piece in stream:
        usage = piece.usage or usage
        pieces += [choice.delta.content or "" for choice in piece.choices]
    assert usage is not None
    assert usage.total_tokens == 18
    return "".join(pieces)


async def test_the_blocking_client_works_the_same(stage: Stage, gateway: Running) -> None:
    def ask() -> list[Any]:
        with OpenAI(base_url=gateway.url, api_key="k", max_retries=0) as client:
            made = [client.chat.completions.create(model="m", messages=QUESTION) for _ in range(2)]
            stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
            return [*(one.model_extra["cache_hit"] for one in made if one.model_extra), text]

    assert await asyncio.to_thread(ask) == [False, True, "hello"]
    assert stage.upstream.calls == 1


async def test_headers_tell_through_the_raw_response(stage: Stage, gateway: Running) -> None:
    client = await stage.openai(gateway)
    for expected in ("MISS", "HIT"):
        raw = await client.chat.completions.with_raw_response.create(
            model="priced", messages=QUESTION, extra_body={"kv_cache": {"tags": ["faq"]}}
        )
        assert raw.headers["x-cache"] == expected
        assert raw.request_id == raw.headers["x-request-id"]


async def test_two_keys_are_two_tenants(stage: Stage, gateway: Running) -> None:
    for key in ("sk-one", "sk-two"):
        client = await stage.openai(gateway, key)
        await client.chat.completions.create(model="priced", messages=QUESTION)
    assert stage.upstream.calls == 2
    assert [seen.headers["authorization"] for seen in stage.upstream.seen] == [
        "Bearer sk-one",
        "Bearer sk-two",
    ]


async def test_errors_become_the_clients_own(stage: Stage, gateway: Running) -> None:
    client = await stage.openai(gateway)
    with pytest.raises(openai.BadRequestError, match=r"kv_cache\.tll"):
        await client.chat.completions.create(
            model="m", messages=QUESTION, extra_body={"kv_cache": {"tll": 1}}
        )

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "slow down", "type": "requests"}}, 429)

    stage.upstream.script = refuse
    with pytest.raises(openai.RateLimitError, match="slow down"):
        await client.chat.completions.create(model="m", messages=QUESTION)


async def test_a_stream_that_breaks_raises_in_the_client(stage: Stage, gateway: Running) -> None:
    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.event(chunks("half")[1])
        out.cut()

    stage.upstream.script = half
    client = await stage.openai(gateway)
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    assert (await anext(aiter(stream))).choices[0].delta.content == "half"
    with pytest.raises(openai.APIError, match="broke off"):
        await anext(aiter(stream))


async def test_a_client_that_closes_its_stream_ends_the_call(
    stage: Stage, gateway: Running, upstream: Upstream
) -> None:
    upstream.script = endless(chunks("a")[1])
    client = await stage.openai(gateway)
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await upstream.left()


async def test_models_come_from_the_upstream(stage: Stage, gateway: Running) -> None:
    async def models(seen: Seen, out: Out) -> None:
        one = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "x"}
        await out.json(one if seen.path.endswith("gpt-4o") else {"object": "list", "data": [one]})

    stage.upstream.script = models
    client = await stage.openai(gateway)
    assert [model.id async for model in client.models.list()] == ["gpt-4o"]
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"
