"""When an upstream fails, or a tier, or the cache itself."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, until
from gateway.upstream import Out, Seen, Upstream, chunks, completion, endless, once, saying
from thinkonce.entry import Entry
from thinkonce.settings import Upstream as Pool
from thinkonce.tiers.tier import Key


async def silent(seen: Seen, out: Out) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_upstreams_error_passes_unchanged_and_is_never_stored(
    gateway: Running, upstream: Upstream, status: int, streaming: bool
) -> None:
    body = b'{"error":  {"message": "as it came", "odd": 1}}'

    async def refuse(seen: Seen, out: Out) -> None:
        await out.whole(body, status, retry_after="9", x_ratelimit_left="0", connection="x-hop")

    upstream.script = refuse
    for calls in (1, 2):
        got = await gateway.chat(stream=streaming)
        assert (got.status, got.body, upstream.calls) == (status, body, calls)
        assert (got.headers["retry-after"], got.headers["x-ratelimit-left"]) == ("9", "0")
        assert (got.cache, got.reason) == ("MISS", "error")


async def test_a_redirect_is_passed_on_and_not_followed(
    gateway: Running, upstream: Upstream
) -> None:
    async def move(seen: Seen, out: Out) -> None:
        await out.whole(b"", 307, location="http://elsewhere.invalid/")

    upstream.script = move
    got = await gateway.chat()
    assert (got.status, got.headers["location"]) == (307, "http://elsewhere.invalid/")
    assert upstream.calls == 1, "a credential must not travel to another host"


async def test_only_listed_headers_go_upstream(gateway: Running, upstream: Upstream) -> None:
    sent = {
        "authorization": "Bearer k",
        "cookie": "session=1",
        "x-forwarded-for": "10.0.0.1",
        "x-custom": "1",
        "openai-beta": "b",
        "te": "trailers",
    }
    await gateway.chat(headers=sent)
    got = upstream.seen[0].headers
    assert (got["authorization"], got["openai-beta"]) == ("Bearer k", "b")
    assert not {"cookie", "x-forwarded-for", "x-custom", "te"} & set(got)
    assert got["accept-encoding"] == "identity"


async def test_a_dead_server_is_retried_and_the_next_of_the_pool_answers(stage: Stage) -> None:
    dead = Upstream()
    await dead.start()
    url = dead.url
    await dead.stop()
    pool = Pool(urls=[url, stage.upstream.url])
    gateway = await stage.gateway(upstreams={"main": pool}, gateway={"retries": 1})
    for content in "abcd":
        assert (await gateway.chat(content)).status == 200
    assert stage.upstream.calls == 4


async def test_a_connection_that_breaks_before_the_first_byte_is_tried_again(
    gateway: Running, upstream: Upstream
) -> None:
    async def once(seen: Seen, out: Out) -> None:
        if upstream.calls == 1:
            out.cut()
        else:
            await out.json(completion())

    upstream.script = once
    assert (await gateway.chat()).status == 200
    assert upstream.calls == 2


async def test_nobody_there_is_a_502_that_names_the_upstream(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.upstream.stop()
    gateway = await stage.gateway(gateway={"retries": 0})
    got = await gateway.chat()
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_unreachable")
    assert "'main'" in got.json["error"]["message"]
    assert (got.cache, got.reason) == ("MISS", "error")
    assert "cannot be reached: Cannot connect to host" in caplog.text
    assert "ssl" not in caplog.text, "it was asked in plain HTTP"
    await stage.upstream.start()


async def test_a_slow_upstream_is_a_504_and_its_connection_is_closed(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"first_byte_timeout": 0.5})
    stage.upstream.script = silent
    got = await gateway.chat()
    assert (got.status, got.json["error"]["code"]) == (504, "upstream_timeout")
    await stage.upstream.left()
    assert stage.upstream.calls == 1, "the model may be working: no second call"


async def test_a_stream_that_pauses_too_long_ends_with_an_error_event(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"read_timeout": 0.05})

    stage.upstream.script = endless(chunks("a")[1])
    got = await gateway.chat(stream=True)
    assert got.events[0]["choices"][0]["delta"] == {"content": "a"}
    assert got.events[-1]["error"]["code"] == "upstream_timeout"
    await stage.upstream.left()


@pytest.mark.parametrize(
    "garbage",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no http", "bad length", "half a body", "bad chunk"],
)
async def test_garbage_from_an_upstream_is_a_502(
    gateway: Running, upstream: Upstream, garbage: bytes
) -> None:
    async def talk(seen: Seen, out: Out) -> None:
        await out.raw(garbage)
        out.writer.close()

    upstream.script = talk
    got = await gateway.chat()
    assert got.status == 502
    assert got.json["error"]["code"] in ("upstream_broken", "upstream_unreachable")
    assert len(gateway.assembly.shelf.memory) == 0


async def test_an_answer_that_is_no_json_passes_as_it_came(
    gateway: Running, upstream: Upstream
) -> None:
    async def page(seen: Seen, out: Out) -> None:
        await out.whole(b"<html>busy</html>", kind="text/html")

    upstream.script = page
    for streaming in (False, True):
        got = await gateway.chat(stream=streaming)
        assert (got.body, got.headers["content-type"]) == (b"<html>busy</html>", "text/html")
    assert upstream.calls == 2


async def test_a_whole_answer_to_a_request_for_a_stream_is_streamed_and_stored(
    gateway: Running, upstream: Upstream
) -> None:
    async def whole(seen: Seen, out: Out) -> None:
        await out.json(completion("one piece"))

    upstream.script = whole
    got = await gateway.chat(stream=True)
    assert (got.streamed_text, got.events[-1]) == ("one piece", "[DONE]")
    assert (await gateway.chat()).cache == "HIT"


async def test_a_compressed_answer_is_read_though_none_was_asked_for(
    gateway: Running, upstream: Upstream
) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(json.dumps(completion("packed")).encode()) + packer.flush()

    async def pack(seen: Seen, out: Out) -> None:
        await out.whole(packed, content_encoding="gzip")

    upstream.script = pack
    got = await gateway.chat()
    assert (got.text, "content-encoding" in got.headers) == ("packed", False)
    assert (await gateway.chat()).cache == "HIT"


async def test_a_stale_answer_stands_in_where_that_is_allowed(stage: Stage) -> None:
    gateway = await stage.gateway(cache={"ttl": 60.0}, clock=stage.moving.clock)
    allowed = {"cache-control": "stale-if-error=600"}
    await gateway.chat(headers=allowed)
    stage.moving.move(100)

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "down"}}, 503)

    stage.upstream.script = refuse
    got = await gateway.chat(headers=allowed)
    assert (got.status, got.cache, got.reason) == (200, "STALE", "expired")
    assert got.headers["cache-status"] == "thinkonce; hit; ttl=-40"
    assert got.json["cache_hit"] is True
    stage.moving.move(1000)
    assert (await gateway.chat(headers=allowed)).status == 503, "too stale by now"


async def test_a_purge_during_a_slow_miss_is_not_undone_by_its_answer(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    upstream.script = once(gate, saying(completion()))
    asking = asyncio.create_task(gateway.chat())
    await upstream.called()
    await gateway.post("/cache/purge", {"all": True})
    gate.set()
    assert (await asking).status == 200
    again = await gateway.chat()
    assert (again.cache, upstream.calls) == ("MISS", 2)


async def test_who_asks_after_a_purge_does_not_join_a_call_from_before_it(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        number = upstream.calls
        if not seen.json["stream"]:
            await gate.wait()
            await out.json(completion(str(number)))
            return
        await out.begin_stream()
        for event in chunks(str(number)):
            await out.event(event)
        await gate.wait()
        await out.event("[DONE]")
        await out.end()

    upstream.script = slow
    for shapes in [(False, False), (True, True), (True, False), (False, True)]:
        question, calls = str(shapes), upstream.calls
        before = asyncio.create_task(gateway.chat(question, stream=shapes[0]))
        await upstream.called(calls + 1)
        await gateway.post("/cache/purge", {"all": True})
        after = asyncio.create_task(gateway.chat(question, stream=shapes[1]))
        await until(lambda: gateway.assembly.metrics.inflight == 2)
        gate.set()
        got = await before, await after
        texts = [
            one.streamed_text if flow else one.text for one, flow in zip(got, shapes, strict=True)
        ]
        assert texts == [str(calls + 1), str(calls + 2)], shapes
        gate.clear()


@pytest.mark.parametrize("streaming", [True, False])
async def test_all_who_ask_after_a_purge_share_one_new_call(
    gateway: Running, upstream: Upstream, streaming: bool
) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        number = upstream.calls
        if not streaming:
            await gate.wait()
            await out.json(completion(str(number)))
            return
        await out.begin_stream()
        first, *rest = chunks(str(number))
        await out.event(first)
        await gate.wait()
        for event in [*rest, "[DONE]"]:
            await out.event(event)
        await out.end()

    upstream.script = slow
    before = asyncio.create_task(gateway.chat(stream=streaming))
    await upstream.called()
    await gateway.post("/cache/purge", {"all": True})
    after = [asyncio.create_task(gateway.chat(stream=streaming)) for _ in range(5)]
    await until(lambda: gateway.assembly.world.following == 6)
    gate.set()
    got = await asyncio.gather(before, *after)
    assert [one.streamed_text if streaming else one.text for one in got] == ["1", *["2"] * 5]
    assert sorted(one.cache for one in got[1:]) == ["COALESCED"] * 4 + ["MISS"]
    assert upstream.calls == 2


class Breaking:
    """A persistent tier whose every call fails."""

    name, persistent = "broken", True

    def get(self, key: Key) -> Entry | None:
        raise OSError("disk gone")

    def put(self, key: Key, entry: Entry) -> None:
        raise OSError("disk gone")


async def test_a_broken_tier_costs_a_miss_and_is_counted(stage: Stage) -> None:
    gateway = await stage.gateway()
    setting = gateway.assembly.world.setting
    object.__setattr__(setting, "tiers", [*setting.tiers, Breaking()])
    first = await gateway.chat()
    assert (first.status, first.cache, first.reason) == (200, "MISS", "tier-error")
    assert (await gateway.chat()).cache == "HIT", "memory still remembers"
    assert gateway.assembly.metrics.counted.tier_errors["broken"] == 2  # a look and a put


@pytest.mark.parametrize("what", ["probe", "answer", "read"])
async def test_a_cache_that_fails_in_itself_is_passed_by(
    stage: Stage, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await stage.gateway()
    await gateway.chat()
    endpoint = gateway.assembly.gateway.cached["/v1/chat/completions"]
    broken: dict[str, Callable[[], Any]] = {
        "probe": lambda: object.__setattr__(endpoint._shelf, "memory", None),
        "answer": lambda: setattr(gateway.assembly.world, "carry_out", None),
        "read": lambda: setattr(endpoint.reader, "_keyer", None),
    }
    broken[what]()
    # The probe fails on what it remembers, the rest on what it does not.
    got = await gateway.chat("hi" if what == "probe" else "another")
    assert (got.status, got.text, got.cache) == (200, "hello", "BYPASS")
    assert await gateway.metric("thinkonce_cache_failures_total") == 1
    assert "the cache failed" in caplog.text


@pytest.mark.parametrize("what", ["answer", "read"])
async def test_a_packed_request_with_controls_goes_upstream_as_plain_json_where_the_cache_fails(
    gateway: Running, upstream: Upstream, what: str
) -> None:
    endpoint = gateway.assembly.gateway.cached["/v1/chat/completions"]
    if what == "read":
        endpoint.reader._keyer = None  # type: ignore[assignment]
    else:
        gateway.assembly.world.carry_out = None  # type: ignore[assignment, method-assign]
    asked = {"model": "priced", "messages": [{"role": "user", "content": "hi"}]}
    body = gzip.compress(json.dumps({"kv_cache": {"ttl": 60}, **asked}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    got = await gateway.send("POST", CHAT, body, headers)
    assert (got.status, got.text, got.cache) == (200, "hello", "BYPASS")
    assert upstream.seen[0].json == asked
    assert "content-encoding" not in upstream.seen[0].headers


async def test_a_client_that_leaves_leaves_nothing_running(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.script = silent
    asking = [asyncio.create_task(gateway.chat(str(n), stream=n % 2 == 0)) for n in range(6)]
    await upstream.called(6)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await upstream.left(6)
    await until(lambda: gateway.assembly.metrics.inflight == 0)
    assert len(gateway.assembly.shelf.flights) == 0
