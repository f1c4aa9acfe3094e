"""Who may look into a running gateway, and what they see and change there."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.conftest import Running, Stage
from gateway.wire import line
from thinkonce import Cache, TierError
from thinkonce.cli.gateway_view import GatewayView
from thinkonce.cli.view import Chosen, Purged
from thinkonce.entry import Entry, Meta
from thinkonce.tiers.breaker import StoreBreaker
from thinkonce.tiers.tier import Key, TierStats


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
        {"host": "[::1"},
        {"origin": "http://["},
        {"cf-connecting-ip": "127.0.0.1"},
        {"x-real-ip": "127.0.0.1"},
        {"x-forwarded-proto": "https"},
        {"x-forwarded-port": "443"},
        {"x-forwarded-server": "front"},
        {"sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1.nip.io:8000"},
        {"host": "localhost.evil.example"},
        {"host": "169.254.169.254"},
        {"host": "0.0.0.0:8000"},
        {"host": ""},
        {"origin": "http://127.0.0.1.evil.example"},
        {"x-forwarded-host": "127.0.0.1"},
        {"x-forwarded-prefix": "/"},
        {"X-Forwarded-Anything-New": "1"},
        {"connection": "close"},
        {"connection": "Keep-Alive, Close"},
        {"true-client-ip": "127.0.0.1"},
        {"x-client-ip": "127.0.0.1"},
        {"fly-client-ip": "127.0.0.1"},
        {"cf-ray": "1"},
        {"cdn-loop": "other"},
        {"x-original-forwarded-for": "127.0.0.1"},
        {"x-cluster-client-ip": "127.0.0.1"},
        {"x-azure-clientip": "127.0.0.1"},
        {"x-envoy-external-address": "127.0.0.1"},
        {"x-varnish": "1"},
        {"x-scheme": "https"},
        {"forwarded-for": "127.0.0.1"},
        {"x-proxyuser-ip": "127.0.0.1"},
        {"wl-proxy-client-ip": "127.0.0.1"},
        {"proxy-connection": "keep-alive"},
        {"tailscale-user-login": "somebody"},
        {"x-nf-client-connection-ip": "127.0.0.1"},
        {"remote-addr": "127.0.0.1"},
        {"host": "evil@127.0.0.1"},
        {"host": "user:pass@localhost:8000"},
        {"host": "[::1%25evil]"},
        {"host": "[::1%evil]:8000"},
        {"host": "localhost:8000/path"},
        {"host": "localhost, evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": ""},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": ""},
    ],
)
async def test_without_a_token_only_callers_on_this_machine_may(
    gateway: Running, headers: dict[str, str]
) -> None:
    assert (await gateway.get("/cache/stats")).status == 200
    got = await gateway.get("/cache/stats", headers)
    assert got.status == 403
    assert "[admin] token" in got.json["error"]["message"]
    purge = await gateway.post("/cache/purge", {"all": True}, headers)
    assert purge.status == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "127.9.9.9:1"])
async def test_every_loopback_name_counts_as_this_machine(gateway: Running, host: str) -> None:
    assert (await gateway.get("/cache/stats", {"host": host})).status == 200


async def test_what_browsers_curl_and_our_commands_send_counts_as_this_machine(
    gateway: Running,
) -> None:
    own = {"sec-fetch-site": "same-origin", "origin": gateway.url}
    typed = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-ch-ua-platform": "Linux"}
    for headers in (own, typed, {"connection": "keep-alive"}, {"accept": "*/*"}):
        assert (await gateway.get("/cache/stats", headers)).status == 200
        assert (await gateway.post("/cache/purge", {"all": True}, headers)).status == 200
    with GatewayView(gateway.url) as view:
        assert await asyncio.to_thread(view.stats)
        assert await asyncio.to_thread(view.purge, Chosen(all=True)) == Purged(0)


async def test_an_origin_is_the_gateways_own_by_its_scheme_name_and_port(gateway: Running) -> None:
    port = gateway.url.rpartition(":")[2]
    for host, origin, status in (
        (f"localhost:{port}", f"http://LOCALHOST:{port}", 200),
        ("localhost", "http://localhost:80", 200),
        ("localhost:80", "http://localhost", 200),
        ("[::1]:9", "http://[::1]:9", 200),
        (f"localhost:{port}", f"https://localhost:{port}", 403),
        (f"localhost:{port}", f"http://127.0.0.1:{port}", 403),
        (f"localhost:{port}", "http://localhost", 403),
        (f"localhost:{port}", f"http://localhost:{port}/", 403),
        (f"localhost:{port}", f"http://somebody@localhost:{port}", 403),
    ):
        got = await gateway.get("/cache/stats", {"host": host, "origin": origin})
        assert got.status == status, (host, origin)


async def test_a_request_as_nginx_sends_it_on_by_default_is_not_local(gateway: Running) -> None:
    host = gateway.url.removeprefix("http://")
    for version, more in (
        ("1.0", "Connection: close\r\n"),
        ("1.0", ""),
        ("0.9", ""),
        ("2.0", ""),
        ("1.1", ""),
    ):
        async with line(gateway) as to:
            head = f"GET /cache/export HTTP/{version}\r\nHost: {host}\r\n{more}\r\n"
            await to.send(head.encode())
            first = (await to.reader.readuntil(b"\r\n")).split()[1]
            assert first == (b"200" if version == "1.1" else b"403")


async def test_a_target_with_a_name_of_its_own_stands_for_host(gateway: Running) -> None:
    ending = b" HTTP/1.1\r\nHost: %b\r\n\r\n"
    for target, host, status in (
        (b"http://evil.example/cache/stats", b"127.0.0.1", 403),
        (b"http://evil@127.0.0.1/cache/stats", b"127.0.0.1", 403),
        (b"http://127.0.0.1/cache/stats", b"evil.example", 200),
        (b"http://localhost:1/cache/stats", b"localhost:1", 200),
    ):
        async with line(gateway) as to:
            await to.send(b"GET " + target + ending % host)
            assert (await to.status()) == status, target


async def test_with_a_token_it_alone_decides(stage: Stage) -> None:
    gateway = await stage.gateway(admin={"token": "a-long-token"})
    assert (await gateway.get("/cache/stats")).status == 403
    wrong = {"x-thinkonce-admin-token": "a-long-tokem"}
    assert (await gateway.get("/cache/stats", wrong)).status == 403
    right = {"x-thinkonce-admin-token": "a-long-token", "x-forwarded-for": "10.0.0.1"}
    assert (await gateway.get("/cache/stats", right)).status == 200


async def test_a_form_is_no_way_to_change_anything(gateway: Running) -> None:
    for kind in (
        "text/plain",
        "text/plain; application/json",
        "text/plain;x=json",
        "multipart/form-data; boundary=json",
        "application/x-www-form-urlencoded;json",
        "application/jsonp",
        "",
    ):
        got = await gateway.send("POST", "/cache/purge", b'{"all":true}', {"content-type": kind})
        assert got.status == 415, kind
    async with line(gateway) as to:
        body = b'{"all":true}'
        head = b"POST /cache/purge HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        await to.send(head % len(body) + body)
        assert (await to.status()) == 415, "a body says what it is"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8"])
async def test_json_may_say_more_of_itself(gateway: Running, kind: str) -> None:
    got = await gateway.send("POST", "/cache/purge", b'{"all":true}', {"content-type": kind})
    assert got.status == 200


async def test_entries_are_listed_in_pages_and_by_what_they_carry(gateway: Running) -> None:
    for n in range(5):
        tag = "even" if n % 2 == 0 else "odd"
        await gateway.chat(str(n), kv_cache={"tags": [tag], "namespace": f"n{n % 2}"})
    first = (await gateway.get("/cache/entries?limit=3")).json
    rest = (await gateway.get(f"/cache/entries?limit=3&after={first['next']}")).json
    keys = [row["key"] for row in first["entries"] + rest["entries"]]
    assert (len(keys), rest["next"], keys) == (5, None, sorted(keys))
    assert len((await gateway.get("/cache/entries?tag=even")).json["entries"]) == 3
    assert len((await gateway.get("/cache/entries?namespace=n1")).json["entries"]) == 2
    assert len((await gateway.get("/cache/entries?model=other")).json["entries"]) == 0
    row = first["entries"][0]
    assert (row["scope"], row["model"], row["tenant"]) == (
        "chat/completions",
        "priced",
        "anonymous",
    )
    for wrong in ("limit=0", "limit=x", "after=zz", "colour=red"):
        assert (await gateway.get(f"/cache/entries?{wrong}")).status == 400


async def test_one_entry_is_shown_and_removed_by_a_prefix_of_its_key(gateway: Running) -> None:
    key = (await gateway.chat()).headers["x-cache-key"]
    for name in (key, key[:8], key[:9], key.upper()):
        assert (await gateway.get(f"/cache/entries/{name}")).json["key"] == key
    shown = (await gateway.get(f"/cache/entries/{key}?content=true")).json
    assert shown["content"]["choices"][0]["message"]["content"] == "hello"
    assert "content" not in (await gateway.get(f"/cache/entries/{key}")).json
    assert (await gateway.get(f"/cache/entries/{key[:7]}")).status == 400
    assert (await gateway.get("/cache/entries/00000000")).status == 404
    gone = await gateway.send("DELETE", f"/cache/entries/{key[:8]}")
    assert gone.json == {"purged": 1}
    assert (await gateway.chat()).reason == "purged"


async def test_a_whole_key_is_removed_and_a_prefix_of_two_is_refused(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock)
    memory = gateway.assembly.shelf.memory
    names = [b"alike" + bytes([number]) * 27 for number in range(2)]
    for digest in names:
        memory.put(Key(digest, digest), Entry(None, b"", Meta()))
    path = f"/cache/entries/{b'alike'.hex()}"
    for method in ("GET", "DELETE"):
        got = await gateway.send(method, path)
        assert (got.status, "more digits" in got.json["error"]["message"]) == (409, True)
    assert (await gateway.post("/cache/purge", {"key": b"alike".hex()})).status == 409
    whole = f"/cache/entries/{names[0].hex()}"
    assert (await gateway.send("DELETE", whole)).json == {"purged": 1}
    assert (await gateway.send("DELETE", whole)).status == 404
    assert list(memory.map) == [names[1]]


async def test_a_streams_content_is_shown_event_by_event(gateway: Running) -> None:
    key = (await gateway.chat(stream=True)).headers["x-cache-key"]
    content = (await gateway.get(f"/cache/entries/{key}?content=true")).json["content"]
    assert [event["object"] for event in content] == ["chat.completion.chunk"] * 4


async def test_an_entry_that_is_no_reply_is_listed_and_shown(stage: Stage, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with Cache(store=url) as cache:
        cache.set("question", {"answer": [42, "中"]})
        cache.set("other", "plain text")
    gateway = await stage.gateway(store={"url": url})
    rows = (await gateway.get("/cache/entries")).json["entries"]
    assert sorted(row["form"] for row in rows) == ["encoded", "plain"]
    shown = [(await gateway.get(f"/cache/entries/{row['key']}?content=true")).json for row in rows]
    assert [one["content"] for one in sorted(shown, key=lambda one: str(one["form"]))] == [
        {"answer": [42, "中"]},
        "plain text",
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"nonsense", b'{"tag":["x"]}', b'{"all":false}']
)
async def test_a_purge_that_names_nothing_empties_nothing(gateway: Running, body: bytes) -> None:
    await gateway.chat()
    kind = {"content-type": "application/json"}
    got = await gateway.send("POST", "/cache/purge", body, kind)
    assert got.status == 400
    assert (await gateway.chat()).cache == "HIT"


async def test_a_purge_by_model_age_key_or_everything(stage: Stage) -> None:
    gateway = await stage.gateway(clock=stage.moving.clock, cache={"ttl": 50.0})
    await gateway.chat("old", model="a")
    stage.moving.move(100)
    key = (await gateway.chat("new", model="a")).headers["x-cache-key"]
    await gateway.chat("new", model="b")
    for body, purged in [
        ({"expired": True}, 1),
        ({"older_than": "1h"}, 0),
        ({"model": "b"}, 1),
        ({"key": key[:10]}, 1),
        ({"all": True}, 0),
    ]:
        assert (await gateway.post("/cache/purge", body)).json == {"purged": purged}, body
    assert (await gateway.post("/cache/purge", {"older_than": "soon"})).status == 400


async def test_a_purge_names_a_bounded_number_of_tags(stage: Stage, tmp_path: Path) -> None:
    gateway = await stage.gateway(store={"url": f"sqlite:///{tmp_path}/a.db"})
    tags = [f"tag-{number}" for number in range(40_000)]
    got = await gateway.post("/cache/purge", {"tags": tags})
    assert (got.status, got.json["error"]["param"]) == (400, "tags")
    assert (await gateway.post("/cache/purge", {"tags": tags[:10_000]})).json == {"purged": 0}


async def test_the_bounds_change_while_running(gateway: Running) -> None:
    for n in range(10):
        await gateway.chat(str(n))
    got = await gateway.post("/cache/limits", {"max_size": 3})
    assert got.json["max_size"] == 3
    assert (await gateway.get("/cache/stats")).json["tiers"]["memory"]["entries"] == 3
    assert (await gateway.post("/cache/limits", {"max_bytes": "1GiB"})).json["max_bytes"] == 2**30
    for wrong in ({"max_size": 0}, {"max_bytes": "many"}, {"max": 1}, {"max_size": "x"}):
        assert (await gateway.post("/cache/limits", wrong)).status == 400, wrong


async def test_every_change_is_written_to_the_audit_log_and_no_secret(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await stage.gateway(admin={"token": "a-long-token"})
    token = {"x-thinkonce-admin-token": "a-long-token"}
    with caplog.at_level(logging.INFO, "thinkonce.audit"):
        await gateway.post("/cache/purge", {"tags": ["x"]}, token)
        await gateway.get("/cache/stats", token)
    (line,) = [record.getMessage() for record in caplog.records if "audit" in record.name]
    assert "purged 0 entries: tags=['x']" in line
    assert "127.0.0.1" in line
    assert "a-long-token" not in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/cache/nothing"),
        ("GET", "/cache"),
        ("PUT", "/cache/stats"),
        ("GET", "/cache/preload"),
        ("POST", "/cache/entries"),
        ("POST", "/cache/entries/0011223344556677"),
        ("DELETE", "/cache/entries/0011223344556677/feedback"),
    ],
)
async def test_what_is_not_there_is_answered_with_what_is(
    gateway: Running, method: str, path: str
) -> None:
    got = await gateway.send(method, path, b"{}", {"content-type": "application/json"})
    assert got.status == 404
    assert "POST preload" in got.json["error"]["message"]


@pytest.mark.parametrize("path", ["/cache/entries?limit=", "/cache/preload?concurrency="])
async def test_a_number_of_thousands_of_digits_is_the_callers_mistake(
    gateway: Running, path: str
) -> None:
    method = "GET" if "entries" in path else "POST"
    got = await gateway.send(method, path + "1" * 5000, b"", {"x-thinkonce-tenant": "anonymous"})
    assert got.status == 400
    assert path.partition("?")[2].rstrip("=") in got.json["error"]["message"]


# -- what people say of an answer -----------------------------------------------------------


async def test_a_wrong_answer_goes_at_once_and_is_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await stage.gateway()
    key = (await gateway.chat()).headers["x-cache-key"]
    path = f"/cache/entries/{key[:10]}/feedback"
    kept = await gateway.post(path, {"wrong": False})
    assert kept.json == {"key": key, "removed": False, "learned": False}
    assert (await gateway.chat()).cache == "HIT"
    with caplog.at_level(logging.INFO, "thinkonce.audit"):
        gone = await gateway.post(path, {"wrong": True})
    assert gone.json == {"key": key, "removed": True, "learned": False}
    assert f"feedback on {key}: wrong, removed" in caplog.text
    assert (await gateway.chat()).reason == "purged"
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_feedback_total{verdict="wrong"} 1.0' in text
    assert 'thinkonce_feedback_total{verdict="right"} 1.0' in text


@pytest.mark.parametrize("body", [{}, {"wrong": "yes"}, {"wrong": True, "why": "x"}, []])
async def test_feedback_that_says_nothing_changes_nothing(gateway: Running, body: object) -> None:
    key = (await gateway.chat()).headers["x-cache-key"]
    assert (await gateway.post(f"/cache/entries/{key}/feedback", body)).status == 400
    assert (await gateway.chat()).cache == "HIT"
    other = await gateway.post(f"/cache/entries/{'0' * 16}/feedback", {"wrong": True})
    assert other.status == 404


async def test_a_wrong_answer_goes_in_every_process_of_the_host(
    stage: Stage, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    one, other = [await stage.gateway(store={"url": url}) for _ in range(2)]
    key = (await one.chat()).headers["x-cache-key"]
    assert (await other.chat()).cache in ("HIT", "COALESCED")
    assert stage.upstream.calls == 1
    assert (await one.post(f"/cache/entries/{key}/feedback", {"wrong": True})).json["removed"]
    assert (await other.chat()).cache == "MISS"
    assert stage.upstream.calls == 2


# -- metrics and the access log -------------------------------------------------------------


async def test_metrics_count_what_happened(gateway: Running) -> None:
    await gateway.chat()
    await gateway.chat()
    await gateway.chat(stream=True)
    await gateway.send("POST", "/v1/chat/completions", b"{", {"content-type": "application/json"})
    text = (await gateway.get("/metrics")).body.decode()
    labels = 'endpoint="chat/completions",match="exact",model="priced",outcome="hit"'
    assert f"thinkonce_requests_total{{{labels}}} 2.0" in text
    assert await gateway.metric("thinkonce_requests_total") == 4
    assert await gateway.metric("thinkonce_saved_tokens_total") == 36
    assert await gateway.metric("thinkonce_saved_usd_total") == pytest.approx(2 * 5.85e-6)
    assert 'thinkonce_entries{tier="memory"} 1.0' in text
    assert 'thinkonce_request_seconds_count{outcome="hit"} 2.0' in text
    assert await gateway.metric("thinkonce_upstream_seconds_count") == 1


async def test_what_was_asked_and_saved_is_summed_up(gateway: Running) -> None:
    counted = gateway.assembly.metrics.counted
    assert counted.summary()["hit_rate"] == 0.0
    for content in ("one", "one", "one", "two"):
        await gateway.chat(content)
    await gateway.chat("one", headers={"cache-control": "no-cache"})
    told = (await gateway.get("/cache/stats")).json
    assert told["requests"] == {"miss": 2, "hit": 2, "refresh": 1}
    assert (told["hit_rate"], told["saved_tokens"]) == (0.5, 36)
    assert told["saved_usd"] == pytest.approx(2 * 5.85e-6)
    assert told["saved_seconds"] > 0


async def test_a_scrape_does_not_wait_on_the_loop_for_the_store(
    stage: Stage, tmp_path: Path
) -> None:
    gateway = await stage.gateway(store={"url": f"sqlite:///{tmp_path / 'answers.db'}"})
    store = gateway.assembly.shelf.store
    assert isinstance(store, StoreBreaker)
    threads = []
    count = store.tier.stats

    def stats() -> TierStats:
        threads.append(threading.current_thread())
        return count()

    store.tier.stats = stats
    assert b'thinkonce_entries{tier="sqlite"} 0.0' in (await gateway.get("/metrics")).body
    assert (await gateway.get("/cache/stats")).json["tiers"]["sqlite"]["entries"] == 0
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_a_failed_read_of_the_store_counts_once_and_so_does_a_failed_flight(
    stage: Stage, tmp_path: Path
) -> None:
    gateway = await stage.gateway(store={"url": f"sqlite:///{tmp_path / 'answers.db'}"})
    store = gateway.assembly.shelf.store
    assert isinstance(store, StoreBreaker)
    store.tier._database.one = _unreadable  # the disk fails under the tier

    def refuse(*_: object) -> NoReturn:
        raise TierError("host", "locking")

    gateway.assembly.shelf.flights.join = refuse
    await gateway.chat()
    text = (await gateway.get("/metrics")).body.decode()
    assert 'thinkonce_tier_errors_total{tier="flights"} 1.0' in text
    assert 'thinkonce_tier_errors_total{tier="sqlite"} 1.0' in text


def _unreadable(*_: object) -> NoReturn:
    raise TierError("sqlite", "reading")


async def test_names_that_only_clients_know_are_no_labels(gateway: Running) -> None:
    async def label() -> set[str]:
        text = (await gateway.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("thinkonce_requests_total")]
        return {line.split('model="')[1].split('"')[0] for line in lines}

    for n in range(5):
        await gateway.chat(model=f"made-up-{n}", headers={"cache-control": "only-if-cached"})
    assert await label() == {"other"}
    await gateway.chat(model="real")
    await gateway.chat(model="real")
    assert await label() == {"other", "real"}, "an upstream answered for it"


async def test_health_and_readiness(gateway: Running) -> None:
    assert (await gateway.get("/healthz")).json == {"status": "ok"}
    assert (await gateway.get("/readyz")).status == 200
    gateway.assembly.gateway.ready = False
    assert (await gateway.get("/readyz")).status == 503
    assert (await gateway.get("/healthz")).status == 200


async def test_the_access_log_has_one_line_a_request_and_no_prompt_or_credential(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await stage.gateway(gateway={"access_log": True})
    secret = {"authorization": "Bearer sk-secret", "x-request-id": "mine"}
    await gateway.chat("the prompt", headers=secret)
    await gateway.get("/v1/files%0Aforged?api_key=sk-secret")
    gateway.assembly.access_log.flush()
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "mine POST /v1/chat/completions 200 miss new" in first
    assert "GET /v1/files%0Aforged 200 bypass endpoint" in second
    assert "the prompt" not in first + second
    assert "sk-secret" not in first + second
