"""The Responses API through the official client, and over the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from gateway.conftest import Got, Running, Stage
from gateway.upstream import Out, Seen, response, response_events, said, stream_named

PATH = "/v1/responses"
QUESTION = "What is the capital of Norway?"
BODY: dict[str, Any] = {"model": "priced", "input": QUESTION}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Oslo","unit":"celsius","days":[1,2,3]}',
}


async def create(client: AsyncOpenAI, **more: Any) -> Response:
    made: Response = await client.responses.create(**BODY | more)
    return made


async def test_asking_twice_is_one_call_and_the_id_is_the_upstreams(
    stage: Stage, gateway: Running
) -> None:
    client = await stage.openai(gateway)
    first, second = [await create(client) for _ in range(2)]
    assert first.output_text == second.output_text == "hello"
    assert first.id == second.id == "resp_upstream", "later calls refer to it"
    assert first.created_at == second.created_at
    assert (first.cache_hit, second.cache_hit) == (False, True)  # type: ignore[attr-defined]
    marks = second.kv_cache  # type: ignore[attr-defined]
    assert marks["saved_tokens"] == 18
    assert marks["saved_cost"] > 0
    assert stage.upstream.calls == 1


async def test_the_next_turn_refers_to_a_hit(stage: Stage, gateway: Running) -> None:
    client = await stage.openai(gateway)
    for _ in range(2):
        first = await create(client)
    for previous in (first.id, "resp_other", first.id):
        await create(client, input="And of Sweden?", previous_response_id=previous)
    sent = [seen.json.get("previous_response_id") for seen in stage.upstream.seen]
    assert sent == [None, "resp_upstream", "resp_other"], "the third was a hit"


async def streamed(client: AsyncOpenAI) -> tuple[str, Any]:
    """The words of the deltas, and the last event."""
    text, last = "", None
    async for event in await client.responses.create(**BODY, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        last = event
    return text, last


async def helped(client: AsyncOpenAI) -> tuple[str, Response]:
    """The same through the client's own helper, which builds the answer up from the events."""
    text = ""
    async with client.responses.stream(**BODY) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
                assert event.snapshot == text
        return text, await stream.get_final_response()


@pytest.mark.parametrize("stream_first", [True, False])
async def test_one_entry_serves_both_shapes(
    stage: Stage, gateway: Running, stream_first: bool
) -> None:
    client = await stage.openai(gateway)
    if stream_first:
        text, last = await streamed(client)
        assert (text, last.cache_hit, last.response.cache_hit) == ("hello", False, False)
    else:
        await create(client)
    text, last = await streamed(client)
    assert (text, last.type, last.response.output_text) == ("hello", "response.completed", "hello")
    assert (last.cache_hit, last.response.cache_hit) == (True, True)
    text, final = await helped(client)
    assert (text, final.output_text, final.id) == ("hello", "hello", "resp_upstream")
    assert final.cache_hit is True  # type: ignore[attr-defined]
    whole = await create(client)
    assert (whole.output_text, whole.cache_hit) == ("hello", True)  # type: ignore[attr-defined]
    assert stage.upstream.calls == 1


async def test_the_blocking_client_works_the_same(stage: Stage, gateway: Running) -> None:
    def ask() -> list[Any]:
        with OpenAI(base_url=gateway.url, api_key="k", max_retries=0) as client:
            made = [client.responses.create(model="m", input=QUESTION) for _ in range(2)]
            deltas = client.responses.create(model="m", input=QUESTION, stream=True)
            text = "".join(e.delta for e in deltas if e.type == "response.output_text.delta")
            with client.responses.stream(model="m", input=QUESTION) as stream:
                final = stream.until_done().get_final_response()
            hits = [one.model_extra["cache_hit"] for one in made if one.model_extra]
            return [*hits, text, final.output_text]

    assert await asyncio.to_thread(ask) == [False, True, "hello", "hello"]
    assert stage.upstream.calls == 1


class City(BaseModel):
    name: str


async def test_a_parsed_answer_is_kept_only_if_it_is_json(stage: Stage, gateway: Running) -> None:
    text = '{"name":"Oslo"}'

    async def speak(seen: Seen, out: Out) -> None:
        await out.json(response(said(text if seen.json["model"] == "good" else "sorry")))

    stage.upstream.script = speak
    client = await stage.openai(gateway)
    for _ in range(2):
        parsed = await client.responses.parse(model="good", input=QUESTION, text_format=City)
        assert parsed.output_parsed == City(name="Oslo")
    assert stage.upstream.calls == 1
    form = {"format": {"type": "json_object"}}
    for calls in (2, 3):
        got = await gateway.post(PATH, {"model": "bad", "input": QUESTION, "text": form})
        assert got.json["kv_cache"]["not_stored"] == "invalid-json"
        assert stage.upstream.calls == calls


