"""The page of a real gateway: what docs/metrics.md says is what a scraper reads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen
from thinkonce import settings as known
from thinkonce.entry import Meta
from thinkonce.gateway.metrics import FAMILIES, PREFIX
from thinkonce.likeness import Wording
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.eligible import Ineligible
from thinkonce.meaning.verdict.ruling import Judged, Ruling
from thinkonce.version import __version__

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
Rows = dict[str, tuple[str, tuple[str, ...]]]  # name -> type and labels


async def busy(stage: Stage, tmp_path: Path) -> Running:
    """A gateway in which every metric has something to tell."""
    store = {"url": f"sqlite:///{tmp_path / 'answers.db'}"}
    gateway = await stage.gateway(store=store, semantic={"enabled": True})
    for content in ("one", "one", "two"):
        got = await gateway.chat(content)
    await gateway.send("POST", "/v1/chat/completions", b"{", {"content-type": "application/json"})
    key = got.headers["x-cache-key"]
    await gateway.post(f"/cache/entries/{key}/feedback", {"wrong": True})
    gateway.assembly.metrics.tier_failed("sqlite")
    gateway.assembly.metrics.limited("rate_limit")
    gateway.assembly.metrics.counted.connections_ended["idle"] = 1
    await asyncio.to_thread(compare, gateway)
    return gateway


def compare(gateway: Running) -> None:
    """A question that nothing answers, with a veto, and one that is never compared."""
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    found = meaning.examine(Wording("How do I reset 2 passwords?", b"p" * 32), Meta(), None)
    judged = Judged(b"k" * 32, "How do I reset 3 passwords?", 0.9, (Veto.NUMBER,))
    meaning.counts.found(replace(found, why="guard", ruling=Ruling((judged,))))
    meaning.counts.passed_over(Ineligible.CODE)


def documented() -> Rows:
    rows: Rows = {}
    of_gateway = PAGE.read_text(encoding="utf-8").partition("\n## The model server\n")[0]
    for line in of_gateway.splitlines():
        if line.startswith(f"| `{PREFIX}"):
            name, kind, labels = (cell.strip() for cell in line.split("|")[1:4])
            named = tuple(label.strip(" `") for label in labels.split(",") if label)
            rows[name.strip("`")] = (kind, named)
    return rows


def told(text: str) -> Rows:
    rows: Rows = {}
    for family in text_string_to_metric_families(text):
        total = family.type == "counter" and not family.name.endswith("_total")
        name = f"{family.name}_total" if total else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        rows[name] = (family.type, tuple(labels))
    return rows


async def test_the_page_tells_what_the_documentation_says(stage: Stage, tmp_path: Path) -> None:
    gateway = await busy(stage, tmp_path)
    got = await gateway.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    found, expected = told(got.body.decode()), documented()
    assert found.keys() == expected.keys()
    for name, (kind, labels) in expected.items():
        assert found[name][0] == kind, name
        assert set(found[name][1]) == set(labels), name


def test_the_documentation_is_made_of_the_definitions() -> None:
    expected = {PREFIX + each.name: (each.kind, each.labels) for each in FAMILIES}
    assert documented() == expected


async def test_openmetrics_is_told_to_who_asks_for_it(stage: Stage, tmp_path: Path) -> None:
    gateway = await busy(stage, tmp_path)
    accept = "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"
    got = await gateway.get("/metrics", {"accept": accept})
    assert got.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    text = got.body.decode()
    assert text.endswith("# EOF\n")
    found = {family.name for family in open_families(text)}
    assert found == {PREFIX + each.name.removesuffix("_total") for each in FAMILIES}


async def test_the_contracts_numbers_add_up(stage: Stage, tmp_path: Path) -> None:
    gateway = await busy(stage, tmp_path)
    for name, expected in {
        "requests_total": 4,
        "saved_calls_total": 1,
        "saved_tokens_total": 18,
        "request_seconds_count": 4,
        "upstream_seconds_count": 2,
        "upstream_requests_total": 2,
        "upstream_failures_total": 0,
        "entries": 2,  # one entry in two tiers
        "tier_errors_total": 1,
        "store_dropped_total": 0,
        "inflight": 1,  # the scrape itself
    }.items():
        assert await gateway.metric(PREFIX + name) == expected, name
    text = (await gateway.get("/metrics")).body.decode()
    assert f'version="{__version__}"' in text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"{}", {"content-encoding": "zstd"}, 415),
        (b"x" * 2000, {}, 413),
    ],
    ids=["no-json", "coding", "too-large"],
)
async def test_a_refusal_is_counted_by_its_status(
    stage: Stage, body: bytes, headers: dict[str, str], status: int
) -> None:
    gateway = await stage.gateway(gateway={"body_limit": 1024})
    sent = {"content-type": "application/json"} | headers
    got = await gateway.send("POST", "/v1/chat/completions", body, sent)
    assert got.status == status
    text = (await gateway.get("/metrics")).body.decode()
    assert f'thinkonce_refused_total{{by="gateway",status="{status}"}} 1.0' in text


async def test_unknown_clients_and_too_many_requests_are_counted(stage: Stage) -> None:
    digest = sha256(b"sk-known").hexdigest()
    gateway = await stage.gateway(clients={"one": known.Client(key_sha256=digest, rate_limit=1)})
    for key, status in (("sk-nobody", 401), ("sk-known", 200), ("sk-known", 429)):
        got = await gateway.chat(headers={"authorization": f"Bearer {key}"})
        assert got.status == status, got.body
    text = (await gateway.get("/metrics")).body.decode()
    for refused in (401, 429):
        assert f'thinkonce_refused_total{{by="gateway",status="{refused}"}} 1.0' in text


async def test_a_refusal_of_the_upstream_is_told_apart_from_ours(
    gateway: Running, stage: Stage
) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "slow down"}}, status=429)

    stage.upstream.script = refuse
    assert (await gateway.chat()).status == 429
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_refused_total{by="upstream",status="429"} 1.0' in text


async def test_a_servers_failures_and_its_open_circuit_show(stage: Stage) -> None:
    upstreams = {"main": known.Upstream(urls=[stage.upstream.url], breaker_failures=2)}
    gateway = await stage.gateway(upstreams=upstreams, gateway={"retries": 0})

    async def broken(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "down"}}, status=500)

    stage.upstream.script = broken
    for n in range(2):
        await gateway.chat(str(n))
    assert await gateway.metric("thinkonce_upstream_failures_total") == 2
    assert await gateway.metric("thinkonce_upstream_requests_total") == 2
    assert await gateway.metric("thinkonce_upstream_open") == 1
    text = (await gateway.get("/metrics")).body.decode()
    port = stage.upstream.url.split(":")[2].split("/")[0]
    assert f'thinkonce_upstream_open{{pool="main",server="127.0.0.1:{port}"}} 1.0' in text


async def test_models_that_clients_invent_share_a_label(gateway: Running, stage: Stage) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "no such model"}}, status=404)

    stage.upstream.script = refuse
    await asyncio.gather(*(gateway.chat(model=f"invented-{n}") for n in range(20)))
    text = (await gateway.get("/metrics")).body.decode()
    assert "invented" not in text
    assert 'model="other"' in text


async def test_a_hit_has_its_models_name_where_another_worker_has_seen_it_served(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'shared.db'}", "secret": "s" * 32}
    one = await stage.gateway(store=store)
    await one.chat(model="gpt-4o")
    shared = one.assembly.shelf.store
    assert shared is not None
    shared.flush(10)
    other = await stage.gateway(store=store)
    for tier in ("sqlite", "memory"):
        got = await other.chat(model="gpt-4o")
        assert (got.cache, got.headers["x-cache-tier"]) == ("HIT", tier)
    text = (await other.get("/metrics")).body.decode()
    assert 'model="gpt-4o",outcome="hit"' in text
    assert 'model="other"' not in text
