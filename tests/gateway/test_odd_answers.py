"""An answer with numbers or text that cannot be kept is handed out as it came, and not kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.anthropic_upstream import events, message
from gateway.conftest import Running, Stage
from gateway.upstream import DONE, Out, Seen, Upstream, chunks, completion, stream, text_chunks
from thinkonce.protocols.chunks import answer as chunk_answer
from thinkonce.protocols.chunks.recorder import ChunkRecorder

# A member of the answer, and how the upstream writes its value.
ODD = [
    ("created", "1e400"),
    ("created", "-1e400"),
    ("created", "NaN"),
    ("created", "1" + 40 * "0"),
    ("id", '"chatcmpl-\\ud800"'),
    ("model", '"\\udfff"'),
    ("usage", '{"prompt_tokens":1%s,"completion_tokens":2}' % (30 * "0")),
    ("usage", '{"prompt_tokens":1,"completion_tokens":NaN}'),
    ("usage", '{"prompt_tokens":1,"completion_tokens":2,"details":[{"n":1e999}]}'),
    ("usage", '{"prompt_tokens":1,"completion_tokens":2,"tier":"\\ud800"}'),
]


def written(whole: dict[str, object], name: str, value: str) -> bytes:
    return json.dumps(whole | {name: "HERE"}).replace('"HERE"', value).encode()


@pytest.mark.parametrize(("name", "value"), ODD)
async def test_an_answer_that_cannot_be_kept_is_one_call_and_comes_byte_for_byte(
    gateway: Running, upstream: Upstream, name: str, value: str
) -> None:
    body = written(completion(), name, value)

    async def script(seen: Seen, out: Out) -> None:
        await out.whole(body)

    upstream.script = script
    got = await gateway.chat()
    assert (got.status, got.body, upstream.calls) == (200, body, 1)
    assert (await gateway.chat()).cache == "MISS", "it was not stored"


@pytest.mark.parametrize(("name", "value"), ODD)
async def test_those_who_wait_for_such_an_answer_share_the_one_call(
    gateway: Running, upstream: Upstream, name: str, value: str
) -> None:
    body, go = written(completion(), name, value), asyncio.Event()

    async def script(seen: Seen, out: Out) -> None:
        await go.wait()
        await out.whole(body)

    upstream.script = script
    asking = [asyncio.create_task(gateway.chat()) for _ in range(6)]
    await upstream.called()
    async with asyncio.timeout(10):
        while gateway.assembly.world.following < 6:
            await asyncio.sleep(0)
    go.set()
    got = await asyncio.gather(*asking)
    assert [each.body for each in got] == [body] * 6
    assert upstream.calls == 1


@pytest.mark.parametrize(("name", "value"), ODD)
async def test_a_stream_that_cannot_be_kept_is_passed_on_to_its_end_mark(
    gateway: Running, upstream: Upstream, name: str, value: str
) -> None:
    events = [written(event, name, value).decode() for event in chunks("hel", "lo")]

    async def script(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in [*events, DONE]:
            await out.event(event)
        await out.end()

    upstream.script = script
    got = await gateway.chat(stream=True)
    *passed, last, done = [data for data in got.body.decode().split("\n\n") if data]
    assert passed == [f"data: {event}" for event in events[:-1]]
    assert last.startswith(f"data: {events[-1][:-1]}"), "the marks follow in the last one"
    assert '"not_stored":"unencodable"' in last
    assert (done, upstream.calls) == (f"data: {DONE}", 1)
    assert (await gateway.chat(stream=True)).cache == "MISS", "it was not stored"


@pytest.mark.parametrize("created", ["-1", "1700000000000000000", "1700000000.5", "null"])
async def test_a_creation_time_that_is_merely_unusual_is_kept(
    gateway: Running, upstream: Upstream, created: str
) -> None:
    events = [written(event, "created", created).decode() for event in chunks("hello")]

    async def script(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in [*events, DONE]:
            await out.event(event)
        await out.end()

    upstream.script = script
    await gateway.chat(stream=True)
    again = await gateway.chat(stream=True)
    assert (again.cache, again.streamed_text, upstream.calls) == ("HIT", "hello", 1)


async def test_a_dialect_that_describes_an_answer_wrongly_does_not_lose_it(
    gateway: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_answer, "bounded", lambda number: 2**70)
    got = await gateway.chat()
    assert (got.status, got.text, upstream.calls) == (200, "hello", 1)
    assert got.json["kv_cache"]["not_stored"] == "unencodable"


async def test_a_recorder_that_fails_at_the_end_of_a_stream_costs_its_clients_nothing(
    gateway: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(recorder: ChunkRecorder) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ChunkRecorder, "end", fails)
    for calls in (1, 2):
        got = await gateway.chat(stream=True)
        assert (got.cache, got.streamed_text, upstream.calls) == ("MISS", "hello", calls)
        assert got.events[-1] == DONE


@pytest.mark.parametrize("odd", [b'"\xed"', b'{"a":' * 3000 + b"1" + b"}" * 3000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages"])
async def test_a_stream_with_a_member_that_cannot_be_read_comes_whole_and_is_not_kept(
    gateway: Running, upstream: Upstream, path: str, odd: bytes
) -> None:
    """Without usage, so that its tokens are estimated from all that was said."""
    said = {"/v1/chat/completions": chunks("a"), "/v1/completions": text_chunks("a")}
    told = said.get(path) or [unpriced(event) for event in events(message())]

    async def speak(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for event in told:
            name = f"event: {event['type']}\n".encode() if "type" in event else b""
            data = json.dumps(event).encode()[:-1] + b',"odd":%b}' % odd
            await out.piece(name + b"data: %b\n\n" % data)
        await out.piece(b"data: [DONE]\n\n")
        await out.end()

    upstream.script = speak
    question = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "messages": question, "prompt": "hi", "max_tokens": 9, "stream": True}
    for calls in (1, 2):
        got = await gateway.post(path, body)
        assert (got.status, got.cache, upstream.calls) == (200, "MISS", calls)
        assert odd in got.body


def unpriced(event: dict[str, Any]) -> dict[str, Any]:
    """Without what was counted, wherever it stands."""
    return {
        name: unpriced(value) if name == "message" else value
        for name, value in event.items()
        if name != "usage"
    }


HEADS = {
    "a status below 100": b"HTTP/1.1 099 Odd\r\n",
    "a status beyond 599": b"HTTP/1.1 999 Odd\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n",
    "a control character in its type": b"HTTP/1.1 200 OK\r\ncontent-type: a\x01b\r\n",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/moderations"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_head_that_cannot_be_passed_on_is_a_502(
    gateway: Running, upstream: Upstream, head: bytes, path: str
) -> None:
    async def script(seen: Seen, out: Out) -> None:
        await out.raw(head + b"content-length: 2\r\n\r\n{}")

    upstream.script = script
    got = await gateway.post(path, {"model": "m", "messages": []})
    assert got.status == 502
    assert "not HTTP" in got.json["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "null"),
        ("id", "17"),
        ("created", '"2026-11-22"'),
        ("created", "null"),
        ("model", "null"),
    ],
)
async def test_an_answer_whose_id_or_time_is_of_another_type_is_kept(
    gateway: Running, upstream: Upstream, name: str, value: str
) -> None:
    async def script(seen: Seen, out: Out) -> None:
        await out.whole(written(completion(), name, value))

    upstream.script = script
    first, second = await gateway.chat(), await gateway.chat()
    assert (second.status, second.cache, second.text) == (200, "HIT", first.text)
    assert upstream.calls == 1
    if name != "model":
        assert type(second.json[name]) is (str if name == "id" else int), "a hit has its own"
    streamed = await gateway.chat(stream=True)
    assert (streamed.cache, streamed.streamed_text) == ("HIT", first.text)


def piece(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


@pytest.mark.parametrize(
    ("behind", "kept"),
    [
        ([piece({}, "tool_calls")], False),
        ([piece({}, "stop"), piece({"content": "more"})], False),
        ([piece({"content": "more"})], False),
        ([piece({"tool_calls": [{"index": 0, "id": "t"}]})], False),
        ([piece({"reasoning_content": "more"})], False),
        ([piece({})], True),
        ([piece({"role": "assistant", "content": ""}, "stop")], True),
        ([], True),
    ],
)
@pytest.mark.parametrize("finish", ["length", "stop"])
async def test_a_choice_that_goes_on_behind_its_end_is_not_kept(
    stage: Stage, behind: list[dict[str, Any]], kept: bool, finish: str
) -> None:
    chunks = [piece({"role": "assistant", "content": "hello"}), piece({}, finish), *behind]

    async def went_on(seen: Seen, out: Out) -> None:
        await stream(out, chunks)

    stage.upstream.script = went_on
    gateway = await stage.gateway()
    first = await gateway.chat(stream=True)
    assert first.status == 200
    is_kept = kept and finish == "stop"
    assert (await gateway.chat(stream=True)).cache == ("HIT" if is_kept else "MISS")
