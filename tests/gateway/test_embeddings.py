"""Embeddings: every input by itself, whatever batch it came in. Real sockets, the real client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage, until
from gateway.test_fallback import MARK, chain
from gateway.test_servers import saying
from gateway.upstream import Out, Seen, Upstream, once
from thinkonce.engine import batch_endpoint, fetch
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.exchange import Exchange
from thinkonce.world import MAX_RENEWALS

PATH = "/v1/embeddings"


def vector(text: Any) -> list[float]:
    """Numbers that tell which input they belong to, exact in 32 bits."""
    return [len(text) / 8, sum(map(ord, text)) / 4 if isinstance(text, str) else sum(text) / 4, 0.5]


def in_base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


async def embed(seen: Seen, out: Out) -> None:
    given = seen.json["input"]
    one = isinstance(given, str) or isinstance(given[0], int)
    items = [given] if one else given
    form = seen.json.get("encoding_format") == "base64"
    rows = [
        {
            "object": "embedding",
            "index": place,
            "embedding": in_base64(vector(item)) if form else vector(item),
        }
        for place, item in enumerate(items)
    ]
    usage = {"prompt_tokens": 10 * len(items), "total_tokens": 10 * len(items)}
    answer = {"object": "list", "data": rows[::-1], "model": "priced", "usage": usage}
    await out.json(answer)


@pytest.fixture(autouse=True)
def embedding(upstream: Upstream) -> None:
    upstream.script = embed


async def ask(gateway: Running, given: Any, **fields: Any) -> Any:
    headers = fields.pop("headers", None)
    return await gateway.post(PATH, {"model": "priced", "input": given} | fields, headers)


def vectors(got: Any) -> list[Any]:
    """In order of their index: a provider need not give them in order."""
    return [row["embedding"] for row in sorted(got.json["data"], key=lambda row: row["index"])]


def asked_for(upstream: Upstream) -> list[Any]:
    """What the upstream was asked for, call by call."""
    return [seen.json["input"] for seen in upstream.seen]


async def test_of_a_batch_only_what_is_unknown_is_asked_for(
    gateway: Running, upstream: Upstream
) -> None:
    known = [f"text {n}" for n in range(9)]
    assert (await ask(gateway, known)).cache == "MISS"
    got = await ask(gateway, [*known[:4], "new", *known[4:]])
    assert (got.cache, got.headers["cache-status"]) == ("MISS", "thinkonce; fwd=partial")
    assert asked_for(upstream) == [known, ["new"]]
    wanted = [vector(text) for text in [*known[:4], "new", *known[4:]]]
    assert vectors(got) == wanted
    assert [row["index"] for row in got.json["data"]] == list(range(10))
    marks = got.json["kv_cache"]
    assert (marks["items"], marks["items_hit"], marks["stored"]) == (10, 9, True)


async def test_a_first_answer_is_the_upstreams_own_bytes(stage: Stage) -> None:
    gateway = await stage.gateway(gateway={"annotate_body": False})
    spaced = b'{ "object": "list", "data": [ {"index":0, "embedding": [1.50, 2] } ], "x": 1 }'

    async def answer(seen: Seen, out: Out) -> None:
        await out.whole(spaced)

    stage.upstream.script = answer
    assert (await ask(gateway, "one")).body == spaced
    again = await ask(gateway, ["one"])
    assert again.cache == "HIT", "a text and a list of one ask for the same"
    assert b'"embedding":[1.50, 2]' in again.body, "numbers stay as they were written"


async def test_all_known_is_a_hit_whatever_the_order_and_the_batch(
    gateway: Running, upstream: Upstream
) -> None:
    await ask(gateway, ["a", "b", "c"])
    got = await ask(gateway, ["c", "a", "a"])
    assert (got.cache, upstream.calls) == ("HIT", 1)
    assert vectors(got) == [vector(t) for t in "caa"]
    assert got.headers["x-cache-match"] == "exact"
    assert "ttl=" in got.headers["cache-status"]
    assert got.json["cache_hit"] is True
    assert got.json["kv_cache"]["saved_tokens"] == 30
    assert "x-cache-key" not in got.headers
    assert (await ask(gateway, "b")).headers["x-cache-key"]


async def test_equal_inputs_of_a_batch_are_asked_for_once(
    gateway: Running, upstream: Upstream
) -> None:
    got = await ask(gateway, ["same", "other", "same"])
    assert asked_for(upstream) == [["same", "other"]]
    assert vectors(got) == [vector(text) for text in ("same", "other", "same")]


@pytest.mark.parametrize("first", ["float", "base64"])
async def test_numbers_and_base64_share_one_entry(
    gateway: Running, upstream: Upstream, first: str
) -> None:
    other = {"float": "base64", "base64": "float"}[first]
    forms = {"float": vector("text"), "base64": in_base64(vector("text"))}
    for form in (first, other, first):
        got = await ask(gateway, "text", encoding_format=form)
        assert got.json["data"][0]["embedding"] == forms[form]
    assert upstream.calls == 1


async def test_what_changes_a_vector_is_told_apart(gateway: Running, upstream: Upstream) -> None:
    for fields in (
        {},
        {"dimensions": 2},
        {"input_type": "query"},
        {"encoding_format": "int8"},
        {"user": "u"},
    ):
        assert (await ask(gateway, "text", **fields)).cache == "MISS"
        assert (await ask(gateway, "text", **fields)).cache == "HIT"
    assert (await ask(gateway, [1, 2, 3])).cache == "MISS", "token ids are one input"
    assert (await ask(gateway, [[1, 2, 3], [4]])).json["kv_cache"]["items_hit"] == 1
    assert (await ask(gateway, "text", headers={"authorization": "Bearer x"})).cache == "MISS"
    assert upstream.calls == 8


async def test_batches_at_once_share_what_they_have_in_common(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    upstream.script = once(gate, embed)
    batches = [["a", "b"], ["b", "c"], ["c", "a"], ["a", "b", "c"]]
    asking = []
    for batch in batches:
        asking.append(asyncio.create_task(ask(gateway, batch)))
        calls = min(len(asking), 2)
        await until(lambda calls=calls: upstream.calls == calls)
    await until(lambda: gateway.assembly.world.following == sum(map(len, batches)))
    gate.set()
    for batch, got in zip(batches, await asyncio.gather(*asking), strict=True):
        assert vectors(got) == [vector(text) for text in batch]
    assert asked_for(upstream) == [["a", "b"], ["c"]]
    assert len(gateway.assembly.shelf.flights) == 0


async def test_a_batch_whose_call_came_to_nothing_is_asked_for_in_one_call(stage: Stage) -> None:
    keys = ("sk-bad", "sk-good")
    team = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    gateway, gate = await stage.gateway(groups={"team": team}), asyncio.Event()

    async def script(seen: Seen, out: Out) -> None:
        if seen.headers["authorization"].endswith("sk-good"):
            await embed(seen, out)
            return
        await gate.wait()
        await out.json({"error": {"message": "no such key"}}, 401)

    stage.upstream.script = script
    batch = [f"text {number}" for number in range(200)]
    bad, good = ({"authorization": f"Bearer {key}"} for key in keys)
    leader = asyncio.create_task(ask(gateway, batch, headers=bad))
    await stage.upstream.called(1)
    follower = asyncio.create_task(ask(gateway, batch, headers=good))
    await until(lambda: gateway.assembly.world.following == 2 * len(batch))
    gate.set()
    assert (await leader).status == 401
    assert vectors(await follower) == [vector(text) for text in batch]
    assert [len(each) for each in asked_for(stage.upstream)] == [200, 200]


async def test_a_client_that_leaves_takes_nothing_from_who_shares_its_call(
    gateway: Running, upstream: Upstream
) -> None:
    gate = asyncio.Event()

    upstream.script = once(gate, embed)
    first = asyncio.create_task(ask(gateway, ["a", "b"]))
    await until(lambda: upstream.calls == 1)
    second = asyncio.create_task(ask(gateway, ["b"]))
    await until(lambda: gateway.assembly.world.following == 3)
    first.cancel()
    await until(lambda: gateway.assembly.world.following == 1)
    gate.set()
    assert (await second).json["data"][0]["embedding"] == vector("b")
    assert upstream.calls == 1


async def test_with_nobody_left_the_call_ends(gateway: Running, upstream: Upstream) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    upstream.script = never
    first = asyncio.create_task(ask(gateway, ["a", "b"]))
    await until(lambda: upstream.calls == 1)
    first.cancel()
    await upstream.left(1)
    await until(lambda: len(gateway.assembly.shelf.flights) == 0)
    assert len(gateway.assembly.shelf.memory) == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"object": "list", "data": []},
        {"object": "list", "data": [{"index": 0, "embedding": [1]}] * 2},
        {"object": "list", "data": [{"index": 1, "embedding": [1]}]},
        {"object": "list", "data": [{"index": 0, "embedding": []}]},
        {"object": "list", "data": [{"index": 0, "embedding": None}]},
        {"error": {"message": "no"}, "data": [{"index": 0, "embedding": [1]}]},
        {"odd": True},
    ],
)
async def test_what_is_not_a_vector_each_is_passed_on_and_not_stored(
    gateway: Running, upstream: Upstream, answer: Any
) -> None:
    async def odd(seen: Seen, out: Out) -> None:
        await out.json(answer)

    upstream.script = odd
    got = await ask(gateway, "text")
    assert (got.status, got.json) == (200, answer)
    assert (got.cache, got.reason) == ("MISS", "error")
    assert len(gateway.assembly.shelf.memory) == 0


@pytest.mark.parametrize("index", [{}, {"index": 0}])
async def test_vectors_that_cannot_be_told_apart_are_the_upstreams_own_answer_to_the_whole(
    gateway: Running, upstream: Upstream, index: dict[str, int]
) -> None:
    await ask(gateway, ["a", "b"])

    async def unsorted(seen: Seen, out: Out) -> None:
        rows = [{"embedding": [float(len(text))], **index} for text in seen.json["input"]]
        await out.json({"object": "list", "data": rows})

    upstream.script = unsorted
    for wanted in (["a", "ccc", "dd"], ["xx", "xx", "yyyy", "xx"]):
        for _ in range(2):
            got = await ask(gateway, wanted)
            assert got.status == 200
            assert [row["embedding"] for row in got.json["data"]] == [[len(t)] for t in wanted]
            assert (got.cache, got.reason) == ("BYPASS", "error")
            assert asked_for(upstream)[-1] == wanted
    assert (await ask(gateway, ["a", "b"])).cache == "HIT"


async def test_part_of_a_batch_that_cannot_be_had_is_asked_for_whole_and_the_rest_stays(
    gateway: Running, upstream: Upstream
) -> None:
    await ask(gateway, ["a", "b"])

    async def one_too_few(seen: Seen, out: Out) -> None:
        await out.json({"object": "list", "data": [{"index": 0, "embedding": [1]}]})

    upstream.script = one_too_few
    got = await ask(gateway, ["a", "c", "d"])
    assert (got.status, len(got.json["data"])) == (200, 1)
    assert asked_for(upstream)[-1] == ["a", "c", "d"]
    assert (await ask(gateway, ["a", "b"])).cache == "HIT"


async def test_an_upstreams_refusal_passes_through(gateway: Running, upstream: Upstream) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "slow down"}}, 429, retry_after="7")

    await ask(gateway, "known")
    upstream.script = refuse
    got = await ask(gateway, ["known", "new"])
    assert (got.status, got.headers["retry-after"]) == (429, "7")
    assert got.json == {"error": {"message": "slow down"}}


async def test_controls_hold_for_every_input(gateway: Running, upstream: Upstream) -> None:
    await ask(gateway, ["a", "b"], kv_cache={"tags": ["faq"], "ttl": 60})
    got = await ask(gateway, ["a", "new"], headers={"cache-control": "only-if-cached"})
    assert got.status == 504
    got = await ask(gateway, ["a", "b"], headers={"cache-control": "no-cache"})
    assert (got.cache, asked_for(upstream)[-1]) == ("REFRESH", ["a", "b"])
    assert b"kv_cache" not in upstream.seen[0].body
    got = await ask(gateway, ["x"], kv_cache={"enabled": False})
    assert (got.cache, got.reason) == ("BYPASS", "disabled")
    assert (await ask(gateway, ["x"], headers={"cache-control": "no-store"})).cache == "MISS"
    assert (await ask(gateway, ["x"])).cache == "MISS", "it was not stored"
    purged = await gateway.post("/cache/purge", {"tags": ["faq"]})
    assert purged.json == {"purged": 0}, "the refreshed ones carry no tag"
    got = await ask(gateway, ["a", "b"], kv_cache={"cache_key": "k", "key_mode": "override"})
    assert got.status == 400


async def test_what_has_no_inputs_is_left_to_the_upstream(
    gateway: Running, upstream: Upstream
) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "input"}}, 400)

    upstream.script = refuse
    for given in (None, [], [""] * 0, {"a": 1}, 5, ["a", 1], [["a"]], [[]], [1.5]):
        got = await ask(gateway, given)
        assert (got.status, got.cache, got.reason) == (400, "BYPASS", "unkeyable")


async def test_a_stale_vector_answers_while_its_upstream_is_down(
    stage: Stage, upstream: Upstream
) -> None:
    clock = stage.moving.clock
    cache = {"ttl": 60.0, "stale_if_error": 3600.0}
    gateway = await stage.gateway(cache=cache, clock=clock)
    await ask(gateway, ["a", "b"])
    stage.moving.move(61)

    async def broken(seen: Seen, out: Out) -> None:
        out.cut()

    upstream.script = broken
    got = await ask(gateway, ["b", "a"])
    assert (got.status, got.cache) == (200, "STALE")
    assert vectors(got) == [vector("b"), vector("a")]


async def test_a_stale_vector_is_renewed_in_the_background(
    stage: Stage, upstream: Upstream
) -> None:
    cache = {"ttl": 60.0, "stale_while_revalidate": 600.0}
    gateway = await stage.gateway(cache=cache, clock=stage.moving.clock)
    await ask(gateway, ["a", "b"])
    stage.moving.move(61)
    got = await ask(gateway, ["a", "b"])
    assert got.cache == "STALE"
    await until(lambda: not gateway.assembly.world.renewals)
    assert (await ask(gateway, ["b", "a"])).cache == "HIT"


async def test_the_official_client_gets_its_vectors(stage: Stage, upstream: Upstream) -> None:
    gateway = await stage.gateway()
    client = await stage.openai(gateway)
    for given in ("one", ["one", "two"], ["two", "one"]):
        for form in ({}, {"encoding_format": "float"}):
            answer = await client.embeddings.create(model="priced", input=given, **form)
            texts = [given] if isinstance(given, str) else given
            assert [row.embedding for row in answer.data] == [vector(text) for text in texts]
    assert asked_for(upstream) == ["one", ["two"]]


async def test_a_large_batch_is_one_call(gateway: Running, upstream: Upstream) -> None:
    texts = [f"text {n}" for n in range(500)]
    assert (await ask(gateway, texts)).cache == "MISS"
    assert (await ask(gateway, texts)).cache == "HIT"
    assert upstream.calls == 1


async def test_two_paths_are_one(gateway: Running, upstream: Upstream) -> None:
    body = {"model": "priced", "input": "text"}
    assert (await gateway.post("/embeddings", body)).cache == "MISS"
    assert (await gateway.post("/v1/embeddings", body)).cache == "HIT"
    assert json.loads(upstream.seen[0].body) == body


async def test_a_fallback_answers_for_a_pool_that_cannot_under_its_own_keys(stage: Stage) -> None:
    one = await chain(stage)
    for upstream in (one.main, one.spare, one.last):
        upstream.script = embed
    assert (await ask(one.gateway, ["a"])).cache == "MISS"
    one.main.script = saying(503)
    for cache in ("MISS", "HIT"):
        got = await ask(one.gateway, ["a", "b"])
        assert (got.status, got.cache, got.headers[MARK]) == (200, cache, "spare")
        assert vectors(got) == [vector("a"), vector("b")]
    assert asked_for(one.spare) == [["a", "b"]], "vectors of two models are no batch"
    one.main.script = embed
    got = await ask(one.gateway, ["a", "b"])
    assert (got.json["kv_cache"]["items_hit"], MARK in got.headers) == (1, False)


@pytest.mark.parametrize("other", [{"fallback_model": "other"}, {"models": ["other", "house-*"]}])
@pytest.mark.parametrize("controls", [{}, {"kv_cache": {"enabled": False}}])
async def test_a_pool_that_serves_another_model_answers_for_no_embeddings(
    stage: Stage, other: dict[str, Any], controls: dict[str, Any]
) -> None:
    one = await chain(stage, other)
    one.main.script, one.spare.script, one.last.script = saying(503), embed, embed
    got = await ask(one.gateway, ["a"], **controls)
    assert (got.status, got.headers[MARK], one.calls) == (200, "last", (1, 0, 1))


@pytest.mark.parametrize("given", [["a"], {"odd": "input"}])
@pytest.mark.parametrize("status", [400, 503])
async def test_the_first_pools_failure_passes_where_no_fallback_can_help(
    stage: Stage, status: int, given: Any
) -> None:
    one = await chain(stage)
    one.main.script, one.spare.script, one.last.script = map(saying, (status, 500, 401))
    got = await ask(one.gateway, given)
    assert (got.status, MARK in got.headers) == (status, False)
    assert one.calls == ((1, 0, 0) if status == 400 else (1, 1, 1))


async def test_a_stale_batch_answers_where_no_pool_can(stage: Stage, upstream: Upstream) -> None:
    pools = {
        "main": Pool(urls=[upstream.url], fallback=["spare"]),
        "spare": Pool(urls=["http://127.0.0.1:1"]),
    }
    cache = {"ttl": 60.0, "stale_if_error": 3600.0}
    gateway = await stage.gateway(
        upstreams=pools, gateway={"retries": 0}, cache=cache, clock=stage.moving.clock
    )
    await ask(gateway, ["a", "b"])
    stage.moving.move(61)
    upstream.script = saying(503)
    got = await ask(gateway, ["a", "b"])
    assert (got.status, got.cache, MARK in got.headers) == (200, "STALE", False)
    assert upstream.calls == 2, "it was asked once for both"


async def test_a_fault_while_a_request_is_read_forwards_it_uncached(
    gateway: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.assembly.gateway.cached[PATH].reader, "read", broken)
    got = await ask(gateway, ["a"])
    assert (got.status, got.cache, got.reason) == (200, "BYPASS", "tier-error")
    assert vectors(got) == [vector("a")]
    assert await gateway.metric("thinkonce_cache_failures_total") == 1


async def test_a_stale_batch_is_renewed_in_one_call(stage: Stage, upstream: Upstream) -> None:
    cache = {"ttl": 60.0, "stale_while_revalidate": 600.0}
    gateway = await stage.gateway(cache=cache, clock=stage.moving.clock)
    texts = [f"text {n}" for n in range(100)]
    await ask(gateway, texts)
    stage.moving.move(61)
    assert (await ask(gateway, [*texts, "new"])).json["kv_cache"]["items_hit"] == 100
    await until(lambda: not gateway.assembly.world.renewals)
    assert sorted(asked_for(upstream)[1:], key=len) == [["new"], texts]
    assert (await ask(gateway, texts)).cache == "HIT"


async def test_a_batch_whose_renewal_fails_is_one_line_of_the_log(
    stage: Stage, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    cache = {"ttl": 60.0, "stale_while_revalidate": 600.0}
    gateway = await stage.gateway(cache=cache, clock=stage.moving.clock)
    await ask(gateway, ["a", "b", "c"])
    stage.moving.move(61)
    upstream.script = saying(400)
    for lines in (1, 2):
        assert (await ask(gateway, ["a", "b", "c"])).cache == "STALE"
        await until(lambda: not gateway.assembly.world.renewals)
        assert caplog.text.count("renewal failed") == lines


async def test_batches_renewed_at_once_are_bounded_in_calls(
    stage: Stage, upstream: Upstream
) -> None:
    cache = {"ttl": 60.0, "stale_while_revalidate": 600.0}
    gateway = await stage.gateway(cache=cache, clock=stage.moving.clock)
    batches = [[f"{name} {n}" for n in range(5)] for name in range(MAX_RENEWALS + 1)]
    for batch in batches:
        await ask(gateway, batch)
    stage.moving.move(61)
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        await gate.wait()
        await embed(seen, out)

    upstream.script, asked = slow, upstream.calls
    for batch in batches:
        assert (await ask(gateway, batch)).cache == "STALE"
    assert len(gateway.assembly.world.renewals) == 5 * MAX_RENEWALS
    gate.set()
    await until(lambda: not gateway.assembly.world.renewals)
    assert upstream.calls == asked + MAX_RENEWALS
    await ask(gateway, batches[-1])
    await until(lambda: not gateway.assembly.world.renewals)
    assert [(await ask(gateway, batch)).cache for batch in batches] == ["HIT"] * len(batches)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("endpoint", ["embeddings", "chat"])
async def test_the_upstreams_seconds_are_those_of_whole_calls(
    gateway: Running,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    status: int,
) -> None:
    now, read_all = 0.0, Exchange.read_all

    async def read_slowly(exchange: Exchange, limit: int) -> bytes | None:
        nonlocal now
        now += 5.0
        return await read_all(exchange, limit)

    monkeypatch.setattr(Exchange, "read_all", read_slowly)
    for module in (batch_endpoint, fetch):
        monkeypatch.setattr(module, "monotonic", lambda: now, raising=False)
    upstream.script = saying(status)
    await (ask(gateway, "one") if endpoint == "embeddings" else gateway.chat())
    assert await gateway.metric("thinkonce_upstream_seconds_sum") == 5.0


@pytest.mark.parametrize(
    ("given", "fields"),
    [([f"text {n}" for n in range(2049)], {}), (["a"] * 1000, {"user": "u" * 20_000})],
    ids=["many inputs", "much in common"],
)
async def test_a_batch_whose_keys_would_take_more_than_they_are_worth_goes_past_the_cache(
    gateway: Running, upstream: Upstream, given: list[str], fields: dict[str, str]
) -> None:
    for calls in (1, 2):
        got = await ask(gateway, given, **fields)
        assert (got.status, got.cache, got.reason) == (200, "BYPASS", "too-large")
        assert (len(vectors(got)), upstream.calls) == (len(given), calls)


async def test_a_batch_as_large_as_the_provider_takes_is_kept_input_by_input(
    gateway: Running, upstream: Upstream
) -> None:
    given = [f"text {n}" for n in range(2048)]
    assert (await ask(gateway, given)).cache == "MISS"
    assert (await ask(gateway, given)).cache == "HIT"
    assert upstream.calls == 1


async def test_what_inputs_have_in_common_is_not_kept_beside_each_of_them(
    stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "answers.db"
    gateway = await stage.gateway(store={"url": f"sqlite:///{file}"})
    noise = base64.b64encode(random.Random(1).randbytes(12_000)).decode()
    await ask(gateway, [f"text {n}" for n in range(400)], user=noise)
    gateway.assembly.shelf.flush(10.0)
    assert gateway.assembly.shelf.setting.tiers[-1].stats().bytes < 1_000_000
