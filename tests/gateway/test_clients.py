"""Known clients: who is let in, for which models, how often, and how much of theirs is kept."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, settings_of, until
from gateway.upstream import Out, Seen, chunks, completion, stream
from gateway.wire import asked, line
from thinkonce import settings as known
from thinkonce.cli import main
from thinkonce.clock import SYSTEM
from thinkonce.engine.tenants import Tenants
from thinkonce.gateway import clients as module
from thinkonce.gateway.team import OwnLimiters
from thinkonce.request.key import Keyer
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import Pools


@pytest.fixture
def way(all_ways: str) -> str:
    """Hits must be refused as misses are, whoever answers them."""
    return all_ways


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-own")


def client(key: str, **more: Any) -> known.Client:
    return known.Client(key_sha256=hashlib.sha256(key.encode()).hexdigest(), **more)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def guarded(stage: Stage, pool: dict[str, Any] | None = None, **clients: Any) -> Running:
    declared = Pool(urls=[stage.upstream.url], **({"api_key_env": "PROVIDER_KEY"} | (pool or {})))
    return await stage.gateway(
        upstreams={"main": declared}, clients=clients, clock=stage.moving.clock
    )


async def test_a_known_client_is_served_and_anybody_else_is_not(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    first = await gateway.chat(headers=bearer("tk-a"))
    assert (first.status, first.cache) == (200, "MISS")
    assert (await gateway.chat(headers=bearer("tk-a"))).cache == "HIT"
    for headers in ({}, bearer("tk-x"), bearer(""), {"authorization": "tk"}, {"x-api-key": "tk-x"}):
        for path in (CHAT, "/v1/messages", "/v1/embeddings", "/v1/files"):
            got = await gateway.post(path, {"model": "m", "messages": []}, headers)
            assert got.status == 401, (headers, path)
            assert got.headers["www-authenticate"] == "Bearer"
        assert (await gateway.get("/v1/models", headers)).status == 401
    got = await gateway.post("/v1/messages", {}, {})
    assert got.json["error"]["type"] == "authentication_error", "as its protocol says it"
    assert stage.upstream.calls == 1
    assert (await gateway.get("/healthz")).status == 200


async def test_a_key_is_one_client_in_whichever_header_it_comes(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    await gateway.chat(headers=bearer("tk-a"))
    for headers in (
        {"x-api-key": "tk-a"},
        {"api-key": "tk-a"},
        bearer("tk-a") | {"openai-organization": "org-7"},
    ):
        assert (await gateway.chat(headers=headers)).cache == "HIT", headers


async def test_the_gateways_keys_are_never_shown_to_an_upstream(stage: Stage) -> None:
    gateway = await guarded(stage, {"api_key_env": ""}, alice=client("tk-a"))
    sent = bearer("tk-a") | {"x-api-key": "sk-another"}
    await gateway.chat(headers=sent)
    await gateway.chat(headers=sent, kv_cache={"enabled": False})
    await gateway.post("/v1/embeddings", {"model": "m", "input": "x"}, sent)
    await gateway.get("/v1/files", sent)
    assert stage.upstream.calls == 4
    assert not [s for s in stage.upstream.seen if {"authorization", "x-api-key"} & set(s.headers)]


async def test_clients_share_answers_in_a_group_only(stage: Stage) -> None:
    gateway = await guarded(
        stage,
        alice=client("tk-a", group="team"),
        bob=client("tk-b", group="team"),
        carol=client("tk-c"),
        dave=client("tk-d"),
    )
    marks = [(await gateway.chat(headers=bearer(f"tk-{name}"))).cache for name in "abcd"]
    assert marks == ["MISS", "HIT", "MISS", "MISS"]


async def test_a_client_gets_its_models_only_hits_included(stage: Stage) -> None:
    gateway = await guarded(
        stage,
        alice=client("tk-a", group="team"),
        bob=client("tk-b", group="team", models=["gpt-*", "small"]),
    )
    await gateway.chat(model="big", headers=bearer("tk-a"))
    for _ in range(3):
        got = await gateway.chat(model="big", headers=bearer("tk-b"))
        assert (got.status, got.json["error"]["code"]) == (403, "model_not_allowed")
        assert "gpt-*, small" in got.json["error"]["message"]
    for model in ("gpt-9", "small"):
        assert (await gateway.chat(model=model, headers=bearer("tk-b"))).status == 200
    assert stage.upstream.calls == 3


async def test_no_odd_request_gets_past_the_limit_of_models(stage: Stage) -> None:
    gateway = await guarded(stage, {"account_paths": True}, bob=client("tk-b", models=["small"]))
    kind = {"content-type": "application/json", **bearer("tk-b")}
    twice = b'{"model": "big", "messages": [], "model": "small"}'
    attempts = [
        ("POST", CHAT, twice),
        ("POST", "/v1/messages/count_tokens", twice),
        ("POST", "/v1/messages/count_tokens", b'{"messages": []}'),
        *(
            ("POST", path, b'{"model": "small", %b, "messages": [], "input": "x"}' % more)
            for path in (CHAT, "/v1/embeddings", "/v1/moderations")
            for more in (
                b'"Model": "big"',
                b'"MODEL": "small"',
                b'"models": ["small", "big"]',
                b'"model\xc5\xbf": ["big"]',
                b'"route": "fallback"',
                b'"models": "small"',
            )
        ),
        ("POST", "/v1/audio/speech", b'{"model": "small"}'),
        ("POST", "/v1/batches", b'{"model": "small"}'),
        ("GET", "/v1/models/big", None),
        ("GET", "/v1/models/small/%2e%2e/big", None),
        ("DELETE", "/v1/models/small", None),
        ("GET", "/v1/chat/completions", None),
    ]
    for method, path, body in attempts:
        got = await gateway.send(method, path, body, kind)
        assert got.status == 403, (method, path, got.body)
    assert stage.upstream.calls == 0
    for path in ("/v1/models", "/v1/models/small"):
        assert (await gateway.get(path, bearer("tk-b"))).status == 200
    more = {"models": ["small", "small"], "route": "fallback"}
    assert (await gateway.chat(model="small", headers=bearer("tk-b"), **more)).status == 200


async def test_what_lies_in_the_account_is_not_for_clients_who_share_its_key(
    stage: Stage,
) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    for method, path in (
        ("GET", "/v1/files"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/models/ft:gpt"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/organization/admin_api_keys"),
    ):
        got = await gateway.send(method, path, None, bearer("tk-a"))
        assert (got.status, got.json["error"]["code"]) == (403, "path_not_allowed"), path
    assert stage.upstream.calls == 0
    assert (await gateway.send("POST", "/v1/audio/speech", b"{}", bearer("tk-a"))).status == 200
    opened = await guarded(stage, {"account_paths": True}, alice=client("tk-a"))
    assert (await opened.get("/v1/files", bearer("tk-a"))).status == 200


async def test_hits_count_against_the_rate_limit_too(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a", rate_limit=6), bob=client("tk-b"))
    statuses = [(await gateway.chat(headers=bearer("tk-a"))).status for _ in range(6)]
    assert statuses == [200] * 6
    got = await gateway.chat(headers=bearer("tk-a"))
    assert (got.status, got.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert got.headers["retry-after"] == "10"
    assert (await gateway.chat("other", headers=bearer("tk-a"))).status == 429, "misses as well"
    assert (await gateway.get("/v1/models", bearer("tk-a"))).status == 429, "and the rest"
    assert (await gateway.chat(headers=bearer("tk-b"))).status == 200, "others are not held up"
    stage.moving.move(9)
    assert (await gateway.chat(headers=bearer("tk-a"))).headers["retry-after"] == "1"
    stage.moving.move(1)
    assert (await gateway.chat(headers=bearer("tk-a"))).status == 200
    stage.moving.move(1e6)
    statuses = [(await gateway.chat(headers=bearer("tk-a"))).status for _ in range(7)]
    assert statuses == [200] * 6 + [429], "no more than a minute's worth is saved up"


async def test_an_answer_beyond_the_quota_is_given_and_not_kept(stage: Stage) -> None:
    async def large(seen: Seen, out: Out) -> None:
        if seen.json.get("stream"):
            await stream(out, chunks("x" * 3000))
        else:
            await out.json(completion("x" * 3000))

    stage.upstream.script = large
    gateway = await guarded(
        stage, alice=client("tk-a", max_bytes=20_000), bob=client("tk-b", group="team")
    )
    kept = []
    for number in range(10):
        got = await gateway.chat(str(number), headers=bearer("tk-a"))
        assert got.status == 200
        kept.append(got.json["kv_cache"]["stored"])
    assert kept == sorted(kept, reverse=True)
    assert 2 <= kept.count(True) <= 6
    assert got.json["kv_cache"]["not_stored"] == "quota"
    streamed = await gateway.chat("streamed", headers=bearer("tk-a"), stream=True)
    (note,) = [e["kv_cache"] for e in streamed.events if e != "[DONE]" and "kv_cache" in e]
    assert (note["stored"], note["not_stored"]) == (False, "quota")
    assert (await gateway.chat("0", headers=bearer("tk-a"))).cache == "HIT", "what is kept is kept"
    other = await gateway.chat("0", headers=bearer("tk-b"))
    assert other.json["kv_cache"]["stored"] is True, "the quota is one client's"
    await gateway.post("/cache/purge", {"all": True})
    stage.moving.move(11)
    got = await gateway.chat("again", headers=bearer("tk-a"))
    assert got.json["kv_cache"]["stored"] is True, "there is room again, and it is seen"


async def test_tags_and_names_count_in_the_quota(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a", max_bytes=60_000))
    tags = [f"{number:02}" + "t" * 250 for number in range(64)]
    said = {"tags": tags, "namespace": "n" * 1000}
    kept = []
    for number in range(6):
        got = await gateway.chat(str(number), headers=bearer("tk-a"), kv_cache=said)
        kept.append(got.json["kv_cache"]["stored"])
    assert kept == [True] * 2 + [False] * 4
    assert got.json["kv_cache"]["not_stored"] == "quota"
    streamed = await gateway.chat("s", headers=bearer("tk-a"), stream=True, kv_cache=said)
    (note,) = [e["kv_cache"] for e in streamed.events if e != "[DONE]" and "kv_cache" in e]
    assert note["not_stored"] == "quota"


async def test_a_quota_is_of_what_the_store_holds(
    stage: Stage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'answers.db'}"}
    declared = {"main": Pool(urls=[stage.upstream.url])}

    async def gateway(most: int) -> Running:
        clients = {"alice": client("tk-a", max_bytes=most)}
        return await stage.gateway(upstreams=declared, clients=clients, store=store)

    roomy = await gateway(1_000_000)
    await roomy.chat("one", headers=bearer("tk-a"))
    roomy.assembly.shelf.flush(10)
    tight = await gateway(800)
    got = await tight.chat("two", headers=bearer("tk-a"))
    assert got.json["kv_cache"]["not_stored"] == "quota", "another process's entries count"


async def test_a_reload_takes_clients_up_and_drops_them(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a", rate_limit=2), bob=client("tk-b"))
    for key in ("tk-a", "tk-b", "tk-b"):
        assert (await gateway.chat(headers=bearer(key))).status == 200
    upstreams = {"main": Pool(urls=[stage.upstream.url], api_key_env="PROVIDER_KEY")}
    clients = {"alice": client("tk-a", rate_limit=2), "carol": client("tk-c")}
    settings = settings_of(upstreams, clients=clients)
    gateway.assembly.adopt(settings, Pools.of(settings.upstreams))
    assert (await gateway.chat(headers=bearer("tk-b"))).status == 401, "hits of the lane included"
    assert (await gateway.chat(headers=bearer("tk-c"))).status == 200
    statuses = [(await gateway.chat(headers=bearer("tk-a"))).status for _ in range(2)]
    assert statuses == [200, 429], "a reload gives nobody a new allowance"


async def test_a_stranger_is_told_before_the_body_is_read(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    async with line(gateway) as caller:
        await caller.send(head.encode())
        assert await caller.status() == 401
    await until(lambda: gateway.assembly.metrics.inflight == 0)


async def test_a_client_of_a_group_is_found_by_its_group(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a", group="team"))
    await gateway.chat(headers=bearer("tk-a"))
    (entry,) = gateway.assembly.shelf.memory.map.values()
    asked = {"model": "priced", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": asked}
    sent = {"content-type": "application/json", "x-thinkonce-group": "team"}
    got = await gateway.send("POST", "/cache/preload", json.dumps(line).encode(), sent)
    rows = [json.loads(row) for row in got.body.splitlines()]
    assert rows[0]["outcome"] == "hit", rows
    assert entry.meta.tenant


def test_a_key_is_told_from_many_by_all_of_it() -> None:
    rows = {str(number): client(f"tk-{number}") for number in range(5)}
    tenants = Tenants(Keyer(b"s" * 32), {}, rows)
    found = module.Clients(rows, tenants, SYSTEM, lambda tenant: 0, OwnLimiters())
    for key in ("tk-0", "tk-4", "tk-9", "tk-", "tk-00"):
        got = found.find([(b"authorization", b"Bearer " + key.encode())])
        assert (got and got.name) == (key[-1] if key in ("tk-0", "tk-4") else None)


async def test_what_a_stranger_had_stored_before_is_not_given_to_it_any_more(stage: Stage) -> None:
    upstreams = {"main": Pool(urls=[stage.upstream.url])}
    gateway = await stage.gateway(upstreams=upstreams)
    assert (await gateway.chat(headers=bearer("sk-old"))).status == 200
    settings = settings_of(upstreams, clients={"alice": client("tk-a")})
    gateway.assembly.adopt(settings, Pools.of(upstreams))
    for _ in range(3):  # the lane knows its head by then
        assert (await gateway.chat(headers=bearer("sk-old"))).status == 401


async def test_vectors_count_in_the_quota_and_in_the_rate_limit(stage: Stage) -> None:
    async def embed(seen: Seen, out: Out) -> None:
        inputs = seen.json["input"]
        rows = [
            {"object": "embedding", "index": place, "embedding": [0.5] * 300}
            for place in range(len(inputs))
        ]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        await out.json({"object": "list", "data": rows, "model": "e", "usage": usage})

    stage.upstream.script = embed
    gateway = await guarded(
        stage,
        alice=client("tk-a", max_bytes=1),
        bob=client("tk-b", rate_limit=1),
    )
    asked = {"model": "e", "input": ["one", "two"]}
    for _ in range(2):
        assert (await gateway.post("/v1/embeddings", asked, bearer("tk-a"))).status == 200
    assert stage.upstream.calls == 2, "nothing was kept"
    statuses = [(await gateway.post("/v1/embeddings", asked, bearer("tk-b"))).status for _ in "ab"]
    assert statuses == [200, 429]


async def test_what_is_kept_of_a_request_counts_towards_its_client_s_bytes(stage: Stage) -> None:
    noise = base64.b64encode(random.Random(2).randbytes(30_000)).decode()
    gateway = await guarded(stage, alice=client("tk-a", max_bytes=20_000))
    got = await gateway.chat(noise, headers=bearer("tk-a"))
    assert got.headers.get("x-cache-not-stored") == "quota"


async def test_what_a_client_uses_is_found_by_its_name(
    stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path / 'a.db'}", "secret": "s" * 32}
    alice = client("tk-a")
    gateway = await stage.gateway(
        store=store,
        clients={"alice": alice},
        gateway={"access_log": True},
        log={"format": "json"},
        clock=stage.moving.clock,
    )
    for _ in range(2):
        await gateway.chat(headers=bearer("tk-a"))
    gateway.assembly.access_log.flush()
    rows = list(map(json.loads, capsys.readouterr().err.splitlines()))
    assert [(row["outcome"], row["client"]) for row in rows] == [
        ("miss", "alice"),
        ("hit", "alice"),
    ]
    by_tenant = (await gateway.get("/cache/stats")).json["savings"]["by_tenant"]
    ((tenant, saved),) = by_tenant.items()
    assert (saved["clients"], saved["calls"]) == (["alice"], 1)
    assert await asyncio.to_thread(main, ["stats", "--url", gateway.url]) == 0
    assert f"{tenant} (alice)" in capsys.readouterr().out
    config = tmp_path / "thinkonce.toml"
    config.write_text(
        f'[store]\nurl = "{store["url"]}"\nsecret = "{store["secret"]}"\n'
        f'[clients.alice]\nkey_sha256 = "{alice.key_sha256}"\n'
    )
    assert await asyncio.to_thread(main, ["keys", "list", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tenant"] == tenant


async def test_more_credentials_than_headers_for_them_are_refused_unread(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    looked: list[bytes] = []
    monkeypatch.setattr(module, "digest_of", lambda value: looked.append(value) or "")
    async with line(gateway) as wire:
        await wire.send(asked(more="api-key: a\r\n" * 5000))
        assert await wire.answer() != ("200", b"")
    async with line(gateway) as wire:
        assert await wire.ask(asked(more="api-key: a\r\n" * 4)) == "400"
    assert looked == []
    assert stage.upstream.calls == 0


async def test_a_key_is_found_among_those_of_three_headers(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a"))
    sent = {"authorization": "Bearer other", "x-api-key": "tk-a", "api-key": "another"}
    assert (await gateway.chat(headers=sent)).status == 200


async def test_a_limited_client_is_not_told_which_models_others_may_use(stage: Stage) -> None:
    limited = client("tk-a", models=["mine-*"])
    pool = {"models": ["secret-project", "mine-1"]}
    gateway = await guarded(stage, pool, alice=limited, bob=client("tk-b"))
    for model, status in (("mine-2", 404), ("other", 403)):
        got = await gateway.chat(headers=bearer("tk-a"), model=model)
        assert got.status == status
        assert "secret-project" not in got.body.decode()
    told = await gateway.chat(headers=bearer("tk-b"), model="other")
    assert told.status == 404
    assert "secret-project" in told.body.decode()


async def test_a_client_taken_away_while_its_body_comes_is_not_served(stage: Stage) -> None:
    gateway = await guarded(stage, alice=client("tk-a"), bob=client("tk-b"))
    assert (await gateway.chat(headers=bearer("tk-a"))).status == 200
    sent = asked("x" * 1_000_000, more="authorization: Bearer tk-a")
    async with line(gateway) as wire:
        await wire.send(sent[:500_000])
        await until(lambda: gateway.assembly.metrics.inflight == 1)
        upstreams = {"main": Pool(urls=[stage.upstream.url], api_key_env="PROVIDER_KEY")}
        settings = settings_of(upstreams, clients={"bob": client("tk-b")})
        gateway.assembly.adopt(settings, Pools.of(upstreams))
        assert await wire.ask(sent[500_000:]) == "401"
    assert stage.upstream.calls == 1
    assert (await gateway.chat(headers=bearer("tk-b"))).status == 200
