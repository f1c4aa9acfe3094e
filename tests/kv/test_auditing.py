"""Audits in a server: while it has nothing else to do, and in its statistics."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from small_model import Served

from thinkonce.cli.app import main
from thinkonce.kv import Engine
from thinkonce.kv.serving.line.auditing import Auditing
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.line.ticket import Turn

TEXTS = [
    f"Document {place}: " + " ".join(f"{word} {place}{n}" for n in range(40))
    for place, word in enumerate(("fox", "dog", "capital", "memory"))
]


class Chores:
    """A `Spare` of so many turns; each says which job is under way."""

    def __init__(self, turns: int) -> None:
        self.left, self.closed = turns, 0
        self.turned = threading.Event()

    @property
    def waiting(self) -> int:
        return self.left

    def steps(self, cancelled: Callable[[], bool]) -> Iterator[Turn]:
        try:
            while self.left and not cancelled():
                self.left -= 1
                self.turned.set()
                yield Turn(read=1)
        finally:
            self.closed += 1


def test_spare_work_is_done_while_nothing_else_is_and_makes_room_for_answers() -> None:
    chores, order = Chores(10**9), list[str]()

    def answer(cancelled: Callable[[], bool]) -> Iterator[Turn]:
        for _ in range(3):
            order.append(f"{chores.closed} begun {chores.left}")
            yield Turn(made=1)

    scheduler = Scheduler(4, spare=chores)
    try:
        assert chores.turned.wait(10)
        scheduler.submit(answer, lambda why: None)
        assert scheduler.wait_until(lambda its: len(order) == 3 and not its.running, 10)
        lefts = {each.split()[-1] for each in order}
        assert order[0].startswith("1 begun"), "it was closed before the answer began"
        assert len(lefts) == 1, "and did nothing while the answer was under way"
        chores.turned.clear()
        assert chores.turned.wait(10), "then it goes on"
    finally:
        scheduler.close()


def test_the_end_of_a_server_waits_for_no_spare_work() -> None:
    chores = Chores(10**9)
    scheduler = Scheduler(4, spare=chores)
    assert chores.turned.wait(10)
    scheduler.close()
    assert chores.left > 0
    assert chores.closed == 1


def message(*order: int, ask: str = "") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": TEXTS[place], "kv_cache": {"id": f"doc-{place}"}}
        for place in order
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": f"{ask}?"}]}]


@pytest.mark.parametrize("reuse", ["link", "auto"])
def test_answers_are_audited_when_the_server_is_idle(
    served: Served, client: OpenAI, reuse: str, capsys: pytest.CaptureFixture[str]
) -> None:
    auditing, exact = Auditing(served.engine), []
    for number in range(60):
        order = (number % 4, (number + 1) % 4, (number + 2) % 4)
        turn: Any = message(*order, ask=str(number))
        body: Any = {"kv_cache": {"reuse": reuse}}
        found: Any = client.chat.completions.create(
            model="tiny", messages=turn, max_tokens=1, extra_body=body
        )
        exact.append(found.kv_cache["exact"])
        # The next request would interrupt an audit.
        assert served.scheduler.wait_until(lambda its: not (its.running or auditing.waiting), 30)
        settings = served.engine.stats()["fidelity"]["settings"]
        if any("audits" in each for each in settings.values()):
            break
    assert all(exact) if reuse == "auto" else not any(exact)
    told = httpx.get(f"{served.url}/kv/stats").json()["fidelity"]
    (setting,) = [name for name, numbers in told["settings"].items() if "audits" in numbers]
    numbers = told["settings"][setting]
    assert 0 <= numbers["agreement_low"] <= numbers["agreement"] <= numbers["agreement_high"] <= 1
    assert 0 <= numbers["kl_low"] <= numbers["kl"]
    assert numbers["kl_high"] is None, "one audit says nothing of how far it may be"
    assert told["bounds"] == {"agreement": 0.95, "kl": 0.05}
    assert told["steps"][reuse][-1] == "exact"
    in_force = {name for name, each in told["settings"].items() if "in_force" in each}
    assert in_force == {"exact" if reuse == "auto" else "link 16"}
    page = httpx.get(f"{served.url}/metrics").text
    assert f'thinkonce_kv_fidelity_audits{{setting="{setting}"}} {numbers["audits"]}.0' in page
    assert "thinkonce_kv_fidelity_audit_tokens_total" in page
    assert 'thinkonce_kv_fidelity_bound{measure="kl"} 0.05' in page
    assert f'thinkonce_kv_fidelity_in_force{{setting="{min(in_force)}"}} 1.0' in page
    assert main(["kv", "stats", "--url", served.url]) == 0
    out = capsys.readouterr().out
    assert "has to keep an agreement of 95% and a KL of 0.05 nats" in out
    assert re.search(rf"{re.escape(setting)} .*{numbers['agreement']:.1%} \(.* open", out)


def test_an_engine_audits_when_it_is_told_to(model_folder: Path) -> None:
    with closing(Engine.open(str(model_folder), chunk=64)) as engine:
        for number in range(8):
            order = [(number + place) % 4 for place in range(3)]
            documents = [TEXTS[place] for place in order]
            question = [{"role": "user", "content": str(number)}]
            engine.chat(question, documents=documents, reuse="link", max_tokens=1)
        assert engine.stats()["fidelity"]["audits_waiting"] > 0
        assert engine.audit() == 0
        told = engine.stats()["fidelity"]
        assert told["settings"]["link 16"]["audits"] > 0
        assert told["audit_tokens"] <= 0.3 * told["saved_tokens"] + 1000