async def test_calls_and_reasoning_come_as_a_stream_too(stage: Stage, gateway: Running) -> None:
    thought = {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "The user wants the weather."}],
        "encrypted_content": "gAAA",
    }

    async def speak(seen: Seen, out: Out) -> None:
        await out.json(response(thought, CALL))

    stage.upstream.script = speak
    client = await stage.openai(gateway)
    whole = await create(client)
    async with client.responses.stream(**BODY) as stream:
        names = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert "response.function_call_arguments.delta" in names
    assert "response.reasoning_summary_text.delta" in names
    assert [item.type for item in final.output] == ["reasoning", "function_call"]
    called = final.output[1]
    assert isinstance(called, ResponseFunctionToolCall)
    assert called.arguments == CALL["arguments"]
    assert [item.to_dict() for item in whole.output] == [thought, CALL]
    assert stage.upstream.calls == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]},
    ],
)
async def test_what_depends_on_state_elsewhere_goes_around_the_cache(
    stage: Stage, gateway: Running, fields: dict[str, Any]
) -> None:
    for calls in (1, 2):
        got = await gateway.post(PATH, BODY | fields)
        assert (got.cache, got.reason, stage.upstream.calls) == ("BYPASS", "stateful", calls)
        assert got.json["kv_cache"]["not_stored"] == "stateful"
        got = await gateway.post(PATH, BODY | fields | {"kv_cache": {}, "stream": True})
        assert got.events[-1]["cache_hit"] is False
        stage.upstream.seen.pop()


async def test_a_url_for_a_picture_shortens_the_life_and_can_be_refused(stage: Stage) -> None:
    def with_image(url: str) -> dict[str, Any]:
        part = {"type": "input_image", "image_url": url, "detail": "auto"}
        return {"model": "m", "input": [{"role": "user", "content": [part]}]}

    gateway = await stage.gateway(cache={"ttl": 7200})
    lives = []
    for url in ("https://example.com/a.png", "data:image/png;base64,aaaa"):
        await gateway.post(PATH, with_image(url))
        lives.append(float((await gateway.post(PATH, with_image(url))).headers["x-cache-ttl"]))
    assert (lives[0] <= 3600, lives[1] > 3600) == (True, True)
    other = await gateway.post(PATH, with_image("data:image/png;base64,bbbb"))
    assert other.cache == "MISS", "a file counts by its bytes"
    strict = await stage.gateway(gateway={"remote_media": "bypass"})
    got = await strict.post(PATH, with_image("https://example.com/a.png"))
    assert (got.cache, got.reason) == ("BYPASS", "stateful")


async def test_without_context_only_the_last_question_counts(
    stage: Stage, gateway: Running
) -> None:
    def turns(*questions: str) -> dict[str, Any]:
        said = [{"role": "user", "content": question} for question in questions]
        return {"model": "m", "input": said, "kv_cache": {"context_aware": False}}

    assert (await gateway.post(PATH, turns("a", "b"))).cache == "MISS"
    assert (await gateway.post(PATH, turns("x", "b"))).cache == "HIT"
    assert (await gateway.post(PATH, turns("a", "c"))).cache == "MISS"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content-filter",
        ),
        ({"status": "cancelled"}, "aborted"),
        ({"status": "queued"}, "incomplete"),
    ],
)
async def test_only_a_completed_answer_is_kept(
    stage: Stage, gateway: Running, more: dict[str, Any], why: str
) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.json(response(**more))

    stage.upstream.script = speak
    for calls in (1, 2):
        got = await gateway.post(PATH, BODY)
        assert (got.cache, stage.upstream.calls) == ("MISS", calls)
        assert got.json["kv_cache"]["not_stored"] == why


