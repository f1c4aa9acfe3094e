"""Answers of modules audited: read again with nothing loaded, at the same positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import network, never
from test_prompt_modules import CHUNK, NOISE, cut, prompt, words

from thinkonce.kv import Engine
from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.modules.laying import laid_out
from thinkonce.kv.modules.prompt import ModulePrompt, SchemaPrompt
from thinkonce.kv.modules.reader import ModuleReader
from thinkonce.kv.modules.schema import Module, Schema
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.reuse.audits import PLACES, Audits
from thinkonce.kv.reuse.measured import MeasuredWays
from thinkonce.kv.reuse.meter import Audit
from thinkonce.kv.reuse.rotation import Rotation

pytestmark = pytest.mark.usefixtures("one_thread")
PERSONA = """
<schema name="persona">
  <system>
    Answer as the person below would, with what such a person knows and in few words.
    <union>
      <module name="doctor">I am a doctor in a town by the sea, and I like to explain things.
      </module>
      <module name="farmer">I am a farmer, up before the sun, and I say little.
      </module>
    </union>
    Never say that you are a model; be kind, be brief, and answer in the language of the question.
  </system>
</schema>
"""


class Server:
    """A generator of modules, and the audits of its answers."""

    def __init__(self) -> None:
        model = network("llama", torch.float32)
        index: PrefixIndex[torch.Tensor] = PrefixIndex(1 << 24)
        self.keeping = Keeping(model, chunk_tokens=CHUNK, fingerprint=bytes(32), kept=index)
        exact = ExactReader(self.keeping)
        self.audits = Audits(self.keeping, exact, Rotation(model))
        self.ways = MeasuredWays((), self.keeping.shape.layers, self.audits)
        readers: Any = [ModuleReader(self.keeping, self.ways), exact]
        self.generator = ReusingGenerator(self.keeping, frozenset(), readers)

    def asked(self, asked: ModulePrompt) -> None:
        for _ in self.generator.preload(Asking.of(SchemaPrompt.made(asked.layout)), never):
            pass
        for _ in range(30):
            assert self.generator.read(Asking.of(asked), never) is not None
            if self.audits.waiting:
                return
        raise AssertionError("no answer was audited")

    def audited(self) -> tuple[Audit | None, int]:
        found = list[tuple[Audit | None, int]]()

        def told(pending: Any, audit: Audit | None, spent: int) -> None:
            found.append((audit, spent))
            self.ways.told(pending, audit, spent)

        for _ in self.audits.run(never, told):
            pass
        return found[-1]


def test_modules_in_the_company_they_were_read_in_are_exact() -> None:
    schema = Schema("one", (words(20, "begin"), Module("plan", (words(60, "plan"),))))
    asked = prompt("plan", layout=laid_out(schema, cut, 3))
    server = Server()
    server.asked(asked)
    before = server.keeping.stats
    audit, spent = server.audited()
    assert audit is not None
    assert (audit.agreed, audit.tokens) == (PLACES, PLACES)
    assert audit.divergence < NOISE
    assert spent >= len(asked)
    assert server.keeping.stats == before, "an audit counts as no prompt"
    assert server.keeping.slabs.under_way == 0


def test_modules_in_other_company_are_told_apart_and_published() -> None:
    server = Server()
    server.asked(prompt("hills", "hut"))
    audit, _ = server.audited()
    assert audit is not None
    assert audit.divergence > NOISE, "its texts were read behind others"
    told = server.ways.stats()
    numbers = told["settings"]["modules"]
    assert numbers["audits"] == numbers["in_force"] == 1
    assert numbers["kl"] == pytest.approx(audit.divergence, abs=1e-4)
    explained = server.generator.explain(
        Asking.of(prompt("hills", "hut"), terms=Terms(explains=True))
    )
    assert explained.fidelity is not None
    assert (explained.fidelity.steps, explained.fidelity.audits) == (("modules",), 1)


def test_leaving_the_bounds_is_an_alarm_once_and_changes_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.asked(prompt("hills"))
    (pending,) = server.audits._waiting
    for _ in range(20):
        server.ways.told(pending, Audit(1.0, 2), 100)
    assert server.ways.stats()["alarms"] == 1
    assert server.ways.stats()["settings"]["modules"]["verdict"] == "fails"
    assert "answers of modules left the bounds" in caplog.text
    found = server.generator.read(Asking.of(prompt("hills")), never)
    assert found is not None
    assert found.cached_tokens > 0


def test_what_was_purged_is_not_audited() -> None:
    server = Server()
    server.asked(prompt("hills"))
    server.keeping.purges.add(PurgeRule())
    assert server.audited() == (None, 0)


def test_an_engine_audits_a_sample_of_them(model_folder: Path) -> None:
    with Engine.open(str(model_folder), chunk=64) as engine:
        name = engine.schema(PERSONA)
        for number in range(12):
            question = [{"role": "user", "content": str(number)}]
            found = engine.chat(question, schema=name, modules=["farmer"], max_tokens=1)
        assert found.explain.fidelity is not None
        assert engine.stats()["fidelity"]["audits_waiting"] > 0
        assert engine.audit() == 0
        told = engine.stats()["fidelity"]["settings"]["modules"]
        assert told["answers"] == 12
        assert 0 < told["audits"] < 12
