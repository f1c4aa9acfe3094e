"""What every answer says of how it was come by, and what callers may say about caching."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, all_ways
from gateway.upstream import Out, Seen, Upstream, chunk, chunks, completion, stream

way = all_ways

ABSENT = {"match": None, "tier": None, "age": None, "ttl": None, "similarity": None}


async def test_a_miss_says_so_in_headers_and_body(gateway: Running) -> None:
    got = await gateway.chat()
    assert got.headers["x-cache"] == "MISS"
    assert got.headers["x-cache-reason"] == "new"
    assert got.headers["cache-status"] == "thinkonce; fwd=miss"
    key = got.headers["x-cache-key"]
    assert len(bytes.fromhex(key)) == 32
    assert "age" not in got.headers
    assert got.json["cache_hit"] is False
    told = got.json["kv_cache"]
    assert told == ABSENT | {
        "status": "miss",
        "key": key,
        "cache_key": None,
        "saved_tokens": None,
        "saved_cost": None,
        "saved_ms": None,
        "stored": True,
        "not_stored": None,
    }


async def test_a_hit_says_how_it_was_found_where_it_lay_and_what_it_saved(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"ttl": 60.0}, clock=stage.moving.clock)
    await gateway.chat(kv_cache={"cache_key": "label"})
    stage.moving.move(10)
    got = await gateway.chat(kv_cache={"cache_key": "label"})
    shown = {
        name: got.headers[name]
        for name in ("x-cache", "x-cache-match", "x-cache-tier", "age", "x-cache-ttl")
    }
    assert shown == {
        "x-cache": "HIT",
        "x-cache-match": "exact",
        "x-cache-tier": "memory",
        "age": "10",
        "x-cache-ttl": "50",
    }
    assert got.headers["cache-status"] == "thinkonce; hit; ttl=50"
    assert "x-cache-reason" not in got.headers
    told = got.json["kv_cache"]
    assert (told["status"], told["cache_key"], told["age"], told["ttl"]) == ("hit", "label", 10, 50)
    assert told["saved_tokens"] == 18
    assert told["saved_cost"] == pytest.approx((11 * 0.15 + 7 * 0.6) / 1e6)
    assert told["saved_ms"] == 0.0, "the clock stood still while the model worked"
    assert got.json["cache_hit"] is True


async def test_the_cost_is_null_where_nobody_knows_the_price(
    gateway: Running, upstream: Upstream
) -> None:
    async def nameless(seen: Seen, out: Out) -> None:
        await out.json(completion(model="unheard-of"))

    upstream.script = nameless
    await gateway.chat(model="unheard-of")
    told = (await gateway.chat(model="unheard-of")).json["kv_cache"]
    assert (told["saved_cost"], told["saved_tokens"]) == (None, 18)


async def test_in_a_stream_the_marks_ride_on_the_chunk_with_the_last_finish_reason(
    gateway: Running,
) -> None:
    live, replayed = [await gateway.chat(stream=True) for _ in range(2)]
    for got, hit in [(live, False), (replayed, True)]:
        *before, last, done = got.events
        assert done == "[DONE]"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["cache_hit"] is hit
        assert not any("cache_hit" in event for event in before)
    assert live.events[-2]["kv_cache"]["stored"] is True
    assert {event["id"] for event in replayed.events[:-1]} != {live.events[0]["id"]}
    assert len({event["id"] for event in replayed.events[:-1]}) == 1


async def test_no_chunk_is_held_back_for_the_marks(gateway: Running, upstream: Upstream) -> None:
    gate = asyncio.Event()
    pieces = [chunk({"content": text}) for text in "abc"]

    async def slow(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        for piece in pieces:
            await out.event(piece)
        await gate.wait()
        await out.event(chunk({}, "stop"))
        await out.event("[DONE]")
        await out.end()

    upstream.script = slow
    body = {"model": "m", "messages": [], "stream": True}
    async with gateway.session.post(gateway.url + CHAT, json=body) as response:
        for text in "abc":
            assert text.encode() in await response.content.readuntil(b"\n\n")
        gate.set()
        assert b'"cache_hit":false' in await response.content.readuntil(b"\n\n")


@pytest.mark.parametrize("streaming", [False, True])
async def test_without_annotation_bodies_are_the_upstreams_bytes(
    stage: Stage, streaming: bool
) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    sent = json.dumps(completion(), indent=1).encode()
    events = [chunk({"content": "a"}), chunk({}, "stop")]

    async def odd(seen: Seen, out: Out) -> None:
        await (stream(out, events) if streaming else out.whole(sent))

    stage.upstream.script = odd
    want = sent
    if streaming:
        texts = [*map(json.dumps, events), "[DONE]"]
        want = "".join(f"data: {text}\n\n" for text in texts).encode()
    first, second = [await gateway.chat(stream=streaming) for _ in range(2)]
    assert (first.cache, second.cache) == ("MISS", "HIT")
    assert first.body == second.body == want, "the id included"


async def test_a_request_id_goes_through_and_a_missing_one_is_made(gateway: Running) -> None:
    sent = await gateway.chat(headers={"x-request-id": "mine-1"})
    made = await gateway.chat()
    assert sent.headers["x-request-id"] == "mine-1"
    assert made.headers["x-request-id"] not in ("", "mine-1")
    assert made.headers["x-request-id"] != (await gateway.chat()).headers["x-request-id"]
    forged = await gateway.chat(headers={"x-request-id": "two words"})
    assert " " not in forged.headers["x-request-id"], "it ends up in log lines"


# -- controls ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({"kv_cache": {"enabled": False}}, {}, ("BYPASS", "disabled")),
        ({"kv_cache": {"refresh": True}}, {}, ("REFRESH", "refresh")),
        ({"cache": {"no-cache": True}}, {}, ("REFRESH", "refresh")),
        ({}, {"cache-control": "no-cache"}, ("REFRESH", "refresh")),
        ({}, {"x-thinkonce-enabled": "false"}, ("BYPASS", "disabled")),
        ({}, {"x-thinkonce-refresh": "true"}, ("REFRESH", "refresh")),
        ({}, {"cache-control": "no-store"}, ("HIT", "")),
        ({"kv_cache": {}}, {}, ("HIT", "")),
    ],
)
async def test_controls_reach_the_cache_from_every_place(
    gateway: Running,
    upstream: Upstream,
    fields: dict[str, Any],
    headers: dict[str, str],
    expected: tuple[str, str],
) -> None:
    await gateway.chat()
    got = await gateway.chat(headers=headers, **fields)
    assert (got.cache, got.reason) == expected
    assert upstream.calls == (1 if got.cache == "HIT" else 2)
    for seen in upstream.seen:
        assert set(seen.json) == {"model", "messages"}, "controls never reach an upstream"
        assert not any(name.startswith("x-thinkonce-en") for name in seen.headers)


async def test_a_bypass_is_marked_in_body_and_stream_and_stores_nothing(gateway: Running) -> None:
    off = {"kv_cache": {"enabled": False}}
    whole = await gateway.chat(**off)
    assert whole.json["kv_cache"]["status"] == "bypass"
    assert whole.json["kv_cache"]["not_stored"] == "disabled"
    assert whole.headers["cache-status"] == "thinkonce; fwd=bypass"
    streamed = await gateway.chat(stream=True, **off)
    assert streamed.events[-2]["kv_cache"]["status"] == "bypass"
    assert streamed.streamed_text == "hello"
    assert (await gateway.chat()).cache == "MISS"


async def test_no_store_may_be_answered_from_the_cache_and_leaves_nothing(gateway: Running) -> None:
    silent = {"cache-control": "no-store"}
    first = await gateway.chat(headers=silent)
    assert first.json["kv_cache"]["not_stored"] == "no-store"
    assert (await gateway.chat()).cache == "MISS", "nothing of it was written"
    assert (await gateway.chat(headers=silent)).cache == "HIT", "reading is not forbidden"


async def test_refresh_stores_the_new_answer(gateway: Running, upstream: Upstream) -> None:
    await gateway.chat()

    async def newer(seen: Seen, out: Out) -> None:
        await out.json(completion("newer"))

    upstream.script = newer
    got = await gateway.chat(kv_cache={"refresh": True})
    assert got.headers["cache-status"] == "thinkonce; fwd=request"
    assert (await gateway.chat()).text == "newer"


async def test_a_ttl_is_honoured_and_a_class_names_one(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    await gateway.chat("a", kv_cache={"ttl": 1})
    await gateway.chat("b", kv_cache={"ttl": "hot"})
    assert (await gateway.chat("a")).headers["x-cache-ttl"] == "1"
    assert (await gateway.chat("b")).headers["x-cache-ttl"] == "300"
    stage.moving.move(1.5)
    expired = await gateway.chat("a")
    assert (expired.cache, expired.reason) == ("MISS", "expired")
    assert (await gateway.chat("b")).cache == "HIT"


async def test_zero_seconds_to_live_is_not_for_ever(gateway: Running) -> None:
    got = await gateway.chat(kv_cache={"ttl": 0})
    assert got.json["kv_cache"]["not_stored"] == "ttl-zero"
    assert (await gateway.chat()).cache == "MISS"


async def test_max_age_refuses_what_is_older(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    await gateway.chat()
    stage.moving.move(30)
    assert (await gateway.chat(headers={"cache-control": "max-age=60"})).cache == "HIT"
    refused = await gateway.chat(headers={"cache-control": "max-age=10"})
    assert (refused.cache, refused.reason) == ("MISS", "too-old")


async def test_only_if_cached_is_504_on_a_miss_and_asks_nobody(
    gateway: Running, upstream: Upstream
) -> None:
    only = {"cache-control": "only-if-cached"}
    got = await gateway.chat(headers=only)
    assert (got.status, got.cache, got.reason, upstream.calls) == (504, "MISS", "new", 0)
    assert got.json["error"]["code"] == "not_cached"
    await gateway.chat()
    assert (await gateway.chat(headers=only)).cache == "HIT"
    off = await gateway.chat(headers=only, kv_cache={"enabled": False})
    assert (off.status, upstream.calls) == (504, 1)


async def test_tags_and_namespaces_part_and_purge(gateway: Running) -> None:
    await gateway.chat("a", kv_cache={"tags": ["faq", "v1"]})
    await gateway.chat("a", kv_cache={"namespace": "other"})
    await gateway.chat("b", headers={"x-thinkonce-tags": "faq,v2"})
    assert (await gateway.chat("a")).cache == "HIT", "tags are no part of the key"
    assert (await gateway.post("/cache/purge", {"tags": ["faq"]})).json == {"purged": 2}
    gone = await gateway.chat("a")
    assert (gone.cache, gone.reason) == ("MISS", "purged")
    assert (await gateway.chat("a", kv_cache={"namespace": "other"})).cache == "HIT"
    assert (await gateway.post("/cache/purge", {"namespace": "other"})).json == {"purged": 1}


# -- what is not stored ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(finish="length"), "length"),
        (completion(finish="content_filter"), "content-filter"),
        (completion(finish="unheard-of"), "incomplete"),
        (completion(""), "empty"),
        ({"error": {"message": "in a 200"}}, "error"),
    ],
)
async def test_what_is_not_complete_and_good_is_passed_on_and_not_stored(
    gateway: Running, upstream: Upstream, answer: dict[str, Any], reason: str
) -> None:
    async def bad(seen: Seen, out: Out) -> None:
        await out.json(answer)

    upstream.script = bad
    first, second = await gateway.chat(), await gateway.chat()
    assert (first.status, second.cache, upstream.calls) == (200, "MISS", 2)
    assert first.headers["x-cache-not-stored"] == reason, "also where bodies are not touched"
    if reason != "error":
        assert first.json["kv_cache"] | {"key": ""} == second.json["kv_cache"] | {"key": ""}
        assert first.json["kv_cache"]["not_stored"] == reason
    else:
        assert first.json == answer, "not touched"


async def test_the_log_says_at_its_end_why_an_answer_was_not_stored(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True, "annotate_body": False})

    async def cut_off(seen: Seen, reply: Out) -> None:
        if seen.json.get("stream"):
            await stream(reply, chunks("a", finish="length"))
        else:
            await reply.json(completion(finish="length"))

    usual, stage.upstream.script = stage.upstream.script, cut_off
    whole = await gateway.chat()
    streamed = await gateway.chat("other", stream=True)
    assert whole.headers["x-cache-not-stored"] == "length"
    assert "x-cache-not-stored" not in streamed.headers, "it went out before anybody knew"
    stage.upstream.script = usual
    assert "x-cache-not-stored" not in (await gateway.chat("good")).headers
    await gateway.chat("good")
    gateway.assembly.access_log.flush()
    lines = [line for line in capsys.readouterr().err.splitlines() if CHAT in line]
    fields = [line.split()[6:] for line in lines]
    assert [(reason, rest) for reason, _, *rest in fields] == [
        ("new", ["not-stored=length"]),
        ("new", ["not-stored=length"]),
        ("new", []),
        ("-", []),
    ]


async def test_text_that_should_be_json_and_is_not_is_not_stored(gateway: Running) -> None:
    wanted = {"response_format": {"type": "json_object"}}
    got = await gateway.chat(**wanted)
    assert got.json["kv_cache"]["not_stored"] == "invalid-json"
    assert (await gateway.chat(**wanted)).cache == "MISS"


async def test_a_stream_without_its_end_mark_is_passed_on_and_not_stored(
    gateway: Running, upstream: Upstream
) -> None:
    async def endless(seen: Seen, out: Out) -> None:
        await stream(out, chunks("a"), done=False)

    upstream.script = endless
    assert (await gateway.chat(stream=True)).streamed_text == "a"
    assert (await gateway.chat(stream=True)).cache == "MISS"


async def test_an_answer_beyond_the_limit_is_passed_on_and_not_stored(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"max_entry_bytes": 4096})
    long = "x" * 5000

    async def large(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await stream(out, chunks(*(["y" * 100] * 100)))
        else:
            await out.json(completion(long))

    stage.upstream.script = large
    whole = await gateway.chat()
    assert (whole.text, whole.json["kv_cache"]["not_stored"]) == (long, "too-large")
    streamed = await gateway.chat(stream=True)
    assert (streamed.cache, len(streamed.streamed_text)) == ("MISS", 10_000)
    assert (await gateway.chat(stream=True)).cache == "MISS"


async def test_nothing_warmer_than_max_temperature_is_stored(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"max_temperature": 0.5})
    assert (await gateway.chat()).json["kv_cache"]["not_stored"] == "temperature", "omitted is 1"
    await gateway.chat(temperature=0)
    assert (await gateway.chat(temperature=0)).cache == "HIT"


async def test_a_picture_by_url_is_kept_no_longer_than_dynamic_or_not_at_all(stage: Stage) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    asked = {"messages": [{"role": "user", "content": [part]}]}
    keeping = await stage.gateway(cache={"ttl": "static"})
    await keeping.chat(**asked)
    assert 3500 < int((await keeping.chat(**asked)).headers["x-cache-ttl"]) <= 3600
    passing = await stage.gateway(gateway={"remote_media": "bypass"})
    assert (await passing.chat(**asked)).reason == "stateful"