async def test_a_failed_answer_passes_untouched(stage: Stage, gateway: Running) -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "oops"})

    async def speak(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await stream_named(out, response_events("a", status="failed", error=failed["error"]))
        else:
            await out.json(failed)

    stage.upstream.script = speak
    for calls in (1, 2):
        got = await gateway.post(PATH, BODY)
        assert (got.json, stage.upstream.calls) == (failed, calls)
    for calls in (3, 4):
        got = await gateway.post(PATH, BODY | {"stream": True})
        assert got.events[-1]["type"] == "response.failed"
        assert (got.events[-1]["kv_cache"]["not_stored"], stage.upstream.calls) == ("error", calls)


async def test_an_incomplete_stream_is_not_kept_and_says_so(stage: Stage, gateway: Running) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        details = {"reason": "max_output_tokens"}
        events = response_events("half", status="incomplete", incomplete_details=details)
        await stream_named(out, events)

    stage.upstream.script = speak
    for calls in (1, 2):
        got = await gateway.post(PATH, BODY | {"stream": True})
        assert (got.cache, stage.upstream.calls) == ("MISS", calls)
        assert got.events[-1]["type"] == "response.incomplete"
        assert got.events[-1]["response"]["kv_cache"]["not_stored"] == "length"


async def test_an_item_of_another_kind_is_a_miss_for_the_other_shape(
    stage: Stage, gateway: Running
) -> None:
    odd = {"id": "x_1", "type": "of_tomorrow", "news": [1]}

    async def speak(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await stream_named(out, response_events("hello"))
        else:
            await out.json(response(odd, said()))

    stage.upstream.script = speak
    whole = await gateway.post(PATH, BODY)
    assert whole.json["output"][0] == odd
    got = await gateway.post(PATH, BODY | {"stream": True})
    assert (got.cache, got.reason, stage.upstream.calls) == ("MISS", "shape", 2)


async def test_many_askers_of_one_stream_are_one_call_and_get_every_event(
    stage: Stage, gateway: Running
) -> None:
    go = asyncio.Event()

    async def speak(seen: Seen, out: Out) -> None:
        events = response_events("a", "b", "c")
        await out.begin_stream()
        for event in events[:5]:
            await out.event(event, event["type"])
        await go.wait()
        for event in events[5:]:
            await out.event(event, event["type"])
        await out.end()

    stage.upstream.script = speak
    streams = [gateway.post(PATH, BODY | {"stream": True}) for _ in range(10)]
    askers = [asyncio.create_task(each) for each in (*streams, gateway.post(PATH, BODY))]
    await stage.upstream.called()
    go.set()
    *told, whole = await asyncio.gather(*askers)
    assert stage.upstream.calls == 1
    assert {len(got.events) for got in told} == {len(response_events("a", "b", "c"))}
    assert {got.events[-1]["response"]["output"][0]["content"][0]["text"] for got in told} == {
        "abc"
    }
    assert sorted({got.cache for got in told}) == ["COALESCED", "MISS"]
    assert whole.json["output"] == response(said("abc"))["output"]


async def test_a_stream_that_breaks_raises_in_the_client(stage: Stage, gateway: Running) -> None:
    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in response_events("half")[:5]:
            await out.event(event, event["type"])
        out.cut()

    stage.upstream.script = half
    client = await stage.openai(gateway)
    events = aiter(await client.responses.create(**BODY, stream=True))
    for _ in range(5):
        await anext(events)
    with pytest.raises(openai.APIError, match="broke off"):
        await anext(events)
    got = await gateway.post(PATH, BODY | {"stream": True})
    assert got.body.rpartition(b"event: ")[2].startswith(b"error\ndata: ")
    assert got.events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in got.events] == list(range(6))


async def test_a_stream_that_ends_without_its_end_is_not_kept(
    stage: Stage, gateway: Running
) -> None:
    async def silent(seen: Seen, out: Out) -> None:
        await stream_named(out, response_events("a")[:-1])

    stage.upstream.script = silent
    for calls in (1, 2):
        got = await gateway.post(PATH, BODY | {"stream": True})
        assert (got.cache, stage.upstream.calls) == ("MISS", calls)


@pytest.mark.parametrize("streaming", [False, True])
async def test_annotations_can_be_left_out(stage: Stage, streaming: bool) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    miss, hit = [await gateway.post(PATH, BODY | {"stream": streaming}) for _ in range(2)]
    assert (hit.cache, hit.body) == ("HIT", miss.body)
    assert b"cache_hit" not in hit.body
    assert hit.headers["x-cache-source-id"] == "resp_upstream"


async def test_usage_is_never_asked_for_on_behalf_of_a_client(stage: Stage) -> None:
    from thinkonce import settings as known

    pools = {"main": known.Upstream(urls=[stage.upstream.url], ask_usage=True)}
    gateway = await stage.gateway(upstreams=pools)
    body = json.dumps(BODY | {"stream": True}).encode()
    await gateway.send("POST", PATH, body, {"content-type": "application/json"})
    assert stage.upstream.seen[0].body == body


async def test_what_lies_below_the_path_is_forwarded(stage: Stage, gateway: Running) -> None:
    got: Got = await gateway.get(f"{PATH}/resp_upstream")
    assert (got.cache, got.reason) == ("BYPASS", "endpoint")
    assert stage.upstream.seen[0].path == f"{PATH}/resp_upstream"
