"""Strict mode: neither headers nor bodies nor the clock tell a hit from a miss."""

from __future__ import annotations

import asyncio
import hashlib
import json
from itertools import pairwise
from time import perf_counter
from typing import Any

import pytest

from gateway.anthropic_upstream import answers
from gateway.conftest import CHAT, Got, Running, Stage, all_ways, until
from gateway.upstream import Out, Seen, answer, chunks, completion
from gateway.wire import asked, line
from thinkonce import settings as known
from thinkonce.engine import fetch
from thinkonce.gateway.anew import id_like
from thinkonce.gateway.strict import StrictEndpoint

way = all_ways

SLOW = 5.0  # seconds that the model takes on the test's clock
FIRST = 1.0  # of them until its stream begins
TELLING = ("x-cache", "age", "cache-status", "x-thinkonce-fallback")


class Slept:
    """Stands in for `asyncio.sleep`: notes when, after the request came, it would have woken."""

    def __init__(self) -> None:
        self.until: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.until.append(seconds)


async def strictly(stage: Stage, **sections: Any) -> tuple[Running, Slept]:
    sections.setdefault("gateway", {"strict": True})
    gateway = await stage.gateway(clock=stage.moving.clock, **sections)
    slept, strict = Slept(), gateway.assembly.gateway.strict
    assert strict is not None
    for endpoint in strict._endpoints.values():
        assert isinstance(endpoint, StrictEndpoint)
        object.__setattr__(endpoint._teller, "sleep", slept)
    return gateway, slept


