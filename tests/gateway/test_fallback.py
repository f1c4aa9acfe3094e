"""Pools that answer where another cannot: in order, under their own keys, and marked."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, settings_of, until
from gateway.test_servers import cut, garbage, saying, silent
from gateway.upstream import Out, Script, Seen, Upstream, chunks, completion, stream
from thinkonce.errors import ConfigError
from thinkonce.settings import Settings
from thinkonce.settings import Upstream as Pool
from thinkonce.settings.check import check
from thinkonce.upstream.pools import Pools

MARK = "x-thinkonce-fallback"


def named(text: str) -> Script:
    async def script(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await stream(out, chunks(text))
        else:
            await out.json(completion(text))

    return script


class Chain:
    """A gateway whose pool `main` falls back to `spare` and then to `last`."""

    def __init__(self, gateway: Running, main: Upstream, spare: Upstream, last: Upstream) -> None:
        self.gateway, self.main, self.spare, self.last = gateway, main, spare, last

    @property
    def calls(self) -> tuple[int, int, int]:
        return self.main.calls, self.spare.calls, self.last.calls


async def chain(
    stage: Stage, spare: dict[str, Any] | None = None, patience: float = 60.0, **main: Any
) -> Chain:
    spare_one, last = await stage.another_upstream(), await stage.another_upstream()
    stage.upstream.script, spare_one.script, last.script = map(named, ("main", "spare", "last"))
    pools = {
        "main": Pool(urls=[stage.upstream.url], fallback=["spare", "last"], **main),
        "spare": Pool(urls=[spare_one.url], **(spare or {})),
        "last": Pool(urls=[last.url]),
    }
    gateway = await stage.gateway(
        upstreams=pools,
        gateway={"first_byte_timeout": patience, "retries": 0},
        cache={"ttl": 60.0},
        clock=stage.moving.clock,
    )
    return Chain(gateway, stage.upstream, spare_one, last)


def said(got: Any, streaming: bool) -> str:
    return str(got.streamed_text if streaming else got.text)


@pytest.mark.parametrize(
    "script",
    [saying(429), saying(500), saying(529), cut, garbage, silent],
    ids=["429", "500", "529", "cut off", "garbage", "silence"],
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_next_pool_answers_under_its_own_key_and_says_so(
    stage: Stage, script: Script, streaming: bool
) -> None:
    one = await chain(stage, patience=0.5 if script is silent else 60.0)
    own, one.main.script = one.main.script, script
    for cache in ("MISS", "HIT"):
        got = await one.gateway.chat(stream=streaming)
        assert (got.status, said(got, streaming), got.cache) == (200, "spare", cache)
        assert got.headers[MARK] == "spare"
    assert one.calls == (2, 1, 0), "the pool that was asked for is asked first, always"
    one.main.script = own
    got = await one.gateway.chat(stream=streaming)
    assert (said(got, streaming), got.cache) == ("main", "MISS"), "its entry was never poisoned"
    assert MARK not in got.headers
    got = await one.gateway.chat(stream=streaming)
    assert (said(got, streaming), got.cache) == ("main", "HIT")


async def test_an_entry_says_which_pool_and_model_gave_it(stage: Stage) -> None:
    one = await chain(stage, {"fallback_model": "house-model"})
    one.main.script = saying(503)
    got = await one.gateway.chat("hi", kv_cache={"tags": ["t"]}, user="ü")
    assert got.text == "spare"
    (entry,) = one.gateway.assembly.shelf.memory.map.values()
    assert (entry.meta.model, entry.meta.source) == ("house-model", "spare")
    sent = one.spare.seen[0].json
    assert sent == {
        "model": "house-model",
        "messages": [{"role": "user", "content": "hi"}],
        "user": "ü",
    }
    assert got.headers["x-cache-key"] == entry.digest.hex()


async def test_a_fallback_shares_its_entries_with_those_who_ask_it_directly(stage: Stage) -> None:
    one = await chain(stage, {"fallback_model": "house-model", "models": ["house-model"]})
    first = await one.gateway.chat(model="house-model")
    assert (first.text, MARK in first.headers) == ("spare", False)
    one.main.script = saying(503)
    got = await one.gateway.chat(model="priced")
    assert (got.text, got.cache, got.headers[MARK]) == ("spare", "HIT", "spare")
    assert one.spare.calls == 1


async def test_pools_are_tried_in_order_and_one_that_refuses_is_passed_over(stage: Stage) -> None:
    one = await chain(stage)
    one.main.script, one.spare.script = saying(500), saying(401)
    got = await one.gateway.chat()
    assert (got.text, got.headers[MARK], one.calls) == ("last", "last", (1, 1, 1))


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_what_the_request_is_to_blame_for_goes_nowhere_else(
    stage: Stage, status: int
) -> None:
    one = await chain(stage)
    one.main.script = saying(status)
    assert (await one.gateway.chat()).status == status
    assert one.calls == (1, 0, 0)


async def test_the_log_says_of_the_last_pool_that_none_is_left(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    one = await chain(stage)
    for each in (one.main, one.spare, one.last):
        each.script = saying(503)
    await one.gateway.chat()
    said = [line.split(": ")[0] for line in caplog.messages if "pool" in line]
    assert [line.split(maxsplit=2)[2] for line in said] == [
        "goes to another pool",
        "goes to another pool",
        "has no pool left",
    ]


@pytest.mark.parametrize("controls", [{}, {"kv_cache": {"enabled": False}}])
async def test_where_nobody_can_serve_the_first_pools_failure_passes_unchanged(
    stage: Stage, controls: dict[str, Any]
) -> None:
    one = await chain(stage)
    one.main.script = saying(429, retry_after="7")
    one.spare.script, one.last.script = saying(500), saying(400)
    got = await one.gateway.chat(**controls)
    assert (got.status, got.json) == (429, {"error": {"message": "no: 429"}})
    assert got.headers["retry-after"] == "7"
    assert MARK not in got.headers
    assert one.calls == (1, 1, 1)


async def test_the_chain_ends_in_something_stale_where_that_is_allowed(stage: Stage) -> None:
    one = await chain(stage)
    allowed = {"cache-control": "stale-if-error=600"}
    await one.gateway.chat(headers=allowed)
    stage.moving.move(100)
    one.main.script = saying(503)
    got = await one.gateway.chat(headers=allowed)
    assert (got.text, got.cache) == ("spare", "MISS"), "a new answer before a stale one"
    one.spare.script = one.last.script = saying(500)
    stage.moving.move(100)
    got = await one.gateway.chat(headers=allowed)
    assert (got.text, got.cache, MARK in got.headers) == ("main", "STALE", False)
    forbidden = {"cache-control": "stale-if-error=0"}
    got = await one.gateway.chat(headers=forbidden)
    assert (got.status, got.json["error"]["message"]) == (503, "no: 503"), "the first failure"
    calls = one.calls
    await one.gateway.chat(headers=allowed)
    assert one.calls == tuple(count + 1 for count in calls), "each was asked once"


async def test_a_pool_that_is_left_alone_is_not_asked_while_others_can_answer(
    stage: Stage,
) -> None:
    one = await chain(stage)
    one.main.script = saying(429, retry_after="30")
    for content in "abc":
        assert (await one.gateway.chat(content)).text == "spare"
    assert one.calls == (1, 3, 0)
    one.spare.script, one.last.script = saying(500), saying(500)
    got = await one.gateway.chat("d")
    assert (got.status, one.calls) == (429, (2, 4, 1)), "asked after all: nobody else could"
    stage.moving.move(30)
    one.main.script = named("main")
    assert (await one.gateway.chat("e")).text == "main"


async def test_many_who_ask_at_once_cost_each_pool_one_call(stage: Stage) -> None:
    one = await chain(stage)
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        await gate.wait()
        await named("spare")(seen, out)

    one.main.script, one.spare.script = saying(503), slow
    for streaming in (False, True):
        gate.clear()
        question, calls = str(streaming), one.calls
        asking = [
            asyncio.create_task(one.gateway.chat(question, stream=streaming)) for _ in range(8)
        ]
        await one.spare.called(calls[1] + 1)
        await until(lambda: one.gateway.assembly.world.following == 8)
        gate.set()
        got = await asyncio.gather(*asking)
        assert {said(each, streaming) for each in got} == {"spare"}
        assert {each.headers[MARK] for each in got} == {"spare"}
        assert sorted(each.cache for each in got) == ["COALESCED"] * 7 + ["MISS"]
        assert one.calls == (calls[0] + 1, calls[1] + 1, 0)


async def test_a_credential_and_a_query_are_shown_to_the_first_pool_only(stage: Stage) -> None:
    one = await chain(stage)
    one.main.script = saying(503)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": "Bearer secret", "x-api-key": "secret"}
    got = await one.gateway.post(f"{CHAT}?key=secret", body, headers)
    assert got.text == "spare"
    assert "secret" in one.main.seen[0].path + one.main.seen[0].headers["authorization"]
    assert "secret" not in str(one.spare.seen[0])
    assert (await one.gateway.chat(model="m")).cache == "MISS", "the tenant is still the client's"


async def test_two_clients_share_no_answer_of_a_fallback(stage: Stage) -> None:
    one = await chain(stage)
    one.main.script = saying(503)
    for key in ("one", "two"):
        got = await one.gateway.chat(headers={"authorization": f"Bearer {key}"})
        assert (got.text, got.cache) == ("spare", "MISS")


async def test_half_an_answer_goes_nowhere_else(stage: Stage) -> None:
    one = await chain(stage)

    async def half(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await out.begin_stream()
            await out.event(chunks("a")[1])
            out.cut()
        else:
            await out.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
            out.writer.close()

    one.main.script = half
    assert (await one.gateway.chat()).status == 502
    got = await one.gateway.chat(stream=True)
    assert got.events[-1]["error"]["code"] == "upstream_broken"
    assert one.calls == (2, 0, 0)


async def test_what_is_not_cached_falls_back_too_unless_it_has_a_state_elsewhere(
    stage: Stage,
) -> None:
    one = await chain(stage)
    one.main.script = saying(503)
    off = {"kv_cache": {"enabled": False}}
    for streaming in (False, True):
        got = await one.gateway.chat(stream=streaming, **off)
        assert (said(got, streaming), got.cache, got.headers[MARK]) == ("spare", "BYPASS", "spare")
    body = {"model": "m", "input": "hi", "conversation": "conv_1"}
    got = await one.gateway.post("/v1/responses", body)
    assert (got.status, got.cache, got.reason) == (503, "BYPASS", "stateful")
    got = await one.gateway.post("/v1/embeddings", {"model": "m", "input": "hi"})
    assert got.status == 503, "another model's vectors lie in another space"


async def test_a_compressed_answer_of_a_fallback_is_read(stage: Stage) -> None:
    one = await chain(stage)
    one.main.script = saying(503)

    async def pack(seen: Seen, out: Out) -> None:
        body = gzip.compress(json.dumps(completion("packed")).encode())
        await out.whole(body, content_encoding="gzip")

    one.spare.script = pack
    assert [(await one.gateway.chat()).text for _ in range(2)] == ["packed", "packed"]
    assert one.spare.calls == 1


async def test_a_reload_changes_who_falls_back_to_whom(stage: Stage) -> None:
    one = await chain(stage)
    one.main.script = saying(503)
    assert (await one.gateway.chat()).text == "spare"
    pools = {
        "main": Pool(urls=[one.main.url], fallback=["last"]),
        "last": Pool(urls=[one.last.url]),
    }
    one.gateway.assembly.adopt(settings_of(pools), Pools.of(pools))
    assert (await one.gateway.chat()).text == "last"


@pytest.mark.parametrize("other", ["nobody", "main"])
def test_a_fallback_is_another_pool_of_the_configuration(other: str) -> None:
    pools = {"main": Pool(urls=["http://h"], fallback=[other]), "b": Pool(urls=["http://b"])}
    with pytest.raises(ConfigError, match=r"\[upstreams.main\] fallback=.*names of other pools: b"):
        check(Settings(upstreams=pools))
