"""Pages of other sites as clients: who is let in, and that nothing else opens by it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.conftest import CHAT, Got, Running, Stage
from gateway.upstream import Out, Seen, completion
from thinkonce import settings as known
from thinkonce.errors import ConfigError
from thinkonce.settings import Sources
from thinkonce.settings.check import check

PAGE, OTHER = "https://chat.example.com", "https://evil.example.com"
ALLOW = "access-control-allow-origin"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.fixture
def way(all_ways: str) -> str:
    return all_ways


async def opened(stage: Stage, *origins: str, **more: Any) -> Running:
    return await stage.gateway(gateway={"cors_origins": list(origins or (PAGE,)), **more})


def cors_in(got: Got) -> set[str]:
    return {name for name in got.headers if name.startswith("access-control-")}


async def test_a_miss_and_every_hit_are_shown_to_a_page_that_is_let_in(stage: Stage) -> None:
    gateway = await opened(stage)
    for outcome in ("MISS", "HIT", "HIT", "HIT"):
        got = await gateway.chat(headers={"origin": PAGE})
        assert got.cache == outcome
        assert got.headers[ALLOW] == PAGE
        assert "Origin" in got.headers["vary"]
        exposed = set(got.headers["access-control-expose-headers"].split(", "))
        assert {name for name in got.headers if name.startswith("x-cache")} <= exposed


async def test_streams_are_shown_too(stage: Stage) -> None:
    gateway = await opened(stage)
    for _ in range(3):
        got = await gateway.chat(headers={"origin": PAGE}, stream=True)
        assert got.headers[ALLOW] == PAGE


async def test_pages_of_other_sites_see_nothing_be_it_a_hit(stage: Stage) -> None:
    gateway = await opened(stage)
    await gateway.chat(headers={"origin": PAGE})
    for _ in range(3):
        got = await gateway.chat(headers={"origin": OTHER})
        assert got.cache == "HIT"
        assert cors_in(got) == set()
        assert "Origin" in got.headers["vary"], "a cache on the way must tell the two apart"


async def test_callers_that_are_no_page_get_no_such_headers(stage: Stage) -> None:
    gateway = await opened(stage)
    for _ in range(3):
        assert cors_in(await gateway.chat()) == set()


async def test_one_head_learnt_for_a_page_serves_no_other_page(stage: Stage) -> None:
    gateway = await opened(stage, PAGE, "http://127.0.0.1:3000")
    for _ in range(2):
        for origin in (PAGE, "http://127.0.0.1:3000"):
            assert (await gateway.chat(headers={"origin": origin})).headers[ALLOW] == origin


async def test_any_site_is_let_in_by_a_star_without_naming_it(stage: Stage) -> None:
    gateway = await opened(stage, "*")
    for _ in range(3):
        got = await gateway.chat(headers={"origin": OTHER})
        assert got.headers[ALLOW] == "*"
        assert "access-control-allow-credentials" not in got.headers


async def test_cookies_are_let_through_only_where_it_is_said(stage: Stage) -> None:
    gateway = await opened(stage, PAGE, cors_credentials=True)
    got = await gateway.chat(headers={"origin": PAGE})
    assert got.headers["access-control-allow-credentials"] == "true"
    without = await opened(stage)
    got = await without.chat(headers={"origin": PAGE})
    assert "access-control-allow-credentials" not in got.headers


async def test_errors_are_shown_so_that_a_page_can_tell_what_is_wrong(stage: Stage) -> None:
    gateway = await opened(stage)
    json = {"content-type": "application/json"}
    got = await gateway.send("POST", CHAT, b"{", {"origin": PAGE, **json})
    assert (got.status, got.headers[ALLOW]) == (400, PAGE)
    got = await gateway.chat("unasked", headers={"origin": PAGE, "cache-control": "only-if-cached"})
    assert (got.status, got.headers[ALLOW]) == (504, PAGE)


async def test_an_upstreams_own_permissions_are_not_passed_on(stage: Stage) -> None:
    async def generous(seen: Seen, out: Out) -> None:
        await out.json(completion(), access_control_allow_origin="*", x_kept="yes")

    stage.upstream.script = generous
    for gateway in (await stage.gateway(), await opened(stage)):
        got = await gateway.chat(headers={"origin": OTHER})
        assert cors_in(got) == set()
        assert got.headers["x-kept"] == "yes"
        got = await gateway.get("/v1/models", {"origin": OTHER})
        assert cors_in(got) == set()


# -- asking first --------------------------------------------------------------------------------


async def test_a_browsers_question_is_answered_without_asking_anybody(stage: Stage) -> None:
    gateway = await opened(stage)
    got = await gateway.send("OPTIONS", CHAT, headers={"origin": PAGE, **ASKS})
    assert (got.status, got.body) == (204, b"")
    assert "content-length" not in got.headers
    assert got.headers[ALLOW] == PAGE
    assert "POST" in got.headers["access-control-allow-methods"]
    assert got.headers["access-control-allow-headers"] == "authorization"
    assert "Origin" in got.headers["vary"]
    assert stage.upstream.calls == 0


async def test_a_question_carries_no_key_and_takes_nothing_of_an_allowance(stage: Stage) -> None:
    clients = {"alice": known.Client(key_sha256="0" * 64, rate_limit=1)}
    gateway = await stage.gateway(gateway={"cors_origins": [PAGE]}, clients=clients)
    for _ in range(3):
        got = await gateway.send("OPTIONS", CHAT, headers={"origin": PAGE, **ASKS})
        assert got.status == 204
    got = await gateway.chat(headers={"origin": PAGE})
    assert (got.status, got.headers[ALLOW]) == (401, PAGE)


async def test_a_page_of_another_site_is_told_no_with_the_settings_name(stage: Stage) -> None:
    gateway = await opened(stage)
    got = await gateway.send("OPTIONS", CHAT, headers={"origin": OTHER, **ASKS})
    assert got.status == 403
    assert cors_in(got) == set()
    assert "cors_origins" in got.json["error"]["message"]
    assert stage.upstream.calls == 0


async def test_options_that_are_no_browsers_question_are_forwarded_as_ever(stage: Stage) -> None:
    gateway = await opened(stage)
    for number, headers in enumerate(({"origin": PAGE}, ASKS, {}), 1):
        got = await gateway.send("OPTIONS", "/v1/models", headers=headers)
        assert (got.cache, stage.upstream.calls) == ("BYPASS", number)


async def test_without_the_setting_a_question_is_forwarded_and_nothing_is_let_in(
    stage: Stage,
) -> None:
    gateway = await stage.gateway()
    got = await gateway.send("OPTIONS", "/v1/models", headers={"origin": PAGE, **ASKS})
    assert (got.cache, stage.upstream.calls, cors_in(got)) == ("BYPASS", 1, set())
    for _ in range(3):
        got = await gateway.chat(headers={"origin": PAGE})
        assert cors_in(got) == set()
        assert "vary" not in got.headers


# -- what stays shut -----------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["*", PAGE])
async def test_the_rooms_of_the_gateway_stay_shut(stage: Stage, origin: str) -> None:
    gateway = await opened(stage, origin)
    for path in ("/cache/stats", "/cache/entries", "/metrics", "/dashboard"):
        got = await gateway.get(path, {"origin": PAGE})
        assert cors_in(got) == set(), path
        got = await gateway.send("OPTIONS", path, headers={"origin": PAGE, **ASKS})
        assert cors_in(got) == set(), path


async def test_a_page_that_is_let_in_is_still_a_foreign_one_to_cache(stage: Stage) -> None:
    gateway = await opened(stage)
    got = await gateway.get("/cache/stats", {"origin": PAGE})
    assert got.status == 403
    assert "another site" in got.json["error"]["message"]
    got = await gateway.post("/cache/purge", {"all": True}, {"origin": PAGE})
    assert got.status == 403


async def test_a_gateway_with_its_own_key_and_no_clients_is_not_opened_by_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", "sk-own")
    upstreams = {"main": known.Upstream(urls=[stage.upstream.url], api_key_env="OWN_KEY")}
    gateway = await stage.gateway(gateway={"cors_origins": ["*"]}, upstreams=upstreams)
    got = await gateway.chat(headers={"origin": PAGE})
    assert got.status == 403
    assert stage.upstream.calls == 0


async def test_a_reload_lets_in_and_shuts_out_what_was_learnt_too(stage: Stage) -> None:
    gateway = await opened(stage)
    for _ in range(3):
        assert (await gateway.chat(headers={"origin": PAGE})).headers[ALLOW] == PAGE
    upstreams = {"main": known.Upstream(urls=[stage.upstream.url])}
    gateway.assembly.adopt(known.Settings(upstreams=upstreams), gateway.assembly.pools)
    for _ in range(3):
        got = await gateway.chat(headers={"origin": PAGE})
        assert (got.cache, cors_in(got)) == ("HIT", set())


# -- the setting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example.com/", "https://Chat.example.com", "https://chat.example.com:443",
        "chat.example.com", "https://*.example.com", "https://a@b.example", "null", "", "https://",
        "https://chat.example.com:x", "https://chat.example.com?", "https://chät.example",
    ],
)  # fmt: skip
def test_an_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="cors_origins"):
        check(known.Settings(gateway=known.Gateway(cors_origins=[origin])))


@pytest.mark.parametrize(
    "origin",
    [PAGE, "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdef", "*"],
)
def test_origins_are_accepted_as_browsers_send_them(origin: str) -> None:
    check(known.Settings(gateway=known.Gateway(cors_origins=[origin])))


def test_a_star_stands_alone_and_without_cookies() -> None:
    for gateway in (
        known.Gateway(cors_origins=["*", PAGE]),
        known.Gateway(cors_origins=["*"], cors_credentials=True),
    ):
        with pytest.raises(ConfigError, match="cors_"):
            check(known.Settings(gateway=gateway))


def test_origins_can_be_given_by_the_environment() -> None:
    environ = {"THINKONCE_GATEWAY_CORS_ORIGINS": f"{PAGE}, http://localhost:3000"}
    found = Sources(environ=environ).load().gateway.cors_origins
    assert found == [PAGE, "http://localhost:3000"]
