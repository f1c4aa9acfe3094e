"""Our own engine is told whose a request is, and by the gateway alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.conftest import Stage
from gateway.test_processes import Host
from gateway.test_servers import saying
from gateway.upstream import Upstream
from kv.small_model import make_network, make_tokenizer
from thinkonce.settings import Upstream as Pool

SECRET = "0123456789abcdef" * 4
NAMES = ("x-thinkonce-engine-secret", "x-thinkonce-tenant")
FORGED = {NAMES[0]: "guess", NAMES[1]: "somebody else"}


def engine(stage: Stage, secret: str = SECRET) -> dict[str, Pool]:
    return {"local": Pool(urls=[stage.upstream.url], engine_secret=secret)}


def told(stage: Stage) -> list[tuple[str | None, ...]]:
    return [tuple(seen.headers.get(name) for name in NAMES) for seen in stage.upstream.seen]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_the_engine_is_told_the_tenant_with_the_secret_it_was_started_with(
    stage: Stage,
) -> None:
    digests = [hashlib.sha256(key).hexdigest() for key in (b"sk-a", b"sk-b")]
    gateway = await stage.gateway(upstreams=engine(stage), groups={"team": digests})
    for question, key in enumerate(("sk-a", "sk-b", "sk-c", "sk-c")):
        await gateway.chat(f"{question}", headers=bearer(key))
    secrets, tenants = zip(*told(stage), strict=True)
    assert set(secrets) == {SECRET}
    assert all(tenants)
    assert [tenant == tenants[0] for tenant in tenants] == [True, True, False, False]
    assert tenants[2] == tenants[3]


CONTROLS = {"namespace": "v2", "refresh": True, "tags": ["a"], "ttl": 60}


async def test_the_engine_is_told_what_concerns_attention_state(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=engine(stage))
    await gateway.chat("a", kv_cache=CONTROLS)
    await gateway.chat("b", kv_cache={"enabled": False})
    await gateway.chat("c", kv_cache={"ttl": 60})
    await gateway.chat("d")
    told = [seen.json.get("kv_cache") for seen in stage.upstream.seen]
    assert told == [CONTROLS, {"enabled": False}, {"ttl": 60}, None]


async def test_an_answer_of_approximate_state_is_none_to_who_asks_for_an_exact_one(
    stage: Stage,
) -> None:
    gateway = await stage.gateway(upstreams=engine(stage))
    ways: list[dict[str, str]] = [{"reuse": "link"}, {"reuse": "auto"}, {"reuse": "exact"}, {}]
    first = [(await gateway.chat("a", kv_cache=way)).cache for way in ways]
    again = [(await gateway.chat("a", kv_cache=way)).cache for way in ways]
    assert first == ["MISS"] * 4, "who says nothing gets what the engine's settings say"
    assert again == ["HIT"] * 4
    told = [seen.json.get("kv_cache") for seen in stage.upstream.seen]
    assert told == [*ways[:3], None]


async def test_what_is_put_together_from_a_schema_goes_around_the_cache(stage: Stage) -> None:
    """What the schema says lies at the engine, and nobody here can tell when it says another."""
    gateway = await stage.gateway(upstreams=engine(stage))
    said = {"schema": "persona", "modules": ["who"], "arguments": {"name": "Ann"}}
    for _ in range(2):
        got = await gateway.chat("a", kv_cache={**said, "ttl": 60})
        assert (got.cache, got.headers["x-cache-reason"]) == ("BYPASS", "stateful")
    told = [seen.json.get("kv_cache") for seen in stage.upstream.seen]
    assert told == [{"ttl": 60, **said}] * 2
    assert (await gateway.chat("a")).cache == "MISS", "nothing of it was kept"


@pytest.mark.parametrize("more", [{}, {"enabled": False}])
async def test_nobody_answers_for_the_engine_who_has_not_its_schemas(
    stage: Stage, more: dict[str, bool]
) -> None:
    other = await stage.another_upstream()
    main = Pool(urls=[stage.upstream.url], engine_secret=SECRET, fallback=["spare"])
    pools = {"main": main, "spare": Pool(urls=[other.url])}
    gateway = await stage.gateway(upstreams=pools, gateway={"retries": 0})
    stage.upstream.script = saying(503)
    assert (await gateway.chat("a", kv_cache=more)).status == 200, "what says all of it"
    got = await gateway.chat("a", kv_cache={"schema": "persona", **more})
    assert (got.status, other.calls) == (503, 1)


async def test_a_provider_is_told_nothing_of_it(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=engine(stage, secret=""))
    await gateway.chat("a", kv_cache=CONTROLS)
    assert "kv_cache" not in stage.upstream.seen[0].json


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("controls", [{}, {"cache-control": "no-store"}])
async def test_a_client_cannot_name_another_tenant(
    stage: Stage, stream: bool, controls: dict[str, str]
) -> None:
    """Not even where every header is sent on, nor around the cache."""
    gateway = await stage.gateway(upstreams=engine(stage), gateway={"forward_headers": ["*"]})
    await gateway.chat("a", stream=stream, headers={**controls, **FORGED})
    await gateway.chat("b", stream=stream, headers={**controls, **FORGED, **bearer("sk-a")})
    (first_secret, first), (second_secret, second) = told(stage)
    assert first_secret == second_secret == SECRET
    assert first
    assert second
    assert "somebody else" not in (first, second)
    assert first != second


async def test_a_provider_is_told_neither(stage: Stage) -> None:
    gateway = await stage.gateway(upstreams=engine(stage, secret=""))
    await gateway.chat("a", headers=bearer("sk-a"))
    assert told(stage) == [(None, None)]


# -- the whole of it, in processes of their own --------------------------------------------------


@pytest.fixture
async def host(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        yield Host(stack, tmp_path, upstream)


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
async def test_tenants_of_a_gateway_stay_apart_in_its_engine(host: Host, small_model: Path) -> None:
    gateway = await host.local_gateway(small_model)
    document = "The quick brown fox jumps over the lazy dog. " * 30

    async def cached(question: str, key: str) -> int:
        messages = [{"role": "user", "content": document + question}]
        body = {"model": "tiny", "max_tokens": 2, "messages": messages}
        url = f"{gateway.url}/v1/chat/completions"
        async with gateway.session.post(url, json=body, headers=bearer(key)) as got:
            usage = (await got.json())["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert await cached("Who?", "sk-a") == 0
    assert await cached("Why?", "sk-a") >= 128
    assert await cached("Who?", "sk-b") == 0
