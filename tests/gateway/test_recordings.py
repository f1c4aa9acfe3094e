"""Real exchanges of real providers, replayed through the gateway: bytes stay what they were."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen
from thinkonce.outcome import Reason
from thinkonce.protocols.registry import DIALECTS
from thinkonce.request.storable import StoreRules, refusal

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "protocols"))
from recordings import chat_recordings, needs_recordings

pytestmark = needs_recordings

CALLS = [call for call in chat_recordings() if "error" not in call["tags"]]
FAILED = [call for call in chat_recordings() if call["status"] >= 400]


async def play(stage: Stage, gateway: Running, call: dict[str, Any]) -> bytes:
    """Make the provider answer as recorded, to a gateway that knows nothing; what it sends."""
    await gateway.post("/cache/purge", {"all": True})
    stage.upstream.seen.clear()
    body: bytes = call["response_body"].lstrip().encode()  # one was saved with a space before it
    kind = call["response_headers"].get("content-type", "application/json")

    async def answer(seen: Seen, out: Out) -> None:
        if not call["stream"]:
            await out.whole(body, call["status"], kind)
            return
        await out.begin_stream()
        for at in range(0, len(body), 61):  # borders fall anywhere
            await out.piece(body[at : at + 61])
        await out.end()

    stage.upstream.script = answer
    return body


def why_not_stored(call: dict[str, Any], body: bytes) -> Reason | None:
    dialect = DIALECTS["chat/completions"]
    asked = dialect.asks(call["request_body"])
    if call["stream"]:
        recorder = dialect.recorder(asked, usage_asked=asked.include_usage, max_bytes=1 << 20)
        recorder.feed(body)
        recorder.end()
        gist = recorder.gist()
    else:
        gist = dialect.receive(asked, 200, "application/json", body).gist
    return refusal(asked, gist, dialect.finish_reasons, StoreRules())


async def ask(gateway: Running, request: dict[str, Any]) -> Any:
    return await gateway.post("/v1/chat/completions", request)


async def test_unmarked_answers_are_the_providers_bytes_on_miss_and_hit(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    for call in CALLS:
        await same_bytes(stage, gateway, call)


async def same_bytes(stage: Stage, gateway: Running, call: dict[str, Any]) -> None:
    body = await play(stage, gateway, call)
    miss, again = [await ask(gateway, call["request_body"]) for _ in range(2)]
    assert stage.upstream.seen[0].json == call["request_body"]
    assert miss.body == body
    stored = why_not_stored(call, body) is None
    assert (miss.cache, again.cache) == ("MISS", "HIT" if stored else "MISS")
    assert again.body == body


async def test_marked_answers_differ_in_marks_id_and_time_only(stage: Stage) -> None:
    gateway = await stage.gateway()
    for call in CALLS:
        await same_but_marks(stage, gateway, call)


async def same_but_marks(stage: Stage, gateway: Running, call: dict[str, Any]) -> None:
    await play(stage, gateway, call)
    miss, hit = [await ask(gateway, call["request_body"]) for _ in range(2)]
    if call["stream"]:
        assert len(miss.events) == len(hit.events)
        pairs = list(zip(miss.events, hit.events, strict=True))
    else:
        pairs = [(miss.json, hit.json)]
    for first, second in pairs:
        if first != "[DONE]":
            assert without_marks(first) == without_marks(second)
    marked = pairs[-2 if call["stream"] else -1]
    assert marked[1]["cache_hit"] is (hit.cache == "HIT")


async def test_the_other_shape_holds_the_same_answer(stage: Stage) -> None:
    gateway = await stage.gateway()
    stored = [c for c in CALLS if why_not_stored(c, c["response_body"].lstrip().encode()) is None]
    assert len(stored) > 40
    for call in stored:
        await same_in_both_shapes(stage, gateway, call)


async def same_in_both_shapes(stage: Stage, gateway: Running, call: dict[str, Any]) -> None:
    await play(stage, gateway, call)
    request = dict(call["request_body"])
    await ask(gateway, request)
    stream = not call["stream"]
    other = await ask(
        gateway, {k: v for k, v in request.items() if k != "stream_options"} | {"stream": stream}
    )
    assert (other.cache, stage.upstream.calls) == ("HIT", 1)
    back = await ask(gateway, request)
    if stream:
        texts, calls = spoken(other.events), called(other.events)
        message = [choice["message"] for choice in back.json["choices"]]
    else:
        texts, calls = spoken(back.events), called(back.events)
        message = [choice["message"] for choice in other.json["choices"]]
    assert texts == [one.get("content") or "" for one in message]
    assert calls == [
        [
            (tool["function"]["name"], tool["function"]["arguments"])
            for tool in one.get("tool_calls") or []
        ]
        for one in message
    ]


async def test_recorded_errors_pass_unchanged(stage: Stage) -> None:
    gateway = await stage.gateway()
    for call in FAILED:
        body = await play(stage, gateway, call)
        for calls in (1, 2):
            got = await ask(gateway, call["request_body"])
            assert (got.status, got.body, stage.upstream.calls) == (call["status"], body, calls)


def without_marks(event: dict[str, Any]) -> dict[str, Any]:
    dropped = ("id", "created", "cache_hit", "kv_cache")
    return {name: value for name, value in event.items() if name not in dropped}


def choices(events: list[Any]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        for choice in event["choices"] if event != "[DONE]" else ():
            found.setdefault(choice["index"], []).append(choice["delta"])
    return dict(sorted(found.items()))


def spoken(events: list[Any]) -> list[str]:
    return [
        "".join(delta.get("content") or "" for delta in deltas)
        for deltas in choices(events).values()
    ]


def called(events: list[Any]) -> list[list[tuple[str, str]]]:
    """Name and arguments of each tool call of each choice."""
    told = []
    for deltas in choices(events).values():
        calls: dict[int, list[str]] = {}
        for delta in deltas:
            for part in delta.get("tool_calls") or ():
                name, arguments = part["function"].get("name"), part["function"].get("arguments")
                row = calls.setdefault(part["index"], ["", ""])
                row[0] += name or ""
                row[1] += arguments or ""
        told.append([(name, arguments) for name, arguments in calls.values()])
    return told
