"""Before the first question: who is there, and which pool a model's name leads to."""

from __future__ import annotations

import asyncio
import logging

import pytest

from thinkonce.gateway.readiness import LOCAL_POOL, local_models, unreachable
from thinkonce.settings import Local, Settings, Upstream
from thinkonce.upstream.pools import Pools
from thinkonce.upstream.presence import tell_absent


async def test_a_server_that_nobody_answers_at_is_named_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    gone = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    urls = [f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in (there, gone)]
    gone.close()
    await gone.wait_closed()
    with caplog.at_level(logging.WARNING, "thinkonce"):
        await tell_absent({"a": Upstream(urls=urls)})
    (line,) = caplog.messages
    assert line.startswith(f"upstream {urls[1].removeprefix('http://')} is not there: ")
    there.close()
    await there.wait_closed()


def test_beside_a_provider_the_local_model_is_asked_by_its_name() -> None:
    provider = Upstream(urls=["https://api.example.com"])
    settings = Settings(local=Local(enabled=True), upstreams={"provider": provider})
    assert list(unreachable(settings)) == []
    local = Upstream(urls=["http://127.0.0.1:1"], models=local_models(settings))
    pools = Pools.of({"provider": provider, LOCAL_POOL: local})
    found = {name: pools.for_model(name) for name in (settings.local.model, "gpt-4o", "")}
    assert [pool and pool.name for pool in found.values()] == [LOCAL_POOL, "provider", "provider"]


def test_a_pool_behind_one_that_takes_every_model_is_never_asked() -> None:
    pools = {name: Upstream(urls=[f"https://{name}.example.com"]) for name in ("first", "second")}
    assert list(unreachable(Settings(upstreams=pools))) == [("second", "first")]
