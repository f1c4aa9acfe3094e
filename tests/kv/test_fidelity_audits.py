"""Approximate answers read again exactly, on a small model: found, counted, and corrected."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from reuse.controls import Everything, Naive
from small_families import network, never, tokens

from thinkonce.kv.generation.exact import ExactReader
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Method, Prompt, Span
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.reuse.audits import PLACES, Audits, Pending, compared
from thinkonce.kv.reuse.ladder import EXACT
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.measured import MeasuredWays, stock_of
from thinkonce.kv.reuse.meter import Audit
from thinkonce.kv.reuse.reader import ChunkReader
from thinkonce.kv.reuse.rotation import Rotation
from thinkonce.kv.reuse.stock import STOCK as STOCK_TEXT
from thinkonce.kv.reuse.taught import Taught
from thinkonce.kv.reuse.ways import Way
from thinkonce.kv.weights.model import Model

pytestmark = pytest.mark.usefixtures("one_thread")
CHUNK, ROOM = 64, 1 << 24
STOCK = list(range(3, 40))
Told = list[tuple[Pending, Audit | None, int]]


DOCUMENTS = [tokens(100, 10 + number) for number in range(4)]


def prompt(*numbers: int, method: Method = "link", ask: int = 99) -> Prompt:
    made, spans = tokens(20, 1), []
    for number in numbers:
        spans.append(Span(len(made), len(made) + 100, method, f"doc-{number}"))
        made += DOCUMENTS[number]
    return Prompt([*made, *tokens(8, ask)], spans)


class Server:
    """A generator whose ways are measured, and its audits."""

    def __init__(self, model: Any, memory: int | None = None) -> None:
        index: PrefixIndex[torch.Tensor] = PrefixIndex(memory or ROOM)
        self.keeping = Keeping(
            model, chunk_tokens=CHUNK, fingerprint=bytes(32), kept=index, memory=memory
        )
        exact = ExactReader(self.keeping)
        self.audits = Audits(self.keeping, exact, Rotation(model))
        self.ways = MeasuredWays(STOCK, self.keeping.shape.layers, self.audits)
        chunks = ChunkReader(self.keeping, exact, self.ways)
        self.generator = ReusingGenerator(self.keeping, frozenset(), [chunks, exact])
        self.found: Told = []

    def read(self, asked: Prompt, owner: Owner = NOBODY) -> Reading:
        found = self.generator.read(Asking.of(asked, owner), never)
        assert found is not None
        return found

    def told(self, pending: Pending, audit: Audit | None, spent: int) -> None:
        self.found.append((pending, audit, spent))
        self.ways.told(pending, audit, spent)

    def run(self) -> Told:
        """All audits that wait."""
        self.found = []
        for _ in self.audits.run(never, self.told):
            pass
        return self.found

    def offer(self, asked: Prompt, way: Way) -> None:
        assert self.audits.offer(Asking(asked), way, "link", "link||")


@pytest.fixture
def server() -> Server:
    return Server(network("llama", torch.float32))


def test_agreement_and_divergence_are_those_of_the_distributions() -> None:
    truth = torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    same = compared(truth, truth + 7)
    assert same.divergence == pytest.approx(0.0, abs=1e-6)
    assert (same.agreed, same.tokens) == (2, 2)
    other = compared(truth, truth.flip(1))
    expected = torch.nn.functional.kl_div(
        truth.flip(1).log_softmax(-1), truth.log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert other.divergence == pytest.approx(float(expected), rel=1e-5)
    assert (other.agreed, other.tokens) == (1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_far_off_and_can_be_written_down(value: float) -> None:
    torch.manual_seed(0)
    truth = torch.randn(PLACES, 40)
    found = truth.clone()
    found[3, 7] = value
    audit = compared(truth, found)
    assert audit.divergence == pytest.approx(100 / PLACES, rel=0.01)
    written = msgspec.json.encode(Taught.of({"link 16": [audit]}, None, 0))
    assert msgspec.json.decode(written, type=Taught).each("link 16")[0].agreed == audit.agreed
    assert compared(found, truth).divergence >= 0, "the truth may be none either"


def test_a_token_that_cannot_come_either_way_is_no_difference() -> None:
    truth = torch.randn(PLACES, 40)
    truth[:, 7] = -float("inf")
    assert compared(truth, truth.clone()) == Audit(0.0, PLACES)


def test_an_audit_of_what_is_exact_finds_no_divergence(server: Server) -> None:
    server.read(prompt(0, 1))
    server.offer(prompt(0, 1), Way(Link(40), lambda front: STOCK))
    half = server.run()[-1][1]
    server.offer(prompt(0, 1), Way(Naive(), lambda front: STOCK))
    naive = server.run()[-1][1]
    assert half is not None
    assert naive is not None
    assert half.tokens == naive.tokens == PLACES
    assert 0 <= half.divergence < naive.divergence, "more is computed, less is wrong"
    assert naive.divergence > 1e-3


def test_what_costs_as_much_as_reading_is_not_audited(server: Server) -> None:
    server.offer(prompt(0, 1), Way(Everything(), lambda front: STOCK))
    [(_, audit, spent)] = server.run()
    assert audit is None
    assert spent == 0
    assert server.audits.waiting == 0


def test_an_audit_counts_in_no_statistics_of_prompts(server: Server) -> None:
    server.read(prompt(0, 1))
    before = server.keeping.stats
    server.offer(prompt(0, 1), Way(Link(16), lambda front: STOCK))
    [(_, audit, spent)] = server.run()
    assert audit is not None
    assert spent >= len(prompt(0, 1))
    assert server.keeping.stats == before
    assert server.keeping.slabs.under_way == 0


def test_an_audit_that_is_interrupted_begins_anew_and_is_given_up_in_the_end(
    server: Server,
) -> None:
    server.offer(prompt(0, 1), Way(Link(16), lambda front: STOCK))
    for tries in range(1, 9):
        assert server.audits.waiting == 1
        steps = server.audits.run(never, server.told)
        next(steps)
        next(steps)
        steps.close()
        assert server.keeping.slabs.under_way == 0, "nothing stays taken"
        assert [audit for _, audit, _ in server.found] == [None] * tries
    assert server.audits.waiting == 0


def test_what_was_purged_meanwhile_is_not_read_again(server: Server) -> None:
    server.read(prompt(0, 1))
    server.offer(prompt(0, 1), Way(Link(16), lambda front: STOCK))
    server.keeping.purges.add(PurgeRule())
    [(_, audit, spent)] = server.run()
    assert (audit, spent) == (None, 0)


def test_prompts_that_wait_are_purged_too(server: Server) -> None:
    way = Way(Link(16), lambda front: STOCK)
    for tenant in ("one", "two"):
        asking = Asking(prompt(0, 1), Owner(tenant))
        assert server.audits.offer(asking, way, "link", f"link|{tenant}|")
    server.audits.purge(PurgeRule(tenant="one").holds)
    assert server.audits.waiting == 1
    server.audits.purge(PurgeRule(document="doc-1").holds)
    assert server.audits.waiting == 0


def test_only_so_many_prompts_wait(server: Server) -> None:
    way = Way(Link(16), lambda front: STOCK)
    taken = [server.audits.offer(Asking(prompt(0, 1)), way, "link", "link||") for _ in range(12)]
    assert sum(taken) == server.audits.waiting == 8


def test_counting_that_fails_costs_no_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Server, *args: object) -> None:
        raise RuntimeError("no count")

    monkeypatch.setattr(MeasuredWays, "_budget", broken)
    assert server.read(prompt(0, 1)).logits.numel()
    assert server.read(prompt(0, 1, method="auto")).logits.numel()
    assert [record.message for record in caplog.records] == [
        "an answer with marked parts was not counted"
    ] * 2


def test_a_document_is_known_behind_every_head(server: Server) -> None:
    """Its state was computed behind a fixed text, which says nothing of it."""
    first = prompt(0, 1, 2)
    assert server.read(first).reused.total == 0
    head, moved = tokens(33, 7), []
    for span in first.spans:
        moved.append(Span(span.start + 13, span.end + 13, "link", span.document))
    other = Prompt([*head, *first[20:]], moved)
    found = server.generator.explain(Asking.of(other, terms=Terms(explains=True)))
    assert [chunk.memory_tokens for chunk in found.chunks] == [100, 100, 100]
    assert {chunk.was for chunk in found.chunks} == {len(STOCK)}


def test_the_text_that_chunks_are_encoded_behind_begins_as_every_text_does(model: Model) -> None:
    whole = tuple(model.tokenizer.encode(STOCK_TEXT))
    assert stock_of(model.tokenizer, 1 << 20) == whole[:384]
    assert stock_of(model.tokenizer, 400) == whole[:50], "an eighth of a short context"


def test_link_that_is_not_faithful_climbs_until_reading_exactly_is_as_cheap() -> None:
    """Random weights: chunks matter to one another, and no setting is near the bounds."""
    server = Server(network("qwen3", torch.float32))
    for number in range(400):
        reading = server.read(prompt(*[(0, 1, 2), (2, 0, 3), (3, 2, 1)][number % 3], ask=number))
        server.run()
        if reading.reused.is_exact:
            break
    told = server.ways.stats()
    assert told["steps"]["blend"] == ("blend 0.15", "blend 0.25", "blend 0.4", EXACT)
    assert reading.reused.is_exact, "link 64 of chunks of 100 tokens is not worth its while"
    assert told["alarms"] == 2
    assert told["settings"]["link 16"]["audits"] <= 40
    assert told["settings"]["link 32"]["audits"] <= 40
    assert told["settings"]["link 64"]["in_force"] == 1
    asking = Asking(prompt(0, 1, 2))
    stepped = server.ways.fidelity("link", EXACT, asking)
    assert stepped is not None
    assert (stepped.setting, stepped.verdict, stepped.steps[-1]) == (EXACT, "holds", EXACT)
    assert told["audit_tokens"] <= 0.25 * told["saved_tokens"]


def test_auto_is_exact_at_first_and_measures_beside(server: Server) -> None:
    for number in range(60):
        reading = server.read(prompt(0, 1, 2, 3, method="auto", ask=number))
        assert reading.reused.is_exact
        if server.audits.waiting:
            break
    assert server.audits.waiting >= 1
    assert any(audit is not None for _, audit, _ in server.run())
    told = server.ways.stats()
    assert told["settings"][EXACT]["answers"] == number + 1
    assert told["saved_tokens"] == 0
