"""The gateway's own key: sent as its pool's dialect wants it, seen nowhere else."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import CHAT, Running, Stage, settings_of
from gateway.test_servers import saying
from gateway.upstream import Out, Seen, Upstream, completion
from gateway.upstream import saying as answered
from thinkonce import settings as known
from thinkonce.errors import ConfigError
from thinkonce.gateway.assembly import assemble
from thinkonce.gateway.clients import check_guarded
from thinkonce.gateway.readiness import open_to_proxies
from thinkonce.settings import Upstream as Pool
from thinkonce.upstream.pools import Pools

KEY = "sk-own-7f3a"
ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", f" {KEY}\n")


def paid(upstream: Upstream, **more: Any) -> dict[str, Pool]:
    return {"main": Pool(urls=[upstream.url], api_key_env="PROVIDER_KEY", **more)}


async def test_openais_way_is_a_bearer(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=paid(stage.upstream))
    sent = {"authorization": "Bearer mine", "x-api-key": "mine", "openai-organization": "org-1"}
    assert (await gateway.chat(headers=sent)).status == 200
    seen = stage.upstream.seen[0].headers
    assert seen["authorization"] == f"Bearer {KEY}"
    assert "mine" not in str(seen)
    assert "openai-organization" not in seen, "it names an account of the client's"


async def test_anthropics_way_is_a_header_of_its_own_and_a_version(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=paid(stage.upstream, dialect="anthropic"))
    await gateway.post("/v1/messages", ASKED)
    await gateway.post("/v1/messages", ASKED, {"anthropic-version": "2099-01-01"})
    first, second = (seen.headers for seen in stage.upstream.seen)
    assert (first["x-api-key"], first["anthropic-version"]) == (KEY, "2023-06-01")
    assert second["anthropic-version"] == "2099-01-01"
    assert "authorization" not in first


async def test_it_is_sent_where_nothing_is_cached_too(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=paid(stage.upstream))
    await gateway.get("/v1/models")
    await gateway.chat(kv_cache={"enabled": False})
    await gateway.post("/v1/embeddings", {"model": "m", "input": "hi"})
    assert [seen.headers["authorization"] for seen in stage.upstream.seen] == [f"Bearer {KEY}"] * 3


async def test_a_fallback_answers_with_its_own_key(stage: Stage) -> None:
    spare = await stage.another_upstream()
    stage.upstream.script = saying(503)
    pools = {
        "main": Pool(urls=[stage.upstream.url], fallback=["spare"]),
        "spare": Pool(urls=[spare.url], api_key_env="PROVIDER_KEY"),
    }
    gateway = await stage.gateway(upstreams=pools)
    got = await gateway.chat(headers={"authorization": "Bearer mine"})
    assert (got.status, got.headers["x-thinkonce-fallback"]) == (200, "spare")
    assert stage.upstream.seen[0].headers["authorization"] == "Bearer mine"
    assert spare.seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_it_is_in_no_log_no_repr_no_metric_and_no_entry(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await stage.gateway(upstreams=paid(stage.upstream), gateway={"access_log": True})
    out = io.StringIO()
    gateway.assembly.access_log._out = out
    await gateway.chat()
    stage.upstream.script = saying(500)
    await gateway.chat("fails")
    gateway.assembly.access_log.flush()
    entries = list(gateway.assembly.shelf.memory.map.values())
    told = (await gateway.get("/metrics")).body + (await gateway.get("/cache/entries")).body
    said = [out.getvalue(), caplog.text, repr(gateway.assembly.pools.all), repr(entries)]
    assert len(entries) == 1
    assert KEY not in "".join([*said, told.decode(), *(repr(e.payload) for e in entries)])


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
async def test_a_variable_without_a_key_is_named_and_its_value_is_not(
    stage: Stage, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROVIDER_KEY")
    if value is not None:
        monkeypatch.setenv("PROVIDER_KEY", value)
    settings = settings_of(paid(stage.upstream))
    with pytest.raises(ConfigError, match=r"\[upstreams.main\] api_key_env='PROVIDER_KEY'") as e:
        assemble(settings, Pools.of(settings.upstreams))
    assert "lines" not in str(e.value)
    assert "schlüssel" not in str(e.value)


async def test_without_known_clients_only_this_machine_is_served(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=paid(stage.upstream))
    for headers in ({"host": "rebound.example"}, {"x-forwarded-for": "9.9.9.9"}):
        for _ in range(2):
            got = await gateway.chat(headers=headers)
            assert (got.status, got.json["error"]["code"]) == (403, "forbidden")
    assert stage.upstream.calls == 0
    assert (await gateway.chat()).status == 200
    got = await gateway.chat(headers={"host": "rebound.example"})
    assert got.status == 403, "a hit is not for strangers either"
    for headers in ({"connection": "close"}, {"cdn-loop": "other"}, {"x-varnish": "7"}):
        assert (await gateway.chat(headers=headers)).status == 403


async def test_a_page_of_this_machine_uses_it_where_it_is_named_and_others_do_not(
    stage: Stage,
) -> None:
    page = "http://localhost:3000"
    for origins, status in (([], 403), (["http://localhost:4000"], 403), ([page], 200)):
        gateway = await stage.gateway(
            upstreams=paid(stage.upstream), gateway={"cors_origins": origins}
        )
        headers = {"origin": page, "sec-fetch-site": "same-site"}
        assert (await gateway.chat(headers=headers)).status == status
        assert (await gateway.get("/cache/stats", headers)).status == 403, "never /cache"


async def test_a_page_elsewhere_does_not_use_its_key_be_it_named(stage: Stage) -> None:
    page = "https://chat.example"
    gateway = await stage.gateway(upstreams=paid(stage.upstream), gateway={"cors_origins": [page]})
    assert (await gateway.chat(headers={"origin": page})).status == 403


def test_what_a_proxy_could_lay_open_is_said(stage: Stage, tmp_path: Path) -> None:
    own, free = paid(stage.upstream), {"main": Pool(urls=["http://h"])}
    store = {"url": f"sqlite:///{tmp_path}/a.db"}
    assert open_to_proxies(settings_of(free)) == ""
    assert open_to_proxies(settings_of(free, store=store)) == ""
    assert "[admin] token" in open_to_proxies(settings_of(own))
    assert "[clients]" in open_to_proxies(settings_of(own))
    (tmp_path / "a.db").touch()
    assert "[admin] token" in open_to_proxies(settings_of(free, store=store))
    assert open_to_proxies(settings_of(own, store=store, admin={"token": "a-long-token"})) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "gateway.example", "10.0.0.1", ""])
def test_it_does_not_start_where_strangers_could_use_its_key(host: str) -> None:
    pools = {"main": Pool(urls=["http://h"], api_key_env="PROVIDER_KEY")}
    settings = settings_of(pools, gateway={"host": host})
    with pytest.raises(ConfigError, match="keys add"):
        check_guarded(settings)
    check_guarded(settings_of(pools, gateway={"host": "127.0.0.1"}))
    check_guarded(settings_of({"main": Pool(urls=["http://h"])}, gateway={"host": host}))
    clients = {"a": known.Client(key_sha256="a" * 64)}
    check_guarded(settings_of(pools, gateway={"host": host}, clients=clients))


async def test_a_reload_without_the_key_changes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway: Running = await stage.gateway(upstreams=paid(stage.upstream))
    settings = settings_of(
        {"main": Pool(urls=[stage.upstream.url], api_key_env="ANOTHER")}, cache={"ttl": 1.0}
    )
    with pytest.raises(ConfigError):
        gateway.assembly.adopt(settings, Pools.of(settings.upstreams))
    assert gateway.assembly.shelf.setting.rules.ttl == 3600
    await gateway.post(CHAT, ASKED)
    assert stage.upstream.seen[0].headers["authorization"] == f"Bearer {KEY}"


LONG = "sk-own-7f3a-0123456789"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_200_that_repeats_it_is_passed_on_without_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", LONG)
    error = {"error": {"message": f"Incorrect API key provided: {LONG}"}}

    async def echo(seen: Seen, out: Out) -> None:
        if stream:
            await out.begin_stream(x_ratelimit_key=LONG)
            await out.event(error)
            await out.end()
        else:
            await out.json(error, x_ratelimit_key=LONG)

    stage.upstream.script = echo
    gateway = await stage.gateway(upstreams=paid(stage.upstream))
    got = await gateway.chat(stream=stream)
    assert "Incorrect API key provided: ***" in got.body.decode()
    assert LONG not in got.body.decode() + str(got.headers)


async def test_a_key_that_is_a_word_stays_a_word_in_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "EMPTY")
    stage.upstream.script = answered(completion("the list is EMPTY"))
    gateway = await stage.gateway(upstreams=paid(stage.upstream))
    assert (await gateway.chat()).text == "the list is EMPTY"
