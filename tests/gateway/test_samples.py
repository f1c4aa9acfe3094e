"""Several answers to one request: `samples = k`, in turn and at random."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage, all_ways
from gateway.test_fallback import named
from gateway.test_preload import line, send
from gateway.upstream import saying, telling
from thinkonce.engine.samples import MOST_REMEMBERED, Samples
from thinkonce.settings import Upstream as Pool

way = all_ways


async def dice(stage: Stage, samples: int = 3, **sections: Any) -> Running:
    """A model that never says the same twice."""
    numbers = itertools.count(1)
    stage.upstream.script = telling(lambda seen: f"answer {next(numbers)}")
    cache = {"ttl": 60.0, "samples": samples} | sections.pop("cache", {})
    return await stage.gateway(cache=cache, clock=stage.moving.clock, **sections)


async def ask(gateway: Running, times: int, **fields: Any) -> list[str]:
    """What is said: the text, and `!` where the model was asked for it."""
    said = []
    for _ in range(times):
        got = await gateway.chat(**fields)
        assert got.status == 200, got.body
        said.append(got.text + ("!" if got.cache == "MISS" else ""))
    return said


async def test_the_first_k_requests_ask_the_model_and_the_rest_take_their_answers_in_turn(
    stage: Stage,
) -> None:
    gateway = await dice(stage)
    first = ["answer 1!", "answer 2!", "answer 3!"]
    assert await ask(gateway, 3) == first
    assert await ask(gateway, 7) == [*(each[:-1] for each in first * 2), "answer 1"]
    assert stage.upstream.calls == 3


async def test_each_sample_serves_streams_too(stage: Stage) -> None:
    gateway = await dice(stage, 2)
    await ask(gateway, 2)
    said = [(await gateway.chat(stream=True)).streamed_text for _ in range(3)]
    assert said == ["answer 1", "answer 2", "answer 1"]


@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"seed": 7}, {"temperature": 0.0, "seed": None}]
)
async def test_what_should_not_vary_has_one_answer(stage: Stage, fields: dict[str, Any]) -> None:
    gateway = await dice(stage)
    assert await ask(gateway, 3, **fields) == ["answer 1!", "answer 1", "answer 1"]


async def test_a_label_that_is_the_key_has_one_answer(stage: Stage) -> None:
    gateway = await dice(stage)
    control = {"cache_key": "mine", "key_mode": "override"}
    assert await ask(gateway, 2, kv_cache=control) == ["answer 1!", "answer 1"]


async def test_at_random_every_sample_is_filled_and_given(stage: Stage) -> None:
    gateway = await dice(stage, 3, cache={"sampling": "random"})
    said = await ask(gateway, 60)
    assert stage.upstream.calls == 3
    assert {each for each in said if not each.endswith("!")} == {f"answer {n}" for n in (1, 2, 3)}


async def test_a_sample_expires_by_itself(stage: Stage) -> None:
    gateway = await dice(stage, 2)
    assert await ask(gateway, 1) == ["answer 1!"]
    stage.moving.move(40)
    assert await ask(gateway, 1) == ["answer 2!"]
    stage.moving.move(30)
    assert await ask(gateway, 3) == ["answer 3!", "answer 2", "answer 3"]


async def test_only_if_cached_takes_whichever_sample_there_is(stage: Stage) -> None:
    gateway = await dice(stage)
    stored_only = {"cache-control": "only-if-cached"}
    assert (await gateway.chat(headers=stored_only)).status == 504
    await ask(gateway, 3)
    stage.moving.move(50)
    await ask(gateway, 1, kv_cache={"refresh": True})
    stage.moving.move(30)
    # Of three, one is still fresh: the one renewed, whoever's turn it is.
    said = [(await gateway.chat(headers=stored_only)).text for _ in range(3)]
    assert len(set(said)) == 1
    assert (await gateway.chat(headers=stored_only)).cache == "HIT"


async def test_another_sample_stands_in_for_a_model_that_fails(stage: Stage) -> None:
    gateway = await dice(stage, 2)
    await ask(gateway, 1)
    stage.upstream.script = saying({"error": {"message": "overloaded"}}, 503)
    got = await gateway.chat()
    assert (got.status, got.cache, got.text) == (200, "HIT", "answer 1")


async def test_a_wrong_request_is_told_so_whatever_lies_in_other_samples(stage: Stage) -> None:
    gateway = await dice(stage, 2)
    await ask(gateway, 1)
    stage.upstream.script = saying({"error": {"message": "bad"}}, 400)
    assert (await gateway.chat()).status == 400


async def test_a_fallback_keeps_its_samples_apart(stage: Stage) -> None:
    spare = await stage.another_upstream()
    spare.script = named("spare")
    stage.upstream.script = saying({"error": {"message": "overloaded"}}, 503)
    pools = {
        "main": Pool(urls=[stage.upstream.url], fallback=["spare"]),
        "spare": Pool(urls=[spare.url]),
    }
    gateway = await stage.gateway(
        cache={"samples": 2, "ttl": 60.0}, gateway={"retries": 0}, upstreams=pools
    )
    keys = [(await gateway.chat()).headers["x-cache-key"] for _ in range(4)]
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]
    assert spare.calls == 2


async def test_askers_at_once_share_one_call_for_each_sample(stage: Stage) -> None:
    gateway = await dice(stage, 2)
    got = await asyncio.gather(*(gateway.chat() for _ in range(12)))
    assert stage.upstream.calls == 2
    assert sorted({each.text for each in got}) == ["answer 1", "answer 2"]


async def test_samples_lie_in_the_store_and_are_found_after_a_restart(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/s.db"}
    gateway = await dice(stage, 2, store=store)
    await ask(gateway, 2)
    gateway.assembly.shelf.flush(5.0)
    again = await dice(stage, 2, store=store)
    assert await ask(again, 3) == ["answer 1", "answer 2", "answer 1"]
    assert stage.upstream.calls == 2


async def test_a_preload_fills_all_samples_and_then_has_nothing_to_do(stage: Stage) -> None:
    gateway = await dice(stage)
    rows, _ = await send(gateway, [line("hi")])
    assert [(row["stored"], row["outcome"]) for row in rows] == [(True, "miss")]
    assert stage.upstream.calls == 3
    rows, _ = await send(gateway, [line("hi")])
    assert rows[0]["outcome"] == "hit"
    assert await ask(gateway, 3) == ["answer 1", "answer 2", "answer 3"]


async def test_explain_says_how_many_samples_are_there(stage: Stage) -> None:
    gateway = await dice(stage)
    await ask(gateway, 1)
    body = json.loads(line("hi"))["body"]
    told = (await gateway.post("/cache/explain", body, {"x-thinkonce-tenant": "anonymous"})).json
    assert told["would"] == "miss"
    assert told["note"] == "1 of 3 samples would be hits; this is number 2"
    assert told["nearest"] is None


async def test_an_export_carries_every_sample_to_another_secret(
    stage: Stage, tmp_path: Path
) -> None:
    gateway = await dice(stage, 2, store={"url": f"sqlite:///{tmp_path}/a.db"})
    await ask(gateway, 2)
    lines = (await gateway.get("/cache/export")).body
    other = await dice(stage, 2, store={"url": f"sqlite:///{tmp_path}/b.db"})
    path, sent = "/cache/import?into_tenant=anonymous", {"content-type": "application/jsonl"}
    assert (await other.send("POST", path, lines, sent)).status == 200
    assert await ask(other, 2) == ["answer 1", "answer 2"]


def test_turns_are_remembered_within_a_bound() -> None:
    samples = Samples(2)
    for name in range(MOST_REMEMBERED + 10):
        samples.advance(name)
    assert samples.remembered <= MOST_REMEMBERED
    assert samples.turn(MOST_REMEMBERED + 9) == 1
