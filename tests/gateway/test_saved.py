"""What hits save, as a gateway tells it: tokens, money and time, by whom, for what and when."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import MovableClock, Running, Stage, until
from gateway.upstream import DONE, USAGE_CHUNK, Out, Seen, chunks, completion, once, saying
from thinkonce.cli import main
from thinkonce.insight.prices import TYPICAL

way = pytest.fixture(name="way")(lambda all_ways: all_ways)

USD = (11 * 0.15 + 7 * 0.6) / 1e6  # of the scripted answer, by gpt-4o-mini's list price


async def savings(gateway: Running) -> dict[str, Any]:
    return dict((await gateway.get("/cache/stats")).json["savings"])


async def test_each_hit_is_counted_under_everything_it_has(gateway: Running) -> None:
    first = {"kv_cache": {"tags": ["faq", "web"], "namespace": "v1"}}
    await gateway.chat("one", **first)
    for _ in range(3):
        await gateway.chat("one", **first)
    await gateway.chat("two", headers={"authorization": "Bearer sk-other"})
    assert (await gateway.chat("two", headers={"authorization": "Bearer sk-other"})).cache == "HIT"
    found = await savings(gateway)
    assert found["totals"] == {
        "calls": 4,
        "items": 0,
        "tokens": 72,
        "usd": pytest.approx(4 * USD),
        "seconds": found["totals"]["seconds"],
        "unpriced": 0,
        "estimated": 0,
    }
    assert found["totals"]["seconds"] > 0
    assert {name: row["calls"] for name, row in found["by_tag"].items()} == {
        "faq": 3, "web": 3, "": 1,
    }  # fmt: skip
    assert {name: row["calls"] for name, row in found["by_namespace"].items()} == {"v1": 3, "": 1}
    assert [row["calls"] for row in found["by_tenant"].values()] == [3, 1]
    assert found["by_model"]["priced"]["tokens"] == 72
    assert found["by_outcome"]["hit"]["calls"] == 4
    ((hour, row),) = found["by_hour"].items()
    assert (len(hour), row["calls"]) == (len("2026-01-31T23Z"), 4)
    assert found["prices"]["currency"] == "USD"


async def test_the_providers_own_discount_is_not_counted_as_ours(
    gateway: Running, stage: Stage
) -> None:
    async def answer(seen: Seen, out: Out) -> None:
        usage = {"prompt_tokens": 2000, "completion_tokens": 10, "total_tokens": 2010}
        usage |= {"prompt_tokens_details": {"cached_tokens": 1500}}
        await out.json(completion(usage=usage))

    stage.upstream.script = answer
    await gateway.chat()
    told = (await gateway.chat()).json["kv_cache"]
    expected = (500 * 0.15 + 1500 * 0.075 + 10 * 0.6) / 1e6
    assert told["saved_cost"] == pytest.approx(expected)
    assert told["saved_tokens"] == 2010
    assert (await savings(gateway))["totals"]["usd"] == pytest.approx(expected)


async def test_an_unknown_price_is_null_and_counted(gateway: Running, stage: Stage) -> None:
    async def answer(seen: Seen, out: Out) -> None:
        await out.json(completion(model="house-model"))

    stage.upstream.script = answer
    await gateway.chat(model="house-model")
    told = (await gateway.chat(model="house-model")).json["kv_cache"]
    assert (told["saved_cost"], told["saved_tokens"]) == (None, 18)
    row = (await savings(gateway))["totals"]
    assert (row["usd"], row["unpriced"], row["tokens"]) == (None, 1, 18)
    assert (await gateway.get("/cache/stats")).json["saved_usd"] is None


async def test_an_unpriced_answer_weighs_dollars_as_a_priced_one_does(
    gateway: Running, stage: Stage
) -> None:
    await gateway.chat("one")

    async def house(seen: Seen, out: Out) -> None:
        await out.json(completion(model="house-model"))

    stage.upstream.script = house
    await gateway.chat("two", model="house-model")
    rows = (await gateway.get("/cache/entries")).json["entries"]
    costs = {row["model"]: row["cost"] for row in rows}
    typical = (11 * TYPICAL.input + 7 * TYPICAL.output) / 1e6
    assert costs == {"priced": pytest.approx(USD), "house-model": pytest.approx(typical)}


async def test_requests_that_join_a_call_are_counted_apart(gateway: Running, stage: Stage) -> None:
    go = asyncio.Event()

    stage.upstream.script = once(go, saying(completion()))
    asked = [asyncio.ensure_future(gateway.chat()) for _ in range(3)]
    await until(lambda: gateway.assembly.world.following == 3)
    go.set()
    got = await asyncio.gather(*asked)
    assert sorted(each.cache for each in got) == ["COALESCED", "COALESCED", "MISS"]
    found = await savings(gateway)
    assert found["by_outcome"]["coalesced"]["calls"] == 2
    assert found["totals"]["usd"] == pytest.approx(2 * USD)
    assert found["by_outcome"].keys() == {"coalesced"}


async def test_followers_of_a_live_stream_are_counted_at_its_end(
    gateway: Running, stage: Stage
) -> None:
    go = asyncio.Event()

    async def answer(seen: Seen, out: Out) -> None:
        await out.begin_stream()
        first, *rest = chunks("hel", "lo")
        await out.event(first)
        await go.wait()
        for each in (*rest, USAGE_CHUNK, DONE):
            await out.event(each)
        await out.end()

    stage.upstream.script = answer
    ask = {"stream": True, "stream_options": {"include_usage": True}}
    asked = [asyncio.ensure_future(gateway.chat(**ask)) for _ in range(3)]
    await until(lambda: gateway.assembly.world.following == 3)
    assert (await savings(gateway))["totals"]["calls"] == 0
    go.set()
    await asyncio.gather(*asked)
    row = (await savings(gateway))["by_outcome"]["coalesced"]
    assert (row["calls"], row["tokens"], row["usd"]) == (2, 36, pytest.approx(2 * USD))


async def test_a_stale_answer_that_is_renewed_saves_time_only(stage: Stage) -> None:
    moving = MovableClock()
    cache = {"ttl": 60.0, "stale_while_revalidate": 600.0, "early_refresh": 0.0}
    gateway = await stage.gateway(clock=moving.clock, cache=cache)

    async def answer(seen: Seen, out: Out) -> None:
        moving.move(2.0)
        await out.json(completion())

    stage.upstream.script = answer
    await gateway.chat()
    moving.move(61.0)
    assert (await gateway.chat()).cache == "STALE"
    await until(lambda: stage.upstream.calls == 2)
    row = (await savings(gateway))["by_outcome"]["stale"]
    assert (row["calls"], row["tokens"], row["usd"], row["seconds"]) == (0, 0, 0.0, 2.0)


async def test_a_stale_answer_in_place_of_a_failed_upstream_saves_a_call(stage: Stage) -> None:
    moving = MovableClock()
    cache = {"ttl": 60.0, "stale_if_error": 600.0, "early_refresh": 0.0}
    gateway = await stage.gateway(clock=moving.clock, cache=cache)
    await gateway.chat()
    moving.move(61.0)

    async def broken(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "down"}}, status=500)

    stage.upstream.script = broken
    assert (await gateway.chat()).cache == "STALE"
    row = (await savings(gateway))["by_outcome"]["stale"]
    assert (row["calls"], row["tokens"], row["usd"]) == (1, 18, pytest.approx(USD))


@pytest.mark.parametrize("asked", ["refresh", "miss", "preload"])
async def test_calls_that_are_made_save_nothing(gateway: Running, asked: str) -> None:
    await gateway.chat("one")
    if asked == "refresh":
        await gateway.chat("one", headers={"cache-control": "no-cache"})
    elif asked == "miss":
        await gateway.chat("two")
    else:
        body = {"model": "priced", "messages": [{"role": "user", "content": "one"}]}
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for _ in range(2):
            sent = json.dumps(line).encode() + b"\n"
            got = await gateway.send(
                "POST", "/cache/preload", sent, {"content-type": "application/jsonl"}
            )
            assert got.status == 200
    assert (await savings(gateway))["totals"]["calls"] == 0


async def test_known_inputs_of_a_batch_save_tokens_and_a_whole_batch_a_call(
    gateway: Running, stage: Stage
) -> None:
    async def embed(seen: Seen, out: Out) -> None:
        items = seen.json["input"]
        rows = [{"object": "embedding", "index": n, "embedding": [1.0]} for n in range(len(items))]
        usage = {"prompt_tokens": 10 * len(items), "total_tokens": 10 * len(items)}
        await out.json({"object": "list", "data": rows, "model": "priced", "usage": usage})

    stage.upstream.script = embed
    path = "/v1/embeddings"
    await gateway.post(path, {"model": "priced", "input": ["a", "b"]})
    got = await gateway.post(path, {"model": "priced", "input": ["a", "b", "c"]})
    assert (got.json["kv_cache"]["saved_tokens"], got.json["kv_cache"]["saved_ms"]) == (20, 0.0)
    await gateway.post(path, {"model": "priced", "input": ["a", "b", "c"]})
    found = (await savings(gateway))["by_outcome"]
    partial, hit = found["partial"], found["hit"]
    assert (partial["calls"], partial["items"], partial["tokens"]) == (0, 2, 20)
    assert partial["seconds"] == 0.0, "the call was made all the same"
    assert (hit["calls"], hit["items"], hit["tokens"]) == (1, 3, 30)
    assert hit["usd"] == pytest.approx(30e-6)


async def test_sums_outlive_the_gateway_with_its_store(stage: Stage, tmp_path: Path) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'answers.db'}"}
    for runs in (1, 2):
        gateway = await stage.gateway(store=store)
        await gateway.chat(kv_cache={"tags": ["faq"]})
        await gateway.chat(kv_cache={"tags": ["faq"]})
        found = await savings(gateway)
        assert found["by_tag"]["faq"]["calls"] == 2 * runs - 1
        assert await gateway.metric("thinkonce_saved_tokens_total") == 18 * (2 * runs - 1)
        await gateway.assembly.metrics.keeper.close()


async def test_two_gateways_on_one_store_tell_the_same_sums(stage: Stage, tmp_path: Path) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'answers.db'}"}
    one, other = await stage.gateway(store=store), await stage.gateway(store=store)
    await one.chat()
    await one.chat()
    await other.chat()
    await one.get("/metrics")  # settles
    assert (await savings(other))["totals"]["calls"] == 2
    assert (await savings(one))["totals"]["calls"] == 2


async def test_a_store_that_cannot_be_written_costs_no_sum(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    gateway = await stage.gateway(store={"url": f"sqlite:///{path}"})
    await gateway.chat()
    await gateway.chat()
    table = gateway.assembly.metrics.keeper._table
    assert table is not None
    await asyncio.to_thread(table.read)
    import apsw

    locked = apsw.Connection(str(path))
    try:
        locked.execute("BEGIN IMMEDIATE")
        assert (await savings(gateway))["totals"]["calls"] == 1
        locked.execute("ROLLBACK")
    finally:
        locked.close()
    assert (await savings(gateway))["totals"]["calls"] == 1
    assert sum(each[2][0] for each in table.read() if each[0] == "outcome") == 1


async def test_stats_show_tables_to_people(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    gateway = await stage.gateway(store={"url": url})
    await gateway.chat(kv_cache={"tags": ["faq"]})
    await gateway.chat(kv_cache={"tags": ["faq"]})
    for arguments in (["--url", gateway.url], ["--store", url]):
        assert await asyncio.to_thread(main, ["stats", *arguments]) == 0
        out = capsys.readouterr().out
        assert "faq" in out
        assert "MODEL" in out
        assert "HOUR" in out
        assert await asyncio.to_thread(main, ["stats", *arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["savings"]
        assert found["by_tag"]["faq"]["calls"] == 1


async def test_a_users_price_is_taken_up_by_a_reload(stage: Stage) -> None:
    import msgspec

    from thinkonce.settings import Rates

    gateway = await stage.gateway()
    assembly = gateway.assembly
    # The list, and what the settings say.
    assembly.ground = replace(assembly.ground, prices=None)
    await gateway.chat()
    desk_settings = msgspec.structs.replace(
        gateway_settings(stage), prices={"gpt-4o-mini": Rates(input=1000.0, output=0.0)}
    )
    assembly.adopt(desk_settings, assembly.pools)
    told = (await gateway.chat()).json["kv_cache"]
    assert told["saved_cost"] == pytest.approx(0.011)


def gateway_settings(stage: Stage) -> Any:
    from gateway.conftest import settings_of
    from thinkonce import settings as known

    chosen = {"inline": stage.way != "flow", "fast_lane": stage.way == "lane"}
    upstreams = {"main": known.Upstream(urls=[stage.upstream.url])}
    return settings_of(upstreams, gateway=chosen)
