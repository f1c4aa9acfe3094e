"""The official SDKs in front of a caching transport, blocking and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from adapters.conftest import kind_named
from gateway.conftest import until
from gateway.upstream import Out, Seen, Upstream, broken_off, chunks, completion
from gateway.whole_provider import VECTOR, provide
from thinkonce.httpx2 import AsyncCachingTransport, CachingTransport

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Sdk:
    """Both kinds of one SDK's client, called alike."""

    def __init__(self, kind: Any, is_async: bool, *wrapped: Any, **more: Any) -> None:
        self.is_async = is_async
        library = httpx2.AsyncClient if is_async else httpx2.Client
        transport = AsyncCachingTransport if is_async else CachingTransport
        self.transport = transport(*wrapped)
        self.client = kind(http_client=library(transport=self.transport), api_key="k", **more)

    async def create(self, path: str, **body: Any) -> Any:
        """The answer of `client.PATH.create`; of a stream its events."""

        def blocking() -> Any:
            made = self._method(path)(**body)
            return list(made) if body.get("stream") else made

        if not self.is_async:
            return await asyncio.to_thread(blocking)
        made = await self._method(path)(**body)
        return [event async for event in made] if body.get("stream") else made

    async def landed(self) -> None:
        """Wait until no call is under way."""
        await until(lambda: len(self.transport.cache.shelf.flights) == 0)

    def _method(self, path: str) -> Any:
        place = self.client
        for name in path.split("."):
            place = getattr(place, name)
        return place.create

    async def close(self) -> None:
        if self.is_async:
            await self.client.close()
        else:
            await asyncio.to_thread(self.client.close)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    provider = Upstream(provide)
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture(params=["blocking", "async"])
async def gpt(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Sdk]:
    is_async = request.param == "async"
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    plain = kind_named(f"httpx2-{request.param}").plain()
    sdk = Sdk(kind, is_async, plain, base_url=upstream.url, max_retries=1)
    yield sdk
    await sdk.close()


@pytest.fixture(params=["blocking", "async"])
async def claude(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Sdk]:
    is_async = request.param == "async"
    kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    sdk = Sdk(kind, is_async, base_url=upstream.url.removesuffix("/v1"), max_retries=0)
    yield sdk
    await sdk.close()


def marks_of(events: list[Any]) -> bool:
    """What the only event that says so says of the cache."""
    said = [event.model_extra["cache_hit"] for event in events if "cache_hit" in event.model_extra]
    assert len(said) == 1
    return bool(said[0])


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat.completions", ASKED),
        ("completions", {"model": "m", "prompt": "hi"}),
        ("responses", {"model": "m", "input": "hi"}),
    ],
    ids=["chat", "completions", "responses"],
)
async def test_openai_asks_once(
    gpt: Sdk, upstream: Upstream, path: str, body: dict[str, Any], streaming: bool
) -> None:
    body = body | ({"stream": True} if streaming else {})
    first = await gpt.create(path, **body)
    await gpt.landed()  # whoever stops at the end mark is ahead of it
    second = await gpt.create(path, **body)
    if streaming:
        assert [marks_of(events) for events in (first, second)] == [False, True]
        assert len(first) == len(second)
    else:
        assert (first.cache_hit, second.cache_hit) == (False, True)
    assert upstream.calls == 1


async def test_openai_embeds_what_is_unknown(gpt: Sdk, upstream: Upstream) -> None:
    first = await gpt.create("embeddings", model="m", input=["a", "b"])
    second = await gpt.create("embeddings", model="m", input=["b", "c", "a"])
    assert [row.embedding for row in (*first.data, *second.data)] == [VECTOR] * 5
    assert [seen.json["input"] for seen in upstream.seen] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_anthropic_asks_once(claude: Sdk, upstream: Upstream, streaming: bool) -> None:
    body = ASKED | {"max_tokens": 9} | ({"stream": True} if streaming else {})
    first = await claude.create("messages", **body)
    await claude.landed()
    second = await claude.create("messages", **body)
    if streaming:
        assert [event.type for event in first] == [event.type for event in second]
        assert second[-1].model_extra["cache_hit"] is True
    else:
        assert (first.cache_hit, second.cache_hit) == (False, True)
        assert first.content == second.content
    assert upstream.calls == 1


async def test_the_sdks_retry_as_without_a_cache(gpt: Sdk, upstream: Upstream) -> None:
    async def once_busy(seen: Seen, out: Out) -> None:
        if upstream.calls == 1:
            await out.json({"error": {"message": "busy"}}, 503, retry_after_ms="1")
        else:
            await out.json(completion())

    upstream.script = once_busy
    assert (await gpt.create("chat.completions", **ASKED)).cache_hit is False
    assert (upstream.calls, upstream.seen[1].headers["x-stainless-retry-count"]) == (2, "1")
    assert (await gpt.create("chat.completions", **ASKED)).cache_hit is True


async def test_errors_are_the_sdks_own(gpt: Sdk, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError, match=r"kv_cache\.tll"):
        await gpt.create("chat.completions", **ASKED, extra_body={"kv_cache": {"tll": 1}})
    assert upstream.calls == 0

    upstream.script = broken_off(chunks("half")[1])
    with pytest.raises((httpx2.HTTPError, openai.APIConnectionError)):
        await gpt.create("chat.completions", **ASKED, stream=True)
    await upstream.stop()
    with pytest.raises(openai.APIConnectionError):
        await gpt.create("chat.completions", **ASKED, timeout=5)
    await upstream.start(upstream.port)


async def test_many_threads_and_tasks_are_one_call(gpt: Sdk, upstream: Upstream) -> None:
    asked = [gpt.create("chat.completions", **ASKED) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    assert {each.choices[0].message.content for each in answers} == {"hello"}
    assert upstream.calls == 1
