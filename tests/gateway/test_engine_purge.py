"""A purge at the gateway kills attention state too, and says so where it could not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.conftest import Got, Stage
from gateway.upstream import Out, Seen
from kv.small_model import Served, make_network, make_tokenizer, serving
from thinkonce.kv.weights.model import Model, load
from thinkonce.settings import Kv, Upstream

SECRET = "s" * 64
TEXT = "The quick brown fox jumps over the lazy dog. " * 12


@pytest.fixture
def tiny(tmp_path: Path) -> Model:
    folder = tmp_path / "tiny"
    tokenizer = make_tokenizer()
    make_network(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(str(folder))


@pytest.fixture
def engine(tiny: Model) -> Iterator[Served]:
    with serving(tiny, kv=Kv(chunk=64), secret=SECRET) as served:
        yield served


def blocks(engine: Served) -> int:
    assert engine.engine.index is not None
    return engine.engine.index.stats().blocks


async def test_a_tag_is_purged_of_answers_and_attention_state_alike(
    stage: Stage, engine: Served
) -> None:
    pools = {"local": Upstream(urls=[f"{engine.url}/v1"], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)
    for tag in ("a", "b"):
        await gateway.chat(TEXT, model="tiny", max_tokens=2, kv_cache={"tags": [tag]})
    both = blocks(engine)
    assert both > 0
    purged = await gateway.post("/cache/purge", {"tags": ["a"]})
    assert purged.json == {"purged": 0, "engines": {f"{engine.url}/v1": {"purged": both // 2}}}
    assert blocks(engine) == both / 2
    old = await gateway.post("/cache/purge", {"older_than": 0})
    assert (old.status, "engines" in old.json) == (200, False)
    assert (await gateway.post("/cache/purge", {"tags": ["b"], "model": "else"})).status == 200
    assert blocks(engine) == both / 2, "what is said of answers alone, or of another model"
    assert (await gateway.post("/cache/purge", {"all": True})).status == 200
    assert blocks(engine) == 0


async def test_a_document_is_found_in_any_order_through_the_gateway_and_purged_by_its_tag(
    stage: Stage, engine: Served
) -> None:
    pools = {"local": Upstream(urls=[f"{engine.url}/v1"], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)

    async def ask(*numbers: int) -> Got:
        texts = {number: f"Document {number}. {number} {TEXT}" for number in numbers}
        said = {number: {"id": f"doc-{number}", "reuse": "link"} for number in numbers}
        parts = [{"type": "text", "text": texts[n], "kv_cache": said[n]} for n in numbers]
        turn = {"role": "user", "content": [*parts, {"type": "text", "text": "Where?"}]}
        tags = [f"doc-{number}" for number in numbers]
        body = {"model": "tiny", "messages": [turn], "max_tokens": 400, "stop": ["a"], "seed": 3}
        return await gateway.post("/v1/chat/completions", {**body, "kv_cache": {"tags": tags}})

    def linked(got: Got) -> int:
        assert got.json["usage"]["kv_exact"] is False, "the gateway's kv_cache is another"
        return int(got.json["usage"]["prompt_tokens_details"].get("link_tokens", 0))

    assert linked(await ask(0, 1, 2)) == 0
    assert linked(await ask(3, 1, 0)) > 200, "tags that name documents keep nothing apart"
    assert [(await ask(*each)).cache for each in ((0, 1, 2), (3, 1, 0))] == ["HIT", "HIT"]
    purged = await gateway.post("/cache/purge", {"tags": ["doc-2"]})
    assert (purged.status, purged.json["purged"]) == (200, 1)
    assert (await ask(3, 1, 0)).cache == "HIT"
    again = await ask(0, 1, 2)
    assert again.cache == "MISS"
    told = again.json["usage"]["prompt_tokens_details"]
    assert told["link_tokens"] < linked(await ask(1, 2, 0)), "the purged one was read anew"


async def test_a_client_reads_ahead_through_the_gateway_and_no_answer_is_kept(
    stage: Stage, engine: Served
) -> None:
    pools = {"local": Upstream(urls=[f"{engine.url}/v1"], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)
    for key in ("sk-a", "sk-b"):
        headers = {"authorization": f"Bearer {key}"}
        ahead = {"kv_cache": {"preload": True}, "max_tokens": 0}
        read = await gateway.chat(TEXT, model="tiny", headers=headers, **ahead)
        assert (read.status, read.json["usage"]["completion_tokens"]) == (200, 0)
        asked = await gateway.chat(TEXT, model="tiny", headers=headers, max_tokens=2)
        assert asked.cache == "MISS"
        assert cached_tokens(asked) > 0
        assert cached_tokens(read) == 0, "another client's is not found"


async def test_after_the_engine_began_anew_a_tag_is_purged_of_answers_and_on_disk(
    stage: Stage, tiny: Model, tmp_path: Path
) -> None:
    """What the engine's memory never held goes too, and its bytes with it."""
    kv = Kv(chunk=64, store=str(tmp_path / "kv"))

    async def ask(tag: str, end: str = "") -> Got:
        ends = {"max_tokens": 400, "seed": 3, "stop": ["a"]}
        said = {"tags": [tag], "ttl": "1h"}
        return await gateway.chat(TEXT + tag + end, model="tiny", kv_cache=said, **ends)

    with serving(tiny, kv=kv, secret=SECRET) as first:
        pools = {"local": Upstream(urls=[f"{first.url}/v1"], engine_secret=SECRET)}
        gateway = await stage.gateway(upstreams=pools)
        for tag in ("a", "b"):
            await ask(tag)
        assert [(await ask(tag)).cache for tag in ("a", "b")] == ["HIT", "HIT"]
        port = int(first.url.rpartition(":")[2])
    written = bytes_in(tmp_path / "kv")
    with serving(tiny, kv=kv, secret=SECRET, port=port) as second:
        both = on_disk(second)
        assert (blocks(second), both > 0) == (0, True)
        purged = await gateway.post("/cache/purge", {"tags": ["a"]})
        assert (purged.status, purged.json["purged"]) == (200, 1)
        assert on_disk(second) == both / 2
        assert bytes_in(tmp_path / "kv") < 0.7 * written
        assert [(await ask(tag)).cache for tag in ("a", "b")] == ["MISS", "HIT"]
        assert second.engine.stats()["disk"]["tokens_loaded"] == 0, "it was read anew"
        assert cached_tokens(await ask("b", "?")) > 0
        assert second.engine.stats()["disk"]["tokens_loaded"] > 0


