"""One list of models for all pools."""

from __future__ import annotations

from gateway.conftest import Stage
from gateway.upstream import Out, Script, Seen
from thinkonce.settings import Upstream as Pool


def listing(owner: str, *ids: str) -> Script:
    async def script(seen: Seen, out: Out) -> None:
        assert seen.path == "/v1/models"
        data = [{"id": name, "object": "model", "owned_by": owner} for name in ids]
        await out.json({"object": "list", "data": data})

    return script


async def test_the_models_of_all_pools_are_one_list_and_the_first_pool_wins(stage: Stage) -> None:
    other = await stage.another_upstream()
    stage.upstream.script = listing("first", "a", "shared")
    other.script = listing("second", "shared", "b")
    pools = {"one": Pool(urls=[stage.upstream.url]), "two": Pool(urls=[other.url])}
    gateway = await stage.gateway(upstreams=pools)
    for path in ("/v1/models", "/models"):
        got = await gateway.get(path)
        assert (got.status, got.cache) == (200, "BYPASS")
        listed = [(model["id"], model["owned_by"]) for model in got.json["data"]]
        assert listed == [("a", "first"), ("shared", "first"), ("b", "second")]


async def test_the_list_of_the_only_pool_comes_as_it_is(stage: Stage) -> None:
    theirs = b'{"data": [{"type": "model", "id": "claude-x"}], "has_more": false, "first_id": "a"}'

    async def script(seen: Seen, out: Out) -> None:
        await out.whole(theirs)

    stage.upstream.script = script
    gateway = await stage.gateway()
    got = await gateway.get("/v1/models", {"anthropic-version": "2023-06-01"})
    assert (got.status, got.cache, got.body) == (200, "BYPASS", theirs)


async def test_a_pool_that_is_down_or_refuses_or_talks_nonsense_is_left_out(stage: Stage) -> None:
    other, gone = await stage.another_upstream(), await stage.another_upstream()
    await gone.stop()
    other.script = listing("second", "b")
    urls = {"main": stage.upstream.url, "gone": gone.url, "two": other.url}
    pools = {name: Pool(urls=[url]) for name, url in urls.items()}
    gateway = await stage.gateway(upstreams=pools, gateway={"retries": 0})

    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "who are you"}}, 401)

    async def nonsense(seen: Seen, out: Out) -> None:
        await out.whole(b"<html>")

    for script in (refuse, nonsense):
        stage.upstream.script = script
        got = await gateway.get("/v1/models")
        assert [model["id"] for model in got.json["data"]] == ["b"]
    stage.upstream.script = other.script = refuse
    assert (await gateway.get("/v1/models")).status == 401, "the first failure, where all fail"


async def test_a_credential_is_shown_to_one_party_only(stage: Stage) -> None:
    other = await stage.another_upstream()
    shown: dict[str, tuple[str | None, bool]] = {}

    def noting(owner: str) -> Script:
        async def script(seen: Seen, out: Out) -> None:
            shown[owner] = (seen.headers.get("authorization"), "secret" in seen.path)
            await out.json({"object": "list", "data": []})

        return script

    stage.upstream.script, other.script = noting("first"), noting("second")
    pools = {"one": Pool(urls=[stage.upstream.url]), "two": Pool(urls=[other.url])}
    gateway = await stage.gateway(upstreams=pools)
    await gateway.get("/v1/models?key=secret", {"authorization": "Bearer secret"})
    assert shown == {"first": ("Bearer secret", True), "second": (None, False)}
