"""A store that a gateway and a transport open: whose entries each finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.conftest import Client, Kind, Stage, kind_named
from gateway.conftest import Running, running, settings_of
from thinkonce import settings as known
from thinkonce.request.headers import digest_of

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
# Until an answer is in the store, the call that made it can still be joined.
FOUND = ("HIT", "COALESCED")
KEY = {"authorization": "Bearer k"}


@pytest.fixture(params=["httpx2-async", pytest.param("httpx2-blocking", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Keys are made alike by all of them, which other tests show."""
    return kind_named(str(request.param))


async def gateway_on(stage: Stage, folder: Path, pool: str = "main", **more: Any) -> Running:
    upstreams = {pool: known.Upstream(urls=[stage.upstream.url])}
    settings = settings_of(upstreams, store={"url": f"sqlite:///{folder}/a.db"}, **more)
    return await stage.stack.enter_async_context(running(settings))


def client_on(stage: Stage, folder: Path, **options: Any) -> Client:
    return stage.client(store=f"sqlite:///{folder}/a.db", **options)


async def test_under_one_pools_name_each_finds_what_the_other_kept(
    stage: Stage, tmp_path: Path
) -> None:
    gateway = await gateway_on(stage, tmp_path)
    client = client_on(stage, tmp_path, pool="main")
    assert (await gateway.chat(model="m", headers=KEY)).cache == "MISS"
    assert (await client.chat()).cache in FOUND
    assert (await client.chat("other")).cache == "MISS"
    assert (await gateway.chat("other", model="m", headers=KEY)).cache in FOUND
    assert stage.upstream.calls == 2


async def test_another_key_or_a_header_of_its_own_parts_them(stage: Stage, tmp_path: Path) -> None:
    gateway = await gateway_on(stage, tmp_path)
    client = client_on(stage, tmp_path, pool="main")
    assert (await gateway.chat(model="m", headers=KEY)).cache == "MISS"
    assert (await client.chat(headers={"authorization": "Bearer other"})).cache == "MISS"
    assert (await client.chat(headers={"x-route": "cheap"})).cache == "MISS"


async def test_without_the_pools_name_nothing_is_shared(stage: Stage, tmp_path: Path) -> None:
    name = stage.upstream.url.removesuffix("/v1")  # what `--upstream URL` calls its pool
    gateway = await gateway_on(stage, tmp_path, pool=name)
    client = client_on(stage, tmp_path)
    assert (await gateway.chat(model="m", headers=KEY)).cache == "MISS"
    assert (await client.chat()).cache == "MISS"


async def test_a_purge_of_the_one_is_the_others_too(stage: Stage, tmp_path: Path) -> None:
    gateway = await gateway_on(stage, tmp_path)
    client = client_on(stage, tmp_path, pool="main")
    assert (await client.chat()).cache == "MISS"
    purged = await gateway.post("/cache/purge", {"all": True})
    assert (purged.status, (await client.chat()).cache) == (200, "MISS")


async def test_a_group_of_the_gateways_is_one_here(stage: Stage, tmp_path: Path) -> None:
    groups = {"team": [digest_of(b"Bearer k"), digest_of(b"Bearer other")]}
    gateway = await gateway_on(stage, tmp_path, groups=groups)
    client = client_on(stage, tmp_path, pool="main", group="team")
    assert (await gateway.chat(model="m", headers=KEY)).cache == "MISS"
    assert (await client.chat(headers={"authorization": "Bearer by the hour"})).cache in FOUND
    assert stage.upstream.calls == 1
