"""LangChain's cache: its own standard suites, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from langchain_core.caches import BaseCache
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from gateway.conftest import MovableClock
from thinkonce import Cache, ConfigError
from thinkonce.langchain import ThinkOnceCache


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db"


@pytest.fixture
def known(store: str) -> Iterator[ThinkOnceCache]:
    cache = ThinkOnceCache(store=store)
    yield cache
    cache.close()


class TestBlocking(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, known: ThinkOnceCache) -> BaseCache:
        return known


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, known: ThinkOnceCache) -> BaseCache:
        return known


CALL = {"name": "weather", "args": {"city": "Zürich", "n": 1.5}, "id": "c1", "type": "tool_call"}
USAGE = {
    "input_tokens": 3,
    "output_tokens": 4,
    "total_tokens": 7,
    "input_token_details": {"cache_read": 2},
}
ANSWER = AIMessage(
    content=[{"type": "text", "text": "hi"}, {"type": "reasoning", "summary": []}],
    id="run-1",
    name="bot",
    additional_kwargs={"refusal": None, "raw": b"\x00", "deep": {"a": [1, None]}},
    response_metadata={"finish_reason": "tool_calls", "logprobs": {"content": [{"p": -0.5}]}},
    tool_calls=[CALL],  # type: ignore[list-item]
    invalid_tool_calls=[
        {"name": "x", "args": "{", "id": "c2", "error": "odd", "type": "invalid_tool_call"}
    ],
    usage_metadata=USAGE,  # type: ignore[arg-type]
)


@pytest.mark.parametrize(
    "generations",
    [
        [ChatGeneration(message=ANSWER, generation_info={"finish_reason": "stop"})],
        [ChatGeneration(message=AIMessage("a")), ChatGeneration(message=AIMessage("b"))],
        [ChatGeneration(message=ToolMessage("done", tool_call_id="c1", artifact={"k": [1]}))],
        [ChatGenerationChunk(message=AIMessageChunk("piece", id="x"))],
        [Generation(text="t", generation_info={"n": 1}), GenerationChunk(text="c")],
        [],
    ],
    ids=["everything", "two", "tool", "chunk", "texts", "none"],
)
def test_generations_come_back_as_they_were(known: ThinkOnceCache, generations: list[Any]) -> None:
    known.update("p", "m", generations)
    for _ in "12":
        found = known.lookup("p", "m")
        assert found == generations
        assert [type(each) for each in found or ()] == [type(each) for each in generations]


def test_nobody_can_change_anothers_hit(known: ThinkOnceCache) -> None:
    known.update("p", "m", [ChatGeneration(message=AIMessage("right"))])
    first: Any = known.lookup("p", "m")
    first[0].message.content = "poisoned"
    first[0].message.additional_kwargs["x"] = 1
    again: Any = known.lookup("p", "m")
    assert (again[0].message.content, again[0].message.additional_kwargs) == ("right", {})


class Sneaky(AIMessage):
    """A subclass that would come back as something else."""


class Odd(Generation):
    pass


@pytest.mark.parametrize(
    "generation",
    [
        ChatGeneration(message=Sneaky("a")),
        Odd(text="a"),
        Generation(text="a", generation_info={"what": object()}),
        Generation(text="a", generation_info={"pair": (1, 2)}),
    ],
    ids=["message", "generation", "object", "tuple"],
)
def test_what_would_come_back_otherwise_is_not_kept(
    known: ThinkOnceCache, generation: Generation
) -> None:
    known.update("p", "m", [generation])
    assert known.lookup("p", "m") is None


@pytest.mark.parametrize(
    "kept",
    [
        b"\xff",
        msgspec.msgpack.encode([{"kind": "Popen", "text": "", "info": None, "message": {}}]),
        msgspec.msgpack.encode(
            [{"kind": "ChatGeneration", "text": "", "info": None, "message": {"type": "os"}}]
        ),
        {"lc": 1, "type": "constructor", "id": ["subprocess", "Popen"], "kwargs": {}},
    ],
    ids=["garbage", "class", "message", "lc"],
)
def test_what_cannot_be_rebuilt_is_a_miss(known: ThinkOnceCache, kept: Any) -> None:
    known.update("p", "m", [Generation(text="right")])
    known.cache.set(("langchain-1", "p", "m"), kept, namespace="langchain")
    assert known.lookup("p", "m") is None


def test_an_answer_lives_as_long_as_it_was_told() -> None:
    moving = MovableClock()
    cache = Cache(jitter=0, early_refresh=0, clock=moving.clock)
    known = ThinkOnceCache(cache, life="5m", tags=["faq"])
    known.update("p", "m", [Generation(text="a")])
    moving.move(299)
    assert known.lookup("p", "m") is not None
    moving.move(2)
    assert known.lookup("p", "m") is None


def test_clearing_leaves_what_others_keep_in_the_same_cache(store: str) -> None:
    with Cache(store) as cache:
        cache.set("mine", "kept")
        one, other = ThinkOnceCache(cache, tags=["a"]), ThinkOnceCache(cache, namespace="other")
        for each in (one, other):
            each.update("p", "m", [Generation(text="a")])
        one.clear(tags="b")
        assert one.lookup("p", "m") is not None
        one.clear()
        assert one.lookup("p", "m") is None
        assert other.lookup("p", "m") is not None
        one.close()
        assert cache.get("mine") == "kept"


async def test_models_ask_once(known: ThinkOnceCache) -> None:
    chat = FakeListChatModel(responses=["one", "two"], cache=known)
    said = [chat.invoke("hi"), chat.invoke("hi"), await chat.ainvoke("hi")]
    assert {each.content for each in said} == {"one"}
    llm = FakeListLLM(responses=["one", "two"], cache=known)
    assert {llm.invoke("hi"), llm.invoke("hi"), await llm.ainvoke("hi")} == {"one"}
    assert known.cache.stats()["hits"] == 4


def test_a_restart_finds_what_was_kept(tmp_path: Path) -> None:
    generations = [ChatGeneration(message=ANSWER)]
    for expected in (None, generations):
        known = ThinkOnceCache(store=f"sqlite:///{tmp_path}/a.db")
        assert known.lookup("p", "m") == expected
        known.update("p", "m", generations)
        known.close()


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="ttl='soon'"):
        ThinkOnceCache(life="soon")
    with pytest.raises(ConfigError, match="ttl=5"):
        ThinkOnceCache(Cache(), ttl=5)
