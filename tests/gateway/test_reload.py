"""A new configuration for a running gateway: what changes, what stays, what ends as it began."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.conftest import Running, Stage, settings_of, until
from gateway.test_processes import Host, Process
from gateway.upstream import Out, Seen, Upstream, completion, once, saying
from thinkonce import settings as known
from thinkonce.errors import ConfigError
from thinkonce.gateway.reload import FIXED, Reload, changes, settle
from thinkonce.upstream.pools import Pools


def adopt(running: Running, *urls: str, **sections: dict[str, Any]) -> None:
    """Give a running gateway other settings; `urls` are its one pool's."""
    settings = settings_of({"main": known.Upstream(urls=list(urls))}, **sections)
    running.assembly.adopt(settings, Pools.of(settings.upstreams))


async def test_answers_stored_afterwards_live_as_the_new_settings_say(
    gateway: Running, stage: Stage
) -> None:
    await gateway.chat("before")
    adopt(gateway, stage.upstream.url, cache={"ttl": 60.0})
    await gateway.chat("after")
    before, after = await gateway.chat("before"), await gateway.chat("after")
    assert (before.cache, after.cache) == ("HIT", "HIT"), "what was stored is still there"
    assert int(before.headers["x-cache-ttl"]) > 3500
    assert int(after.headers["x-cache-ttl"]) <= 60


async def test_a_hit_that_was_made_ready_is_made_anew(gateway: Running, stage: Stage) -> None:
    for _ in range(3):
        answered = await gateway.chat()
    assert answered.json["kv_cache"]["status"] == "hit"
    adopt(gateway, stage.upstream.url, gateway={"annotate_body": False})
    for _ in range(3):
        answered = await gateway.chat()
        assert (answered.cache, "kv_cache" in answered.json) == ("HIT", False)


async def test_a_call_under_way_ends_where_it_began(gateway: Running, stage: Stage) -> None:
    gate = asyncio.Event()

    stage.upstream.script = once(gate, saying(completion("from the old one")))
    other = await stage.another_upstream()
    asking = asyncio.create_task(gateway.chat("one"))
    await stage.upstream.called()
    # Other timeouts mean other connections: those under way are not cut.
    adopt(gateway, other.url, gateway={"read_timeout": 5.0})
    assert (await gateway.chat("two")).text == "hello"
    gate.set()
    assert (await asking).text == "from the old one"
    assert (stage.upstream.calls, other.calls) == (1, 1)
    assert (await gateway.chat("one")).cache == "HIT", "the pool's name is the same"


async def test_connections_of_former_timeouts_end_with_their_last_request(
    gateway: Running, stage: Stage
) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen, out: Out) -> None:
        await gate.wait()
        await out.json(completion("from the old one"))

    usual, stage.upstream.script = stage.upstream.script, slow
    asking = asyncio.create_task(gateway.chat("one"))
    await stage.upstream.called()
    stage.upstream.script = usual
    used = [gateway.assembly.client]
    for seconds in (5.0, 6.0, 7.0):
        adopt(gateway, stage.upstream.url, gateway={"read_timeout": seconds})
        assert (await gateway.chat(f"{seconds}")).status == 200
        used.append(gateway.assembly.client)
    assert [not client._connections for client in used] == [False, True, True, False]
    gate.set()
    assert (await asking).text == "from the old one"
    await until(lambda: not used[0]._connections)


async def test_timeouts_of_calls_that_begin_afterwards_are_the_new_ones(
    gateway: Running, stage: Stage
) -> None:
    async def never(seen: Seen, out: Out) -> None:
        await asyncio.Event().wait()

    stage.upstream.script = never
    adopt(gateway, stage.upstream.url, gateway={"first_byte_timeout": 0.05})
    assert (await gateway.chat()).status == 504


async def test_pools_appear_and_go(gateway: Running, stage: Stage) -> None:
    settings = settings_of({"gpt": known.Upstream(urls=[stage.upstream.url], models=["gpt-*"])})
    gateway.assembly.adopt(settings, Pools.of(settings.upstreams))
    assert (await gateway.chat(model="gpt-9")).status == 200
    assert (await gateway.chat(model="claude")).status == 404
    assert await gateway.metric("thinkonce_requests_total") == 2, "counting goes on"


async def test_a_model_named_anew_is_counted_under_its_name_before_it_answers(
    gateway: Running, stage: Stage
) -> None:
    async def fails(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "not today"}}, status=400)

    stage.upstream.script = fails
    settings = settings_of({"gpt": known.Upstream(urls=[stage.upstream.url], models=["gpt-9"])})
    gateway.assembly.adopt(settings, Pools.of(settings.upstreams))
    assert (await gateway.chat(model="gpt-9")).status == 400
    assert 'model="gpt-9"' in (await gateway.get("/metrics")).body.decode()


