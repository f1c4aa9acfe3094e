"""What clients choose makes no memory grow without end: names, keys, headers, addresses, models."""

from __future__ import annotations

import json
from collections.abc import Sized
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage
from gateway.upstream import Out, Seen, Upstream, completion
from gateway.wire import asked, line
from thinkonce.engine import memo
from thinkonce.gateway import counts, fastlane
from thinkonce.gateway.counts import MAX_MODELS, Counts
from thinkonce.insight import savings
from thinkonce.request import key

FLOOD, BOUND = 150, 20


@pytest.fixture(params=["lane", pytest.param("asgi", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def small(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A gateway that remembers little of everything."""
    monkeypatch.setattr(memo, "MAX_NAMES", BOUND)
    monkeypatch.setattr(memo, "MAX_KNOWN", BOUND)
    monkeypatch.setattr(counts, "MAX_MODELS", BOUND)
    monkeypatch.setattr(key, "_MAX_TENANTS", BOUND)
    monkeypatch.setattr(savings, "MOST_KNOWN", BOUND)
    monkeypatch.setattr(savings, "KEPT_NAMES", BOUND // 2)
    monkeypatch.setattr(savings, "MOST_NAMES", BOUND)
    gateway = await stage.gateway(cache={"max_size": BOUND})
    gateway.assembly.world.refusals._capacity = BOUND
    return gateway


def remembered(gateway: Running) -> dict[str, Sized]:
    """Every table of a running gateway whose keys clients choose."""
    assembly = gateway.assembly
    endpoint: Any = assembly.gateway.cached[CHAT]
    found: dict[str, Sized] = {
        "entries": assembly.shelf.memory.map,
        "sets of headers": endpoint.memo._known,
        "names of headers": endpoint.memo._matters,
        "tenants": assembly.shelf.keyer._tenants,
        "calls under way": assembly.shelf.flights,
        "paces": assembly.world._paces,
        "refusals": assembly.world.refusals,
        "models": assembly.metrics._models,
        "accounts": assembly.metrics.savings._known,
        "peers": gateway.edge,
    }
    book = assembly.metrics.savings.collect().rows
    found |= {f"savings by {name}": rows for name, rows in book.items()}
    return found


async def test_a_flood_of_new_names_leaves_every_table_within_its_bound(
    small: Running, upstream: Upstream
) -> None:
    for number in range(FLOOD):
        body = {
            "model": f"model-{number}",
            "messages": [{"role": "user", "content": f"{number}"}],
            "kv_cache": {"namespace": f"space-{number}", "tags": [f"tag-{number}"]},
        }
        headers = {
            "authorization": f"Bearer key-{number}",
            f"x-odd-{number}": "1",
            "user-agent": f"agent {number}",
        }
        for _ in range(2):
            assert (await small.post(CHAT, body, headers)).status == 200
    for number in range(FLOOD):
        await small.chat(f"refused {number}", max_tokens=number, n=2)
    for name, table in remembered(small).items():
        assert len(table) <= BOUND + 2, name
    endpoint: Any = small.assembly.gateway.cached[CHAT]
    parts, lane = endpoint._teller.parts, small.assembly.lane
    assert parts.bytes <= parts.max_bytes, "these are bounded in bytes"
    assert endpoint.memo._bytes <= endpoint.memo._max_bytes
    assert lane._bytes <= fastlane.MAX_BYTES


async def test_what_is_not_storable_is_refused_by_key_and_forgotten(
    small: Running, upstream: Upstream
) -> None:
    upstream.script = lambda seen, out: out.json(completion(finish="length"))
    for number in range(FLOOD):
        await small.chat(f"{number}")
    assert len(small.assembly.world.refusals) == BOUND


async def test_large_names_are_used_and_not_remembered(
    gateway: Running, upstream: Upstream
) -> None:
    """A bound on how many there are would be none on their bytes."""
    tenants = gateway.assembly.shelf.keyer._tenants
    endpoint: Any = gateway.assembly.gateway.cached[CHAT]
    async with line(gateway) as client:
        more = f"authorization: Bearer {'k' * 20_000}\nx-{'n' * 10_000}: 1"
        assert await client.ask(asked(more=more)) == "MISS"
        assert await client.ask(asked(more=more)) == "HIT"
    assert sum(len(value) for credential in tenants for _, value in credential) < 10_000
    assert max(map(len, endpoint.memo._matters)) <= memo.MAX_NAME_BYTES
    got = await gateway.chat(model="m" * 2000)
    assert (got.status, json.loads(got.body)["error"]["param"]) == (400, "model")


def test_ten_thousand_models_are_a_few_labels() -> None:
    metrics = Counts()
    metrics.know(["configured"])
    for number in range(10_000):
        metrics.learn_model(f"model-{number}")
        metrics.count(("chat/completions", metrics.model(f"model-{number}"), "hit", "exact"), 0.1)
    assert len(metrics.counted.requests) <= MAX_MODELS + 1
    assert metrics.model("configured") == "configured"
    assert metrics.counted.requests["chat/completions", "other", "hit", "exact"] > 9_000


@pytest.mark.slow
async def test_ten_thousand_models_over_http_leave_the_metrics_page_small(
    stage: Stage, upstream: Upstream
) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "no such model"}}, 404)

    gateway = await stage.gateway()
    for number in range(10_000):
        upstream.script = refuse if number % 2 else (lambda seen, out: out.json(completion()))
        await gateway.chat(model=f"model-{number}")
    page = (await gateway.get("/metrics")).body
    assert page.count(b'model="') <= 2 * (MAX_MODELS + 1)
    assert len(page) < 100_000
