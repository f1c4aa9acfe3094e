"""Text completions through the official client, and over the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, stream, text_chunks, text_completion

PATH = "/v1/completions"
PROMPT = "Once upon a time"


async def create(client: AsyncOpenAI, **more: Any) -> Any:
    return await client.completions.create(**{"model": "priced", "prompt": PROMPT} | more)


async def text_of(client: AsyncOpenAI, *, streaming: bool) -> str:
    if not streaming:
        return str((await create(client)).choices[0].text)
    pieces = await create(client, stream=True, stream_options={"include_usage": True})
    text, usage = "", None
    async for piece in pieces:
        usage = piece.usage or usage
        text += "".join(choice.text for choice in piece.choices)
    assert usage is not None
    assert usage.total_tokens == 18
    return text


async def test_asking_twice_is_one_call_and_the_hit_is_readable(
    stage: Stage, gateway: Running
) -> None:
    client = await stage.openai(gateway)
    first, second = [await create(client) for _ in range(2)]
    assert first.choices[0].text == second.choices[0].text == "hello"
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert second.kv_cache["saved_tokens"] == 18
    assert second.kv_cache["saved_cost"] == pytest.approx(11e-6 + 2 * 7e-6)
    assert (first.id, second.id[:5]) == ("cmpl-upstream", "cmpl-")
    assert second.id != first.id
    assert stage.upstream.calls == 1


@pytest.mark.parametrize("order", [(True, False, True), (False, True, False)])
async def test_one_entry_serves_both_shapes(
    stage: Stage, gateway: Running, order: tuple[bool, ...]
) -> None:
    client = await stage.openai(gateway)
    assert [await text_of(client, streaming=each) for each in order] == ["hello"] * 3
    assert stage.upstream.calls == 1


async def test_the_blocking_client_works_the_same(stage: Stage, gateway: Running) -> None:
    def ask() -> list[Any]:
        with OpenAI(base_url=gateway.url, api_key="k", max_retries=0) as client:
            made = [client.completions.create(model="m", prompt=PROMPT) for _ in range(2)]
            pieces = client.completions.create(model="m", prompt=PROMPT, stream=True)
            text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
            return [*(one.model_extra["cache_hit"] for one in made if one.model_extra), text]

    assert await asyncio.to_thread(ask) == [False, True, "hello"]
    assert stage.upstream.calls == 1


async def test_every_choice_of_every_prompt_is_kept_or_none(stage: Stage, gateway: Running) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.json(text_completion(*"abcd"[: seen.json.get("say", 4)]))

    stage.upstream.script = speak
    client = await stage.openai(gateway)
    asked = {"prompt": [[1, 2], [3]], "n": 2, "best_of": 5, "echo": True, "logprobs": 1}
    for expected in (False, True):
        whole = await create(client, **asked)
        assert [choice.text for choice in whole.choices] == ["a", "b", "c", "d"]
        assert whole.cache_hit is expected
    for _ in range(2):
        lacking = await create(client, **asked, extra_body={"say": 3})
        assert lacking.kv_cache["not_stored"] == "incomplete"
    assert stage.upstream.calls == 3


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Twice upon a time"},
        {"prompt": [PROMPT]},
        {"prompt": [[1, 2, 3]]},
        {"n": 1},
        {"best_of": 3},
        {"echo": True},
        {"logprobs": 0},
        {"suffix": "the end"},
        {"top_k": 5},
        {"temperature": 0},
    ],
)
async def test_every_field_counts(stage: Stage, gateway: Running, change: dict[str, Any]) -> None:
    body = {"model": "m", "prompt": PROMPT}
    assert (await gateway.post(PATH, body)).cache == "MISS"
    assert (await gateway.post(PATH, body | change)).cache == "MISS"
    assert (await gateway.post("/completions", dict(reversed((body | change).items())))).cache == (
        "HIT"
    )


async def test_a_chat_answer_is_never_handed_out_for_a_prompt(
    stage: Stage, gateway: Running
) -> None:
    body = {"model": "m", "prompt": PROMPT, "messages": []}
    assert (await gateway.post("/v1/chat/completions", body)).cache == "MISS"
    assert (await gateway.post(PATH, body)).cache == "MISS"
    assert stage.upstream.calls == 2


@pytest.mark.parametrize(
    ("finish", "why"), [("length", "length"), ("content_filter", "content-filter"), (None, None)]
)
async def test_what_is_cut_off_is_not_kept(
    stage: Stage, gateway: Running, finish: str | None, why: str | None
) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.json(text_completion("half", finish=finish))

    stage.upstream.script = speak
    for calls in (1, 2):
        got = await gateway.post(PATH, {"model": "m", "prompt": PROMPT})
        assert (got.cache, stage.upstream.calls) == ("MISS", calls)
        assert got.json["kv_cache"]["not_stored"] == (why or "incomplete")


async def test_many_askers_of_one_stream_are_one_call(stage: Stage, gateway: Running) -> None:
    go = asyncio.Event()

    async def speak(seen: Seen, out: Out) -> None:
        await go.wait()
        await stream(out, text_chunks("a", "b", "c"))

    stage.upstream.script = speak
    body = {"model": "m", "prompt": PROMPT, "stream": True}
    askers = [asyncio.create_task(gateway.post(PATH, body)) for _ in range(20)]
    await stage.upstream.called()
    go.set()
    answers = await asyncio.gather(*askers)
    texts = {
        "".join(event["choices"][0]["text"] for event in got.events if event != "[DONE]")
        for got in answers
    }
    assert (texts, stage.upstream.calls) == ({"abc"}, 1)
    assert sorted({got.cache for got in answers}) == ["COALESCED", "MISS"]


async def test_a_stream_that_breaks_raises_in_the_client(stage: Stage, gateway: Running) -> None:
    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.event(text_chunks("half")[0])
        out.cut()

    stage.upstream.script = half
    client = await stage.openai(gateway)
    pieces = aiter(await create(client, stream=True))
    assert (await anext(pieces)).choices[0].text == "half"
    with pytest.raises(openai.APIError, match="broke off"):
        await anext(pieces)


async def test_usage_is_asked_for_on_behalf_and_taken_out_again(stage: Stage) -> None:
    from thinkonce import settings as known

    pools = {"main": known.Upstream(urls=[stage.upstream.url], ask_usage=True)}
    gateway = await stage.gateway(upstreams=pools)
    body = {"model": "m", "prompt": PROMPT, "stream": True}
    got = await gateway.post(PATH, body)
    assert stage.upstream.seen[0].json["stream_options"] == {"include_usage": True}
    assert not any("usage" in event for event in got.events)
    whole = await gateway.post(PATH, {"model": "m", "prompt": PROMPT})
    assert (whole.cache, whole.json["usage"]["total_tokens"]) == ("HIT", 18)


async def test_errors_have_openais_shape(stage: Stage, gateway: Running) -> None:
    got = await gateway.post(PATH, {"model": "m", "prompt": "x", "kv_cache": {"tll": 1}})
    assert got.status == 400
    assert got.json["error"]["param"] == "kv_cache.tll"
    broken = await gateway.send("POST", PATH, b'{"prompt":', {"content-type": "application/json"})
    assert (broken.status, broken.json["error"]["code"]) == (400, "invalid_json")


async def test_annotations_can_be_left_out(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    body = {"model": "m", "prompt": PROMPT}
    miss, hit = [await gateway.post(PATH, body) for _ in range(2)]
    assert miss.body == hit.body == json.dumps(text_completion()).encode()
    assert hit.headers["x-cache-source-id"] == "cmpl-upstream"