async def test_leaders_get_as_long_as_the_new_timeouts_allow(
    gateway: Running, stage: Stage
) -> None:
    shelf = gateway.assembly.shelf
    before = shelf.flights.lease
    adopt(gateway, stage.upstream.url, gateway={"read_timeout": 9999.0})
    assert before < 9999 < shelf.flights.lease == shelf.setting.rules.lease
    assert gateway.assembly.world.setting is shelf.setting


async def test_the_admin_token_and_the_limits_change(gateway: Running, stage: Stage) -> None:
    assert (await gateway.get("/cache/stats")).status == 200
    limits = {"max_size": 1, "max_bytes": None}
    adopt(gateway, stage.upstream.url, admin={"token": "open sesame"}, cache=limits)
    assert (await gateway.get("/cache/stats")).status == 403
    stats = await gateway.get("/cache/stats", {"x-thinkonce-admin-token": "open sesame"})
    assert (stats.json["max_size"], stats.json["max_bytes"]) == (1, None)
    await gateway.chat("one")
    await gateway.chat("two")
    assert len(gateway.assembly.shelf.memory.map) == 1


@pytest.mark.parametrize("cache", [{"ttl": "lukewarm"}, {"max_bytes": None}])
async def test_settings_that_cannot_work_change_nothing(
    gateway: Running, stage: Stage, cache: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        adopt(gateway, "http://127.0.0.1:1", admin={"token": "open sesame"}, cache=cache)
    assert gateway.assembly.shelf.setting.rules.ttl == 3600
    assert gateway.assembly.shelf.setting.rules.max_age < inf
    assert gateway.assembly.shelf.flights.lease == gateway.assembly.shelf.setting.rules.lease
    assert (await gateway.get("/cache/stats")).status == 200
    assert (await gateway.chat()).status == 200


def test_what_only_a_restart_changes_is_kept_and_named() -> None:
    assert {"gateway.port", "store.secret", "tracing.enabled"} <= FIXED
    old = known.Settings()
    new = msgspec.structs.replace(
        old,
        gateway=known.Gateway(port=1, annotate_body=False),
        store=known.Store(secret="s" * 32),
        upstreams={"main": known.Upstream(urls=["http://h"])},
    )
    settled = settle(old, new)
    assert changes(old, settled) == ["gateway.annotate_body", "upstreams.main (new)"]
    assert changes(settled, new) == ["store.secret", "gateway.port"]
    assert (settled.gateway.port, settled.store.secret) == (8000, "")


def test_pools_in_another_order_are_a_change() -> None:
    one, two, three = (known.Upstream(urls=[f"http://127.0.0.1:{port}"]) for port in (1, 2, 3))
    old = known.Settings(upstreams={"a": one, "b": two})
    assert changes(old, known.Settings(upstreams={"b": two, "a": one})) == [
        "upstreams (their order)"
    ]
    assert changes(old, known.Settings(upstreams={"c": three, "a": one, "b": two})) == [
        "upstreams.c (new)"
    ]


def test_a_change_that_needs_a_restart_is_named_at_every_reload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moved = known.Settings(gateway=known.Gateway(port=1))
    adopted: list[known.Settings] = []
    reload = Reload(known.Settings(), lambda: moved, adopted.append)
    for _ in range(2):
        caplog.clear()
        reload()
        assert "gateway.port needs a restart to change" in caplog.text
    assert [settings.gateway.port for settings in adopted] == [8000, 8000]


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


async def test_sighup_reads_the_file_again_and_keeps_the_old_one_where_it_is_wrong(
    host: Host,
) -> None:
    file = host.folder / "thinkonce.toml"
    file.write_text("[gateway]\naccess_log = false\n")
    gateway = await host.gateway(THINKONCE_CACHE_JITTER="0")
    assert (await gateway.chat("one")).json["cache_hit"] is False
    file.write_text("[gateway]\nannotate_body = 7\n")
    line = await hung_up(gateway)
    assert "stays as it was: [gateway] annotate_body=7 does not work" in line
    assert (await gateway.chat("one")).json["cache_hit"] is True
    file.write_text(
        "[gateway]\naccess_log = false\nannotate_body = false\nport = 9\nhost = '::1'\n"
    )
    line = await hung_up(gateway)
    assert line.endswith("reloaded, changed: gateway.annotate_body\n"), "the port is a flag's"
    assert "gateway.host needs a restart to change" in await stderr_line(gateway)
    answered = await gateway.chat("one")
    assert (answered.cache, "cache_hit" in answered.json) == ("HIT", False)
    file.write_text(
        "[gateway]\naccess_log = false\nannotate_body = false\n[log]\nformat = 'json'\n"
    )
    line = await hung_up(gateway)
    assert json.loads(line)["message"].endswith("reloaded, changed: log.format"), "in force at once"
    assert (await gateway.end())[0] == 0


async def hung_up(gateway: Process) -> str:
    gateway.child.send_signal(signal.SIGHUP)
    return await stderr_line(gateway)


async def stderr_line(gateway: Process) -> str:
    assert gateway.child.stderr is not None
    async with asyncio.timeout(30):
        return (await gateway.child.stderr.readline()).decode()