@pytest.fixture(autouse=True)
def slow_model(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers in the shape asked for, and takes its time."""
    looks: list[float] = []

    def monotonic() -> float:
        looks.append(stage.moving.monotonic)
        return looks[-1]

    monkeypatch.setattr(fetch, "monotonic", monotonic)

    async def answer(seen: Seen, out: Out) -> None:
        looks.clear()
        stage.moving.move(FIRST)
        rest = {"openai_processing_ms": "4999", "x_ratelimit_left": "7"}
        if seen.json.get("stream"):
            await out.begin_stream(**rest)
            for event in chunks("a", "b", "c"):
                await out.event(event)
            await until(lambda: len(looks) > 0)  # that it begins was seen
            stage.moving.move(SLOW - FIRST)
            await out.event("[DONE]")
            await out.end()
        else:
            stage.moving.move(SLOW - FIRST)
            await out.json(completion(id="chatcmpl-AbC123xyz"), **rest)

    stage.upstream.script = answer


def told(got: Got) -> list[tuple[str, str]]:
    """What a client sees of an answer besides its content: headers, in their order."""
    changing = ("x-request-id", "date")
    return [(name, "" if name in changing else value) for name, value in got.headers.items()]


def no_marks(got: Got) -> None:
    assert not [name for name in got.headers if name.startswith(TELLING)], got.headers
    assert b"cache_hit" not in got.body
    assert b"kv_cache" not in got.body


async def test_a_hit_looks_like_a_miss_and_takes_as_long(stage: Stage) -> None:
    gateway, slept = await strictly(stage)
    miss, hit = await gateway.chat(), await gateway.chat()
    assert len(stage.upstream.seen) == 1, "the second was a hit"
    assert told(miss) == told(hit)
    no_marks(miss), no_marks(hit)
    assert slept.until == [pytest.approx(SLOW, abs=0.9)]
    changing = ("id", "created")
    same = [{k: v for k, v in got.json.items() if k not in changing} for got in (miss, hit)]
    assert same[0] == same[1]
    assert len({miss.json["id"], hit.json["id"], "chatcmpl-AbC123xyz"}) == 3
    assert len(hit.json["id"]) == len(miss.json["id"])
    assert hit.json["id"].startswith("chatcmpl-")
    assert hit.json["created"] == int(stage.moving.wall)
    assert len(hit.body) == len(miss.body)


async def test_no_two_hits_have_one_id(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    ids = {(await gateway.chat()).json["id"] for _ in range(5)}
    assert len(ids) == 5


async def test_a_stored_stream_comes_at_its_recorded_pace(stage: Stage) -> None:
    gateway, slept = await strictly(stage)
    miss, hit = await gateway.chat(stream=True), await gateway.chat(stream=True)
    assert len(stage.upstream.seen) == 1
    assert told(miss) == told(hit)
    no_marks(miss), no_marks(hit)
    assert miss.streamed_text == hit.streamed_text == "abc"
    assert len(miss.events) == len(hit.events)
    woke = slept.until
    assert woke[0] == pytest.approx(FIRST, abs=0.9), "its head waits for the first byte"
    assert woke[-1] == pytest.approx(SLOW, abs=0.9)
    gaps = [b - a for a, b in pairwise(woke[1:])]
    assert gaps == pytest.approx([(SLOW - FIRST) / len(gaps)] * len(gaps), abs=0.3)


async def test_an_answer_of_the_other_shape_is_asked_for_anew(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    await gateway.chat(stream=True)
    await gateway.chat()
    assert len(stage.upstream.seen) == 2, "made from a stream it would be formatted otherwise"


async def test_a_stored_answer_from_the_store_waits_too(stage: Stage, tmp_path: Any) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'a.db'}", "secret": "s" * 32}
    first, _ = await strictly(stage, store=store)
    await first.chat()
    assert first.assembly.shelf.flush(10)
    second, slept = await strictly(stage, store=store)
    no_marks(await second.chat())
    assert len(stage.upstream.seen) == 1
    assert slept.until == [pytest.approx(SLOW, abs=0.9)]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"kv_cache": {"enabled": False}},
    ],
    ids=["where the cache is asked", "where it is not"],
)
async def test_nobody_may_ask_whether_something_is_stored(
    stage: Stage, asked: dict[str, Any]
) -> None:
    gateway, slept = await strictly(stage)
    asked = {"headers": {"cache-control": "only-if-cached"}} | asked
    unknown = await gateway.chat(**asked)
    await gateway.chat()
    stored = await gateway.chat(**asked)
    assert (unknown.status, unknown.body) == (stored.status, stored.body)
    assert unknown.status == 403
    assert unknown.json["error"]["code"] == "strict"
    assert told(unknown) == told(stored)
    assert not slept.until


async def test_a_client_is_served_strictly_where_its_row_says_so(stage: Stage) -> None:
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("tk-s", "tk-o")}
    clients = {
        "strict": known.Client(key_sha256=digests["tk-s"], group="team", strict=True),
        "open": known.Client(key_sha256=digests["tk-o"], group="team"),
    }
    gateway, slept = await strictly(stage, gateway={}, clients=clients)
    as_open = {"authorization": "Bearer tk-o"}
    as_strict = {"authorization": "Bearer tk-s"}
    assert (await gateway.chat(headers=as_open)).cache == "MISS"
    for _ in range(3):  # a head that came before is what the fast lane answers by
        got = await gateway.chat(headers=as_strict)
        no_marks(got)
    assert len(slept.until) == 3
    for _ in range(3):
        assert (await gateway.chat(headers=as_open)).cache == "HIT"
    assert len(slept.until) == 3
    assert len(stage.upstream.seen) == 1


async def test_what_cannot_be_hidden_is_not_cached(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    for path in ("/v1/embeddings", "/v1/responses"):
        seen = len(stage.upstream.seen)
        for _ in range(2):
            got = await gateway.post(path, {"model": "m", "input": "x", "kv_cache": {"ttl": 5}})
            assert got.status == 200
            no_marks(got)
        assert len(stage.upstream.seen) == seen + 2
        assert "kv_cache" not in stage.upstream.seen[-1].json


async def test_errors_and_what_goes_around_the_cache_have_no_marks(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    no_marks(await gateway.chat(kv_cache={"enabled": False}))
    no_marks(await gateway.post(CHAT, {"messages": 3}))

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "slow down"}}, 429, retry_after="7")

    stage.upstream.script = refuse
    got = await gateway.chat("anew")
    no_marks(got)
    assert (got.status, got.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
async def test_other_endpoints_are_as_strict(stage: Stage, path: str, stream: bool) -> None:
    stage.upstream.script = answers() if path.endswith("messages") else answer
    gateway, _ = await strictly(stage)
    said = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "prompt": "hi"}
    body = {"model": "m", "stream": stream} | said
    miss, hit = [await gateway.post(path, body) for _ in range(2)]
    assert len(stage.upstream.seen) == 1
    no_marks(miss), no_marks(hit)
    assert told(miss) == told(hit)
    assert len(miss.body) == len(hit.body)
    assert miss.body != hit.body, "an id of its own"


async def test_a_follower_of_a_call_gets_an_id_of_its_own(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    first, second = await asyncio.gather(gateway.chat(), gateway.chat())
    assert len(stage.upstream.seen) == 1
    assert first.json["id"] != second.json["id"]
    no_marks(first), no_marks(second)
    assert told(first) == told(second)


async def test_numbers_are_for_administrators_and_explain_still_works(stage: Stage) -> None:
    token = "t" * 16
    gateway, _ = await strictly(stage, admin={"token": token})
    await gateway.chat()
    assert (await gateway.get("/metrics")).status == 403
    key = {"x-thinkonce-admin-token": token}
    assert (await gateway.get("/metrics", key)).status == 200
    rows = (await gateway.get("/cache/entries?tenant=all", key)).json
    assert rows


async def test_who_may_not_see_the_numbers_is_told_so(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    got = await gateway.get("/metrics", {"x-forwarded-for": "192.0.2.1"})
    assert got.status == 403
    assert got.json["error"]["message"].endswith("may use /metrics")


async def test_a_worker_takes_its_part_of_memory_here_too(stage: Stage) -> None:
    gateway, _ = await strictly(stage, gateway={"strict": True, "workers": 4})
    strict, plain = gateway.assembly.gateway.strict, gateway.assembly.gateway.cached
    assert strict is not None
    path = "/v1/chat/completions"
    own = strict._endpoints[path]._teller.parts.max_bytes
    assert own == plain[path]._teller.parts.max_bytes == 8 * 2**20  # a quarter of an eighth


def test_ids_keep_their_form() -> None:
    for source in ("chatcmpl-0a1f", "msg_0123456789", "cmpl-ABCxyz09", "plain", "", "a-b_c9"):
        made = {id_like(source) for _ in range(5)}
        (length,) = {len(each) for each in made}
        assert length == len(source)
        at = max(source.rfind("-"), source.rfind("_")) + 1
        assert {each[:at] for each in made} == {source[:at]}
    assert id_like("msg_01234567890123456789")[4:].isdigit()


ODD_ID = "01234567-89ab-4cde-8f01-234567890123"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_odd_members_and_events_come_alike_with_a_hit_and_a_miss(
    stage: Stage, stream: bool
) -> None:
    odd = {"id": ODD_ID, "created": 9, "cache_hit": False, "kv_cache": {"status": "miss"}}

    async def script(seen: Seen, out: Out) -> None:
        if not stream:
            await out.json(completion(**odd))
            return
        await out.begin_stream()
        for event in chunks("a", "b"):
            await out.event(event | odd)
        await out.event("[DONE]")
        await out.event("trailing")
        await out.end()

    stage.upstream.script = script
    gateway, _ = await strictly(stage)
    miss, hit = await gateway.chat(stream=stream), await gateway.chat(stream=stream)
    assert len(stage.upstream.seen) == 1
    no_marks(miss), no_marks(hit)
    seen = []
    for got in (miss, hit):
        assert b"trailing" not in got.body
        first = got.events[0] if stream else got.json
        assert first["created"] == int(stage.moving.wall)
        assert first["id"][:8] != ODD_ID[:8]
        seen.append(got.body.replace(first["id"].encode(), b""))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("large", [(1,), (1, 2), (0, 2)], ids=["one", "two", "first"])
async def test_an_event_too_large_to_be_kept_reaches_the_client_whole(
    stage: Stage, large: tuple[int, ...]
) -> None:
    texts = ["z" * 200_000 if number in large else f"text {number}" for number in range(4)]

    async def script(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        sent = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks(*texts))
        sent += b"data: [DONE]\n\n"
        for at in range(0, len(sent), 30_011):
            await out.piece(sent[at : at + 30_011])
            await asyncio.sleep(0)
        await out.end()

    stage.upstream.script = script
    gateway, _ = await strictly(stage, cache={"max_entry_bytes": 65_536})
    got = await gateway.chat(stream=True)
    assert got.streamed_text == "".join(texts)
    assert got.events[-1] == "[DONE]"


@pytest.mark.parametrize("sites", [[], ["https://a.example"]], ids=["closed", "to pages"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_an_upstream_says_its_answer_varies_by_is_not_shown(
    stage: Stage, stream: bool, sites: list[str]
) -> None:
    async def script(seen: Seen, out: Out) -> None:
        if stream:
            await out.begin_stream(vary="Accept-Encoding")
            for event in (*chunks("a"), "[DONE]"):
                await out.event(event)
            await out.end()
        else:
            await out.json(completion(), vary="Accept-Encoding")

    stage.upstream.script = script
    gateway, _ = await strictly(stage, gateway={"strict": True, "cors_origins": sites})
    page = {"origin": "https://a.example"}
    miss, hit = [await gateway.chat(stream=stream, headers=page) for _ in range(2)]
    assert len(stage.upstream.seen) == 1
    assert told(miss) == told(hit)
    assert miss.headers.get("vary") == hit.headers.get("vary") == ("Origin" if sites else None)


async def test_a_hit_waits_from_the_last_byte_of_its_request(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds the body back would else have a hit at once, and a miss after the model's time."""
    gateway, slept = await strictly(stage)
    await gateway.chat()
    held_back = 0.0
    clock = "thinkonce.gateway.strict.perf_counter"
    monkeypatch.setattr(clock, lambda: perf_counter() + held_back)
    head, _, body = asked(more="expect: 100-continue").partition(b"\r\n\r\n")
    async with line(gateway) as client:
        await client.send(head + b"\r\n\r\n")
        await client.reader.readuntil(b"100 Continue\r\n\r\n")
        held_back = 60.0
        await client.send(body)
        await client.answer()
    assert len(stage.upstream.seen) == 1
    assert slept.until == [pytest.approx(SLOW, abs=0.9)]


UNKEYED: dict[str, tuple[dict[str, Any], bytes, dict[str, str]]] = {
    "white space": ({}, b" " * 100_000, {}),
    "stream_options without stream": ({"stream_options": {"include_usage": True}}, b"", {}),
    "its content type": ({}, b"", {"content-type": "application/odd+json"}),
    "hops": ({}, b"", {"cdn-loop": "x" * 2000}),
}


@pytest.mark.parametrize("how", UNKEYED)
async def test_what_an_upstream_refuses_is_answered_alike_whether_stored_or_not(
    stage: Stage, how: str
) -> None:
    async def picky(seen: Seen, out: Out) -> None:
        odd = "stream_options" in seen.json and not seen.json.get("stream")
        odd = odd or len(seen.body) > 50_000 or len(seen.headers.get("cdn-loop", "")) > 2000
        odd = odd or seen.headers["content-type"] != "application/json"
        await out.json({"error": {"message": "no"}} if odd else completion(), 400 if odd else 200)

    stage.upstream.script = picky
    gateway, _ = await strictly(stage)
    more, white, headers = UNKEYED[how]
    headers = {"content-type": "application/json"} | headers

    async def probe(content: str) -> Got:
        body = {"model": "m", "messages": [{"role": "user", "content": content}]} | more
        return await gateway.send("POST", CHAT, json.dumps(body).encode() + white, headers)

    plain = {"model": "m", "messages": [{"role": "user", "content": "stored"}]}
    assert (await gateway.post(CHAT, plain)).status == 200
    stored, unknown = await probe("stored"), await probe("unknown")
    assert stored.status == unknown.status
    assert told(stored) == told(unknown)


async def test_a_body_goes_upstream_as_the_key_has_it(stage: Stage) -> None:
    gateway, _ = await strictly(stage)
    raw = b"""{ "temperature": 1.0, "kv_cache": {"ttl": 9}, "model": "m", "stream": true,
        "seed": 1e2,
        "stream_options": {"include_usage": true, "x": [0.5, null]}, "messages": [] }"""
    await gateway.send("POST", CHAT, raw, {"content-type": "application/json"})
    (seen,) = stage.upstream.seen
    assert seen.body == (
        b'{"temperature":1,"model":"m","seed":100,'
        b'"stream_options":{"x":[0.5,null],"include_usage":true},"messages":[],"stream":true}'
    )


async def test_the_id_of_a_streamed_message_is_made_anew_with_a_miss_too(stage: Stage) -> None:
    stage.upstream.script = answers(id="msg_01XFDUDYJgAACzvnptvVoYEL")
    gateway, _ = await strictly(stage)
    body = {"model": "m", "stream": True, "messages": [], "max_tokens": 9}
    ids = []
    for _ in range(2):
        got = await gateway.post("/v1/messages", body)
        ids.append(got.events[0]["message"]["id"])
    assert len(stage.upstream.seen) == 1
    assert len({*ids, "msg_01XFDUDYJgAACzvnptvVoYEL"}) == 3
    assert [len(each) for each in ids] == [28, 28]