def cached_tokens(got: Got) -> int:
    return int(got.json["usage"]["prompt_tokens_details"]["cached_tokens"])


def on_disk(engine: Served) -> int:
    assert engine.engine.disk is not None
    return engine.engine.disk.stats().blocks


def bytes_in(folder: Path) -> int:
    """That are not zero, in its segments."""
    raw = b"".join(file.read_bytes() for file in folder.rglob("*.blocks"))
    return len(raw) - raw.count(0)


async def test_an_engine_that_did_not_purge_is_named(stage: Stage) -> None:
    async def fail(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "broken"}}, 500)

    stage.upstream.script = fail
    pools = {"local": Upstream(urls=[stage.upstream.url], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)
    got = await gateway.post("/cache/purge", {"tags": ["a"]})
    assert got.status == 502
    assert f"{stage.upstream.url}: it answered 500" in got.json["error"]["message"]
    assert stage.upstream.seen[-1].json == {"tags": ["a"]}


async def test_other_upstreams_are_not_asked(stage: Stage) -> None:
    gateway = await stage.gateway()
    assert (await gateway.post("/cache/purge", {"all": True})).status == 200
    assert stage.upstream.calls == 0


PATHS = (
    "/kv/purge", "/v1/kv/purge", "/v1//kv/purge", "/v1/%6bv/purge", "/kv/purge/", "/v1/v1/kv/purge",
    "/kv/limits", "/v1/kv/limits", "/kv/explain", "/kv/preload", "/v1/models%2f..%2fkv/purge",
)  # fmt: skip


async def test_clients_do_not_reach_what_only_the_gateway_may_ask_an_engine(
    stage: Stage, engine: Served
) -> None:
    pools = {"local": Upstream(urls=[f"{engine.url}/v1"], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)
    await gateway.chat(TEXT, model="tiny", max_tokens=2)
    kept, most = blocks(engine), engine.engine.stats()["memory"]["max_bytes"]
    assert kept > 0
    key = {"authorization": "Bearer anybody's"}
    for path in PATHS:
        for body in ({"all": True}, {"memory": 2**20}):
            got = await gateway.post(path, body, headers=key)
            assert (path, got.status) in ((path, 400), (path, 404))
    assert blocks(engine) == kept
    assert engine.engine.stats()["memory"]["max_bytes"] == most


@pytest.mark.parametrize("path", ["/kv/stats", "/v1/kv/stats", "/v1/metrics"])
async def test_clients_do_not_see_an_engines_counts(stage: Stage, path: str) -> None:
    pools = {"local": Upstream(urls=[stage.upstream.url], engine_secret=SECRET)}
    gateway = await stage.gateway(upstreams=pools)
    assert (await gateway.get(path)).status == 404
    assert stage.upstream.calls == 0
