"""What all four transports do: as the gateway does, in the user's own process."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from adapters.conftest import Client, Stage
from gateway.conftest import until
from gateway.upstream import Out, Seen, Upstream, completion, once
from gateway.whole_provider import provide
from thinkonce import Cache

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("streaming", [True, False])
async def test_many_askers_at_once_are_one_call(
    client: Client, upstream: Upstream, streaming: bool
) -> None:
    go = asyncio.Event()

    upstream.script = once(go, provide)
    asking = [asyncio.create_task(client.chat(stream=streaming)) for _ in range(12)]
    await upstream.called()
    await until(lambda: _waiting(client, 12))
    go.set()
    got = await asyncio.gather(*asking)
    assert sorted(each.cache for each in got) == ["COALESCED"] * 11 + ["MISS"]
    assert {each.streamed_text if streaming else each.text for each in got} == {"hello"}
    assert upstream.calls == 1
    assert (client.stats["misses"], client.stats["coalesced"]) == (1, 11)


def _waiting(client: Client, count: int) -> bool:
    flights = client.transport.cache.shelf.flights._table.values()
    return sum(flight.followers for flight in flights) >= count


@pytest.mark.parametrize(
    "path", ["/threads/thread_1/messages", "/files", "/chat/completions/id", "/audio/speech"]
)
async def test_what_is_none_of_ours_passes_untouched(
    client: Client, upstream: Upstream, path: str
) -> None:
    odd = {"X-Odd": "1", "cache-control": "no-store", "x-thinkonce-tags": "a"}
    for _ in range(2):
        got = await client.post(path, {"model": "m", "kv_cache": {"ttl": 1}}, odd)
        assert (got.status, got.cache) == (200, "")
    assert upstream.calls == 2
    seen = upstream.seen[0]
    assert seen.json == {"model": "m", "kv_cache": {"ttl": 1}}
    assert {name: seen.headers[name.lower()] for name in odd} == odd


async def test_an_upload_is_streamed_and_not_held(client: Client, upstream: Upstream) -> None:
    async def listen(seen: Seen, out: Out) -> None:
        await out.json({"path": seen.path})

    upstream.script = listen
    files = {"file": ("a.txt", b"text", "text/plain")}
    got = await client.call("post", client.url + "/chat/completions", files=files)
    assert "x-cache" not in got.headers
    assert b'filename="a.txt"' in upstream.seen[0].body
    got = await client.call("get", client.url + "/models")
    assert (got.json()["path"], "x-cache" in got.headers) == ("/v1/models", False)


async def test_two_base_urls_never_share(stage: Stage, client: Client) -> None:
    other = await stage.another_upstream()
    assert (await client.chat()).cache == "MISS"
    assert (await client.post(other.url + "/chat/completions", ASKED)).cache == "MISS"
    elsewhere = stage.upstream.url.removesuffix("/v1") + "/other/v1/chat/completions"
    bare = stage.upstream.url.removesuffix("/v1") + "/chat/completions"
    assert [(await client.post(url, ASKED)).cache for url in (elsewhere, bare)] == ["MISS"] * 2
    assert (stage.upstream.calls, other.calls) == (3, 1)
    assert (await client.chat()).cache == "HIT"


async def test_what_is_declared_one_pool_shares(stage: Stage) -> None:
    client, other = stage.client(pool="main"), await stage.another_upstream()
    assert (await client.chat()).cache == "MISS"
    assert (await client.post(other.url + "/chat/completions", ASKED)).cache == "HIT"


async def test_two_credentials_share_only_as_a_group(stage: Stage, client: Client) -> None:
    keys = [{"authorization": "Bearer 1"}, {"authorization": "Bearer 2"}, {"x-api-key": "3"}]
    assert [(await client.chat(headers=each)).cache for each in keys] == ["MISS"] * 3
    grouped = stage.client(group="team")
    assert [(await grouped.chat(headers=each)).cache for each in keys] == ["MISS", "HIT", "HIT"]
    sent = [seen.headers.get("authorization") for seen in stage.upstream.seen]
    assert sent == ["Bearer 1", "Bearer 2", "Bearer k", "Bearer 1"]


async def test_every_header_counts_and_travels_unless_it_is_known_harmless(
    client: Client, upstream: Upstream
) -> None:
    async def ask(**headers: str) -> str:
        return (
            await client.chat(headers={k.replace("_", "-"): v for k, v in headers.items()})
        ).cache

    assert await ask() == "MISS"
    assert await ask(x_portkey_config="a") == "MISS"
    assert await ask(x_portkey_config="b", baggage="1") == "MISS"
    assert await ask(x_portkey_config="b", traceparent="00-1-2-01", user_agent="x") == "HIT"
    assert await ask(cookie="__cf_bm=abc; _cfuvid=1") == "HIT", "Cloudflare's own come and go"
    assert await ask(cookie="__cf_bm=abc; session=1") == "MISS"
    assert [seen.headers.get("x-portkey-config") for seen in upstream.seen[:3]] == [None, "a", "b"]
    assert upstream.seen[2].headers["baggage"] == "1"
    assert upstream.seen[-1].headers["cookie"] == "__cf_bm=abc; session=1", "as it was written"


async def test_controls_are_obeyed_and_stay_here(client: Client, upstream: Upstream) -> None:
    controls = {"kv_cache": {"namespace": "v1", "tags": ["a"]}}
    told = {"x-thinkonce-priority": "high", "cache-control": "max-stale=5"}
    assert [(await client.chat(headers=told, **controls)).cache for _ in "12"] == ["MISS", "HIT"]
    assert upstream.seen[0].json == ASKED
    assert not {"x-thinkonce-priority", "cache-control"} & upstream.seen[0].headers.keys()
    assert (await client.chat()).cache == "MISS", "another namespace"
    assert (await client.chat(kv_cache={"enabled": False})).cache == "BYPASS"
    assert (await client.chat(headers={"cache-control": "no-cache"})).cache == "REFRESH"
    lacking = await client.chat("new", headers={"cache-control": "only-if-cached"})
    assert (lacking.status, lacking.json["error"]["code"]) == (504, "not_cached")
    wrong = await client.chat(kv_cache={"tll": 1})
    assert (wrong.status, "kv_cache.tll" in wrong.json["error"]["message"]) == (400, True)
    assert client.transport.cache.purge(tags="a") == 1


async def test_a_transport_names_what_requests_do_not(stage: Stage) -> None:
    client = stage.client(namespace="app", tags=["a", "b"], priority="low")
    assert [(await client.chat()).cache for _ in "12"] == ["MISS", "HIT"]
    assert (await client.chat(kv_cache={"namespace": "own"})).cache == "MISS"
    assert client.transport.cache.purge(namespace="app", tags="b") == 1
    assert client.stats["by_priority"] == {"low": 1}


@pytest.mark.parametrize(
    "body", [b"{", b'{"model": 1}', b"[]", b'{"model": "m", "stream": "x"}'], ids=repr
)
async def test_what_only_the_provider_can_judge_is_left_to_it(
    client: Client, upstream: Upstream, body: bytes
) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "theirs"}}, 422)

    upstream.script = refuse
    got = await client.post("/chat/completions", body)
    assert (got.status, got.json["error"]["message"]) == (422, "theirs")
    assert upstream.seen[0].body == body


async def test_a_bodys_bytes_are_the_providers_where_nothing_is_annotated(
    stage: Stage, upstream: Upstream
) -> None:
    spaced = json.dumps(completion("x" * 100_000), indent=3).encode()

    async def speak(seen: Seen, out: Out) -> None:
        await out.whole(spaced, x_request_id="req-theirs", server="odd", set_cookie="__cf_bm=b")

    upstream.script = speak
    client = stage.client(annotate_body=False)
    first, second = [await client.chat() for _ in "12"]
    assert first.body == second.body == spaced
    assert first.headers["x-request-id"] == "req-theirs", "what the provider's support asks for"
    assert second.headers["x-request-id"] != "req-theirs"
    assert ("set-cookie" in first.headers, "set-cookie" in second.headers) == (True, False)


async def test_a_compressed_answer_is_kept_plain(client: Client, upstream: Upstream) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        assert seen.headers["accept-encoding"] == "gzip, deflate"
        await out.whole(gzip.compress(json.dumps(completion()).encode()), content_encoding="gzip")

    upstream.script = speak
    assert [(await client.chat()).text for _ in "12"] == ["hello", "hello"]
    assert upstream.calls == 1


async def test_a_coding_nobody_here_knows_is_left_to_the_client(
    client: Client, upstream: Upstream
) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.whole(b"?", content_encoding="odd")

    upstream.script = speak
    for _ in "12":
        got = await client.chat()
        assert (got.headers["content-encoding"], got.body) == ("odd", b"?")
    assert upstream.calls == 2


async def test_an_error_of_the_providers_is_passed_on_and_not_kept(
    client: Client, upstream: Upstream
) -> None:
    async def refuse(seen: Seen, out: Out) -> None:
        await out.json({"error": {"message": "slow down"}}, 429, retry_after="7")

    upstream.script = refuse
    for _ in "12":
        got = await client.chat()
        assert (got.status, got.headers["retry-after"]) == (429, "7")
        assert got.json == {"error": {"message": "slow down"}}
    assert upstream.calls == 2


async def test_a_cache_that_cannot_be_read_breaks_no_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache()

    def gone(*_: Any) -> Any:
        raise OSError("disk gone")

    client = stage.client(cache=cache)
    assert (await client.chat()).cache == "MISS"
    monkeypatch.setattr(cache.shelf.keyer, "key_of", gone)
    monkeypatch.setattr(cache.shelf, "probe", gone)
    got = await client.chat("another", kv_cache={"tags": ["a"]})
    assert (got.status, got.text, got.cache) == (200, "hello", "BYPASS")
    assert stage.upstream.seen[-1].json == ASKED | {
        "messages": [{"role": "user", "content": "another"}]
    }
    monkeypatch.setattr("thinkonce.adapters.bench.Bench._call", gone)
    monkeypatch.setattr("thinkonce.adapters.transport.question_of", gone)
    assert (await client.chat("a third")).text == "hello"


async def test_samples_of_a_request_are_given_in_turn(stage: Stage, upstream: Upstream) -> None:
    async def speak(seen: Seen, out: Out) -> None:
        await out.json(completion(f"answer {upstream.calls}"))

    upstream.script = speak
    client = stage.client(samples=2)
    texts = [(await client.chat()).text for _ in range(4)]
    assert texts == ["answer 1", "answer 2"] * 2


async def test_one_cache_serves_several_transports(stage: Stage) -> None:
    with Cache(ttl="1h") as cache:
        one, other = stage.client(cache=cache), stage.client(cache=cache)
        assert [(await each.chat()).cache for each in (one, other)] == ["MISS", "HIT"]
        assert (cache.stats()["hits"], cache.stats()["misses"]) == (1, 1)


async def test_usage_is_asked_for_on_behalf_of_a_stream(stage: Stage, upstream: Upstream) -> None:
    client = stage.client(ask_usage=True)
    got = await client.chat(stream=True)
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    assert all(not event.get("usage") for event in got.events[:-1])
    again = await client.chat(stream=True, stream_options={"include_usage": True})
    assert again.cache == "HIT"
    assert again.events[-2]["usage"]["total_tokens"] == 18
