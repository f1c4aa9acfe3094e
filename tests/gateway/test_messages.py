"""Anthropic's Messages on the wire: marks, bytes, what is not stored, errors in its shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.anthropic_upstream import TEXT, THOUGHT, answers, events, framed, message
from gateway.conftest import Got, Running, Stage, until
from gateway.upstream import Out, Seen, Upstream, once
from thinkonce import settings as known

ASK: dict[str, Any] = {
    "model": "priced",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}


async def ask(gateway: Running, headers: dict[str, str] | None = None, **more: Any) -> Got:
    return await gateway.post("/v1/messages", {**ASK, **more}, headers)


def unpinged(stream: bytes) -> bytes:
    blocks = [block for block in stream.split(b"\n\n") if b'"ping"' not in block]
    return b"\n\n".join(blocks)


async def test_the_marks_ride_on_the_last_event(gateway: Running, upstream: Upstream) -> None:
    upstream.script = answers()
    for expected in ("MISS", "HIT"):
        got = await ask(gateway, stream=True)
        assert got.cache == expected
        assert got.headers["content-type"].startswith("text/event-stream")
        marked = [event["type"] for event in got.events if "cache_hit" in event]
        assert marked == ["message_stop"]
        assert got.events[-1]["kv_cache"]["status"] == expected.lower()
    assert "ping" not in [event["type"] for event in got.events]


async def test_unmarked_bodies_are_the_providers_bytes(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    whole = message(THOUGHT, TEXT)
    for stream in (True, False):
        stage.upstream.script = answers(THOUGHT, TEXT)
        original = framed(events(whole)) if stream else json.dumps(whole).encode()
        miss, hit = [await ask(gateway, stream=stream, top_k=int(stream)) for _ in range(2)]
        assert (miss.cache, hit.cache) == ("MISS", "HIT")
        assert miss.body == original
        assert hit.body == unpinged(original)


async def test_both_paths_share_and_controls_stay_here(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = answers()
    await ask(gateway, kv_cache={"tags": ["a"]}, cache={"ttl": 60})
    got = await gateway.post("/messages", ASK)
    assert (got.cache, upstream.calls) == ("HIT", 1)
    assert upstream.seen[0].json == ASK
    assert await gateway.metric("thinkonce_requests_total") == 2


async def test_breakpoints_of_the_providers_cache_are_passed_on_and_count(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = answers()
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    marked = [{"role": "user", "content": [part]}]
    plain = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    told = [(await ask(gateway, messages=each)).cache for each in (marked, plain, marked)]
    assert told == ["MISS", "MISS", "HIT"]
    assert upstream.seen[0].json["messages"] == marked


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("max_tokens", "length"), ("refusal", "content-filter"), ("pause_turn", "incomplete")],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_did_not_end_well_is_not_stored_and_says_why(
    gateway: Running, upstream: Upstream, stop: str, reason: str, stream: bool
) -> None:
    upstream.script = answers(stop=stop)
    for calls in (1, 2):
        got = await ask(gateway, stream=stream)
        marks = (got.events[-1] if stream else got.json)["kv_cache"]
        assert (marks["stored"], marks["not_stored"], upstream.calls) == (False, reason, calls)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"container": "container_1"},
        {"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]},
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_runs_at_the_provider_goes_around_the_cache(
    gateway: Running, upstream: Upstream, more: dict[str, Any], stream: bool
) -> None:
    upstream.script = answers()
    for calls in (1, 2):
        got = await ask(gateway, stream=stream, **more)
        assert (got.cache, got.reason, upstream.calls) == ("BYPASS", "stateful", calls)
        last = got.events[-1] if stream else got.json
        assert last["kv_cache"]["not_stored"] == "stateful"


async def test_a_document_at_a_url_lives_no_longer_than_what_changes(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = answers()
    source = {"type": "url", "url": "https://example.com/a.pdf"}
    messages = [{"role": "user", "content": [{"type": "document", "source": source}]}]
    await ask(gateway, messages=messages, kv_cache={"ttl": 86_400})
    got = await ask(gateway, messages=messages)
    assert got.cache == "HIT"
    assert int(got.headers["x-cache-ttl"]) <= 3600


async def test_a_delta_of_an_unknown_kind_keeps_the_entry_to_streams(
    gateway: Running, upstream: Upstream
) -> None:
    said = events(message())
    said.insert(4, {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta"}})

    async def script(seen: Seen, out: Out) -> None:
        if not seen.json.get("stream"):
            await out.json(message())
            return
        await out.begin_stream()
        await out.piece(framed(said))
        await out.end()

    upstream.script = script
    first, again = [await ask(gateway, stream=True) for _ in range(2)]
    assert again.cache == "HIT"
    assert [each["type"] for each in unmarked_events(again)] == [
        each["type"] for each in unmarked_events(first)
    ]
    whole = await ask(gateway)
    assert (whole.cache, whole.reason, upstream.calls) == ("MISS", "shape", 2)


def unmarked_events(got: Got) -> list[Any]:
    return [event for event in got.events if event["type"] != "ping"]


async def test_identical_streams_at_once_are_one_call(gateway: Running, upstream: Upstream) -> None:
    gate = asyncio.Event()
    say = answers()

    upstream.script = once(gate, say)
    tasks = [asyncio.create_task(ask(gateway, stream=stream)) for stream in (True, True, False)]
    await upstream.called()
    await until(lambda: gateway.assembly.world.following == 3)
    gate.set()
    got = await asyncio.gather(*tasks)
    assert upstream.calls == 1
    assert sorted(each.cache for each in got) == ["COALESCED", "COALESCED", "MISS"]
    assert got[2].json["content"] == message()["content"]


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("send", "status", "kind", "says"),
    [
        ({"body": b"{"}, 400, "invalid_request_error", "invalid_json"),
        ({"body": b'{"model":5}'}, 400, "invalid_request_error", "model"),
        ({"body": b"{}", "kind": "text/plain"}, 415, "invalid_request_error", "content-type"),
        ({"body": b"x" * 5000}, 413, "request_too_large", "4000 bytes"),
        ({"body": b'{"model":"unknown"}'}, 404, "not_found_error", "unknown"),
        ({"cache-control": "only-if-cached"}, 504, "timeout_error", "only-if-cached"),
        ({"x-thinkonce-semantic": "true"}, 400, "invalid_request_error", "semantic"),
        ({"path": "/v1/messages/count_tokens", "body": b"x" * 5000}, 413, "request_too_large", ""),
        ({"path": "/messages/batches", "body": b"x" * 5000}, 413, "request_too_large", ""),
    ],
)
async def test_the_gateways_own_errors_have_the_protocols_shape(
    stage: Stage, send: dict[str, Any], status: int, kind: str, says: str
) -> None:
    pool = known.Upstream(urls=[stage.upstream.url], models=["priced"])
    gateway = await stage.gateway(upstreams={"main": pool}, gateway={"body_limit": 4000})
    send = dict(send)
    headers = {"content-type": send.pop("kind", "application/json")}
    path, body = send.pop("path", "/v1/messages"), send.pop("body", json.dumps(ASK).encode())
    got = await gateway.send("POST", path, body, headers | send)
    assert (got.status, set(got.json)) == (status, {"type", "error"})
    assert got.json["type"] == "error"
    assert got.json["error"]["type"] == kind
    assert says in got.json["error"]["message"]
    assert stage.upstream.calls == 0


async def test_a_head_that_is_too_large_is_told_so_in_the_protocols_shape(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"header_limit": 2000})
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        got = await gateway.post(path, ASK, {"x-padding": "x" * 3000})
        assert (got.status, got.json["error"]["type"]) == (431, "invalid_request_error")
        assert "headers" in got.json["error"]["message"]


async def test_a_gateway_behind_itself_is_told_so_in_the_protocols_shape(stage: Stage) -> None:
    gateway = await stage.gateway()
    await ask(gateway)
    hops = stage.upstream.seen[0].headers["cdn-loop"]
    got = await ask(gateway, {"cdn-loop": hops})
    assert (got.status, got.json["error"]["type"]) == (508, "api_error")


async def test_an_upstream_that_is_not_there_is_told_in_the_protocols_shape(stage: Stage) -> None:
    gateway = await stage.gateway()
    await stage.upstream.stop()
    try:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            got = await gateway.post(path, ASK)
            assert (got.status, got.json["type"]) == (502, "error")
            assert got.json["error"]["type"] == "api_error"
            assert "upstream_unreachable" in got.json["error"]["message"]
    finally:
        await stage.upstream.start()


async def test_a_stream_that_breaks_ends_in_an_error_event(
    gateway: Running, upstream: Upstream
) -> None:
    async def half(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        await out.piece(framed(events(message())[:3]))
        out.cut()

    upstream.script = half
    got = await ask(gateway, stream=True)
    assert got.body.endswith(b"\n\n")
    last = got.body.rstrip().rpartition(b"\n\n")[2].split(b"\n")
    assert last[0] == b"event: error"
    assert json.loads(last[1].removeprefix(b"data: "))["error"]["type"] == "api_error"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_providers_error_passes_unchanged(
    gateway: Running, upstream: Upstream, stream: bool
) -> None:
    wrong = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json(wrong, 429, retry_after="3", request_id="req_1")

    upstream.script = refuse
    for calls in (1, 2):
        got = await ask(gateway, stream=stream)
        assert (got.status, got.json, upstream.calls) == (429, wrong, calls)
        assert (got.headers["retry-after"], got.headers["request-id"]) == ("3", "req_1")


async def test_an_error_inside_a_200_is_not_stored(gateway: Running, upstream: Upstream) -> None:
    wrong = {"type": "error", "error": {"type": "api_error", "message": "no"}}

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json(wrong)

    upstream.script = refuse
    for calls in (1, 2):
        got = await ask(gateway)
        assert (got.json, got.cache, upstream.calls) == (wrong, "MISS", calls)
