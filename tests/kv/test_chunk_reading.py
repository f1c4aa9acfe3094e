"""Prompts whose documents were read before, in another order: found, moved, never mistaken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reuse.controls import Everything
from small_families import network, never, tokens

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.disk.tier import DiskTier
from thinkonce.kv.generation.exact import ExactReader, exact_generator
from thinkonce.kv.generation.generator import Kept, Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.reading import Reading
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.blocks import blocks_of, chunk_blocks
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.prompt import Method, Prompt, Span
from thinkonce.kv.prefix.purges import PurgeRule, Purges
from thinkonce.kv.prefix.terms import Terms
from thinkonce.kv.reuse.link import Link
from thinkonce.kv.reuse.reader import ChunkReader
from thinkonce.kv.reuse.ways import FixedWays, Way

pytestmark = pytest.mark.usefixtures("one_thread")
CHUNK = 16
MODEL = bytes(32)
ROOM = 1 << 24
LINK: dict[Method, Way] = {"link": Way(Link(8))}


def alone(front: Sequence[int]) -> Sequence[int]:
    """Chunks are encoded behind nothing."""
    return ()


ALL: dict[Method, Way] = {"link": Way(Everything(), alone)}
TELL = Terms(explains=True)


HEAD, DOCUMENTS = tokens(21, 1), {f"doc-{n}": tokens(72 + 3 * n, 10 + n) for n in range(4)}


def prompt(
    *names: str, head: Sequence[int] = HEAD, ask: int = 9, method: Method = "link"
) -> Prompt:
    """Head, the documents with a line between them, and a question."""
    made, spans = list(head), []
    for name in names:
        spans.append(Span(len(made), len(made) + len(DOCUMENTS[name]), method, name))
        made += [*DOCUMENTS[name], 5]
    return Prompt([*made, *tokens(ask, 99)], spans)


class Reader(ReusingGenerator):
    """Reads chunks where that pays, with blocks of 16 tokens."""

    def __init__(
        self,
        model: Any,
        ways: Mapping[Method, Way] = LINK,
        memory: int | None = None,
        below: DiskTier | None = None,
        purges: Purges | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        ghosts = Ghosts(clock=clock)
        self.index: PrefixIndex[torch.Tensor] = PrefixIndex(
            memory or ROOM, clock=clock, ghosts=ghosts
        )
        keeping = Keeping(
            model,
            chunk_tokens=CHUNK,
            fingerprint=MODEL,
            kept=self.index,
            below=below,
            memory=memory,
            purges=purges,
            clock=clock,
        )
        exact = ExactReader(keeping)
        chunks = ChunkReader(keeping, exact, FixedWays(ways))
        super().__init__(keeping, frozenset(), [chunks, exact])

    def told(self, asked: Prompt, owner: Owner = NOBODY, terms: Terms = TELL) -> Reading:
        found = super().read(Asking.of(asked, owner, terms), never)
        assert found is not None
        return found

    def written(self) -> torch.Tensor:
        with torch.inference_mode():
            return self.slab.copy(0, self.slab.length)


def cold(model: Any, asked: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and state of reading it anew, exactly."""
    reader = exact_generator(
        Keeping(model, chunk_tokens=CHUNK, fingerprint=MODEL, kept=None), frozenset()
    )
    found = reader.read(Asking.of(asked), never)
    assert found is not None
    with torch.inference_mode():
        return found.logits, reader.slab.copy(0, len(asked))


def hits(reading: Reading) -> list[int]:
    assert reading.explained is not None
    return [chunk.memory_tokens for chunk in reading.explained.chunks]


# -- what is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_all_rows_computed_again_is_reading_anew(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkonce.kv.reuse.assembly.MOST_ROWS", 1.0)
    model, asked = network(family, torch.float32), prompt("doc-0", "doc-1")
    logits, state = cold(model, asked)
    reader = Reader(model, ALL)
    for _ in range(2):
        found = reader.told(asked)
        assert not found.reused.is_exact
        assert torch.allclose(found.logits, logits, atol=2e-4)
        assert torch.allclose(reader.written(), state, atol=2e-4)


def test_chunks_that_find_no_room_were_not_written() -> None:
    model, asked = network("llama", torch.float32), prompt("doc-1", "doc-0")
    reader = Reader(model)
    usual = reader.told(asked)
    assert usual.written_tokens == usual.kept_tokens > 0
    full = Reader(model)
    full.index.resize(0)
    for _ in range(2):
        found = full.told(asked)
        assert torch.equal(found.logits, usual.logits)
        assert (found.kept_tokens, found.written_tokens, found.reused.total) == (0, 0, 0)
        assert hits(found) == [0, 0]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_one_document_behind_its_head_is_exact_but_for_rounding(family: str) -> None:
    model, asked = network(family, torch.float32), prompt("doc-3", ask=5)
    logits, state = cold(model, asked)
    reader = Reader(model)
    for _ in range(2):
        assert torch.allclose(reader.told(asked).logits, logits, atol=2e-4)
        assert torch.allclose(reader.written(), state, atol=2e-4)


@pytest.mark.parametrize("ways", [LINK, {"link": Way(Link(8), alone)}])
def test_a_chunk_that_was_found_gives_the_bits_of_one_that_was_encoded(
    ways: dict[Method, Way],
) -> None:
    model, asked = network("llama", torch.bfloat16), prompt("doc-0", "doc-1", "doc-2")
    reader = Reader(model, ways)
    first = reader.told(asked)
    state = reader.written()
    again = reader.told(asked)
    assert (hits(first), hits(again)) == ([0, 0, 0], [72, 75, 78])
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(state, reader.written())


def test_documents_are_found_in_any_order_and_the_answer_goes_on_behind_them() -> None:
    model, reader = network("llama", torch.float32), Reader(network("llama", torch.float32))
    reader.told(prompt("doc-0", "doc-1", "doc-2"))
    found = reader.told(prompt("doc-2", "doc-3", "doc-0"))
    assert hits(found) == [78, 0, 72]
    assert found.explained is not None
    first, new, last = found.explained.chunks
    assert (first.recomputed, last.recomputed) == (0, 8), "the first stands where it was encoded"
    assert (new.cause, first.cause, last.was) == ("never_seen", None, len(HEAD))
    assert found.reused.by_method == {"exact": CHUNK, "link": 78 + 72 - 8}
    assert found.cached_tokens == CHUNK + 78 + 72 - 8
    sampling = Sampling(max_tokens=6, temperature=0)
    steps = reader.generate(Asking.of(prompt("doc-1", "doc-0", "doc-2")), sampling, never)
    assert sum(isinstance(step, Token) for step in steps) == 6
    assert model is reader.keeping.network


# -- what is never mistaken ------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), max_size=60), st.text(max_size=8), st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_no_name_of_a_chunk_is_a_name_of_what_is_exact(
    held: list[int], tenant: str, context: str
) -> None:
    owner = Owner(tenant.encode("ascii", "ignore").decode())
    exact = {name for b in blocks_of(held, 4, MODEL, owner) for name in (b.id, b.parent)}
    for where in (context, "", owner.tenant):
        chunk = list(chunk_blocks(held, 4, MODEL, owner, where))
        assert exact.isdisjoint(name for b in chunk for name in (b.id, b.parent))
        assert sum(block.length for block in chunk) == len(held)


def test_exact_readers_never_find_what_was_read_in_another_way() -> None:
    model = network("llama", torch.float32)
    reader, asked = Reader(model), prompt("doc-0", "doc-1", "doc-2")
    reader.told(asked)
    logits, state = cold(model, asked)
    plain = reader.read(Asking.of(list(asked)), never)
    assert plain is not None
    assert plain.cached_tokens == CHUNK, "the head's one block"
    assert torch.equal(plain.logits, logits)
    assert torch.equal(reader.written(), state)
    # A document's own text as a prompt is not found under the document's name either.
    assert reader.told(Prompt(DOCUMENTS["doc-1"])).cached_tokens == 0


def test_what_is_known_exactly_is_read_exactly() -> None:
    model = network("llama", torch.float32)
    reader, asked = Reader(model), prompt("doc-0", "doc-1", "doc-2", ask=30)
    reader.read(Asking.of(list(asked)), never)
    found = reader.told(asked)
    assert found.reused.is_exact
    assert found.explained is not None
    assert (found.explained.why_exact, found.explained.chunks) == ("known_exactly", ())
    assert torch.equal(found.logits, cold(model, asked)[0])


def test_tenants_and_heads_and_ways_share_no_chunk() -> None:
    reader = Reader(network("llama", torch.float32))
    one, other = Owner("one"), Owner("other")
    reader.told(prompt("doc-0", "doc-1", "doc-2"), one)
    for owner in (other, NOBODY, Owner("one", namespace="n"), Owner("one", tags=("t",))):
        assert hits(reader.told(prompt("doc-1", "doc-0", "doc-2"), owner)) == [0, 0, 0]
    assert hits(reader.told(prompt("doc-1", "doc-0", head=tokens(21, 2)), one)) == [0, 0]
    assert hits(reader.told(prompt("doc-1", "doc-0", "doc-2"), one)) == [75, 72, 78]
    reader.index.check()


def test_who_wants_nothing_loaded_gets_what_is_exact() -> None:
    model, asked = network("llama", torch.float32), prompt("doc-0", "doc-1", "doc-2")
    reader = Reader(model)
    reader.told(asked)
    for terms in (Terms(reads=False), Terms(reads=False, keeps=False)):
        found = reader.told(asked, terms=terms)
        assert (found.reused.is_exact, found.cached_tokens) == (True, 0)
        assert torch.equal(found.logits, cold(model, asked)[0])


# -- where it does not pay -------------------------------------------------------------------------


def test_a_prompt_that_is_mostly_question_is_read_exactly_and_says_why() -> None:
    reader = Reader(network("llama", torch.float32))
    asked = prompt("doc-0", ask=200)
    assert reader.explain(Asking.of(asked)).why_exact == "not_worth"
    found = reader.told(asked)
    assert found.reused.is_exact
    assert found.explained is not None
    assert (found.explained.why_exact, found.explained.method) == ("not_worth", "exact")


def test_short_parts_are_computed_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkonce.kv.reuse.assembly.LEAST_TOKENS", 74)
    reader = Reader(network("llama", torch.float32))
    for first, last in (("doc-1", "doc-2"), ("doc-2", "doc-1")):
        found = reader.told(prompt(first, "doc-0", last))
        assert found.explained is not None
        assert [chunk.document for chunk in found.explained.chunks] == [first, last]
    assert reader.explain(Asking.of(prompt("doc-0"))).why_exact == "too_short"


def test_what_would_lie_beyond_the_model_s_positions_is_no_chunk() -> None:
    far: dict[Method, Way] = {"link": Way(Link(8), lambda front: tokens(1024 - 73, 3))}
    reader = Reader(network("llama", torch.float32), far)
    found = reader.told(prompt("doc-0", "doc-1", ask=3))
    assert found.explained is not None
    assert found.explained.why_exact == "not_worth", "75 of 160 tokens are left besides"
    (chunk,) = reader.told(prompt("doc-0", ask=3)).explained.chunks  # type: ignore[union-attr]
    assert (chunk.document, chunk.was) == ("doc-0", 1024 - 73)


def test_without_room_for_a_second_sequence_a_prompt_is_read_exactly() -> None:
    model, asked = network("llama", torch.float32), prompt("doc-0", "doc-1", "doc-2")
    shape = Keeping(model, chunk_tokens=CHUNK, fingerprint=MODEL, kept=None).shape
    reader = Reader(model, memory=512 * shape.bytes_a_token)
    sampling = Sampling(max_tokens=1, temperature=0)
    told = list(reader.generate(Asking.of(asked, terms=TELL), sampling, never))
    (prefilled,) = [step for step in told if hasattr(step, "explained")]
    assert prefilled.explained.why_exact == "no_room"
    assert reader.slabs.under_way == 0


def test_a_reading_that_is_given_up_frees_both_sequences_and_helps_the_next() -> None:
    reader, asked = Reader(network("llama", torch.float32)), prompt("doc-0", "doc-1", "doc-2")
    sampling = Sampling(max_tokens=1, temperature=0)
    most = len(list(reader.generate(Asking.of(asked), sampling, never)))
    for stop in range(1, most, 3):
        fresh = Reader(network("llama", torch.float32))
        steps = fresh.generate(Asking.of(asked), sampling, never)
        for _ in range(stop):
            next(steps)
        steps.close()
        assert fresh.slabs.under_way == 0
        assert sum(node.pins for node in fresh.index.nodes()) == 0
        fresh.index.check()
    assert fresh.known(Asking.of(asked))() > 0


def test_a_caller_who_leaves_is_noticed_between_two_passes() -> None:
    reader, asked = Reader(network("llama", torch.float32)), prompt("doc-0", "doc-1", "doc-2")
    given_up = 0
    for most in range(12):
        left = iter([False] * most)
        found = reader.read(Asking.of(asked), lambda left=left: next(left, True))
        given_up += found is None
        assert found is None or torch.equal(found.logits, reader.told(asked).logits)
    assert given_up > 4
    assert hits(reader.told(asked)) == [72, 75, 78]


def test_chunks_are_read_ahead_and_found_then() -> None:
    reader, asked = Reader(network("llama", torch.float32)), prompt("doc-0", "doc-1", "doc-2")
    for known in (0, CHUNK + 72 + 75 + 78):
        *_, last = reader.preload(Asking.of(asked), never)
        assert isinstance(last, Kept)
        assert last.whole_tokens == last.kept_tokens == CHUNK + 72 + 75 + 78
        assert last.cached_tokens == known
    assert hits(reader.told(prompt("doc-2", "doc-1", "doc-0"))) == [78, 75, 72]
    assert reader.stats.prompts == 1


@dataclass(frozen=True)
class Step:
    """A prompt of these documents of this owner; or, first, a purge of one of them."""

    names: tuple[str, ...]
    owner: Owner
    is_exact: bool
    purged: str = ""
    leaves: int = 1000  # asked so often whether the caller left, it says so


NAMES = st.sampled_from(sorted(DOCUMENTS))
STEPS = st.builds(
    Step,
    st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    st.sampled_from([NOBODY, Owner("one"), Owner("one", namespace="n")]),
    st.booleans(),
    st.one_of(st.just(""), st.just(""), NAMES),
    st.one_of(st.just(1000), st.just(1000), st.integers(0, 9)),
)


def check_history(steps: list[Step], blocks: int, folder: Path | None) -> int:
    """Each answer has the bits of one of a reader that never read anything: by the same method,
    or exactly. How many were found by `link`.
    """
    model, purges, found = network("llama", torch.float32), Purges(), 0
    room = blocks * CHUNK * shape_of(model).bytes_a_token
    with on_disk(folder) if folder is not None else nullcontext() as below:
        reader = Reader(model, memory=room, below=below, purges=purges)
        for step in steps:
            if step.purged:
                rule = PurgeRule(document=step.purged)
                purges.add(rule)
                reader.index.purge(rule.holds)
                if below is not None:
                    below.purge(rule)
            asked = prompt(*step.names, method="exact" if step.is_exact else "link")
            left = iter([False] * step.leaves)
            got = reader.read(
                Asking.of(asked, step.owner, TELL), lambda left=left: next(left, True)
            )
            reader.index.check()
            assert reader.slabs.under_way == 0
            if got is not None:
                alone = Reader(model).told(asked).logits
                anew = cold(model, asked)[0] if got.reused.is_exact else alone
                assert torch.equal(got.logits, anew), step
                found += got.reused.by_method.get("link", 0) > 0
    return found


@given(st.lists(STEPS, min_size=2, max_size=6), st.sampled_from([20, 60, 4000]))
@settings(max_examples=8, deadline=None)
def test_what_is_kept_never_changes_an_answer(steps: list[Step], blocks: int) -> None:
    check_history(steps, blocks, None)


@pytest.mark.slow
def test_what_is_kept_on_disk_never_changes_one_either(tmp_path: Path) -> None:
    found = 0

    @given(st.lists(STEPS, min_size=4, max_size=10), st.sampled_from([20, 60, 4000]))
    @settings(max_examples=100, deadline=None)
    def histories(steps: list[Step], blocks: int) -> None:
        nonlocal found
        found += check_history(steps, blocks, Path(mkdtemp(dir=tmp_path)))

    histories()
    assert found > 60


# -- how long it stays -----------------------------------------------------------------------------


def test_a_purged_document_is_gone_with_its_chunks_and_the_prefixes_that_contain_it() -> None:
    purges = Purges()
    reader = Reader(network("llama", torch.float32), purges=purges)
    exact = prompt("doc-0", "doc-1", method="exact")
    reader.told(exact)
    reader.told(prompt("doc-0", "doc-1", "doc-2"))
    before = reader.read(Asking.of(list(exact)), never)
    assert before is not None
    assert before.cached_tokens > 150, "unmarked, the same text is the same prefix"
    rule = PurgeRule(document="doc-1")
    purges.add(rule)
    assert reader.index.purge(rule.holds)
    found = reader.told(prompt("doc-1", "doc-0", "doc-2"))
    assert hits(found) == [0, 72, 78]
    assert found.explained is not None
    assert [chunk.cause for chunk in found.explained.chunks] == ["purged", None, None]
    for each in (exact, Prompt(exact)):
        kept = reader.explain(Asking.of(each, terms=TELL)).memory_tokens
        assert kept == exact.spans[1].start // CHUNK * CHUNK, "up to where it begins"
    assert hits(reader.told(prompt("doc-0", "doc-2", "doc-1"))) == [72, 78, 75]


def test_a_chunk_that_two_documents_share_goes_with_either() -> None:
    reader = Reader(network("llama", torch.float32))
    asked = prompt("doc-0", "doc-1", "doc-2")
    renamed = Prompt(asked, (s._replace(document=f"other {s.document}") for s in asked.spans))
    reader.told(asked)
    assert hits(reader.told(renamed)) == [72, 75, 78], "the same text of the same owner"
    assert reader.index.purge(PurgeRule(document="other doc-1").holds)
    assert hits(reader.told(asked)) == [72, 0, 78]


def test_another_process_that_learns_of_a_purge_forgets_prefixes_nobody_marks_there(
    tmp_path: Path,
) -> None:
    here, there = (Purges(tmp_path / "purges.json") for _ in range(2))
    reader, asked = Reader(network("llama", torch.float32), purges=there), prompt("doc-0")
    there.told = lambda rule: reader.index.purge(rule.holds)
    marked = prompt("doc-0", "doc-1", method="exact")
    reader.told(marked)
    reader.told(asked)
    here.add(PurgeRule(document="doc-1"))
    left = marked.spans[1].start // CHUNK * CHUNK
    there.era_of(NOBODY)
    assert reader.explain(Asking.of(list(marked), terms=TELL)).memory_tokens == left


def test_a_block_in_many_documents_goes_with_any_of_them() -> None:
    many = Owner("t").with_documents(tuple(f"doc-{number}" for number in range(70)))
    few = Owner("t").with_documents(("doc-1", "doc-2"))
    for rule in (PurgeRule(document="doc-99"), PurgeRule(tags=("doc-99",))):
        assert (rule.holds(many), rule.holds(few), rule.holds(Owner("t"))) == (True, False, False)
    for rule in (PurgeRule(document="doc-1"), PurgeRule(tags=("doc-1",))):
        assert (rule.holds(many), rule.holds(few), rule.holds(Owner("t"))) == (True, True, False)
    assert not PurgeRule(tenant="u", document="doc-99").holds(many)


def test_chunks_live_as_long_as_their_last_use_wants() -> None:
    now = 0.0
    clock = Clock(wall=lambda: now, monotonic=lambda: now)
    reader = Reader(network("llama", torch.float32), clock=clock)
    short = Terms(explains=True, life=10.0)
    reader.told(prompt("doc-0", "doc-1", "doc-2"), terms=short)
    now = 9.0
    assert hits(reader.told(prompt("doc-1", "doc-0"), terms=short)) == [75, 72]
    now = 11.0
    found = reader.told(prompt("doc-2", "doc-1", "doc-0"), terms=short)
    assert hits(found) == [0, 75, 72]
    assert found.explained is not None
    assert found.explained.chunks[0].cause == "expired"
    now = 30.0
    assert not reader.index.nodes()


@contextmanager
def on_disk(folder: Path) -> Iterator[DiskTier]:
    tier = DiskTier(folder, MODEL, ROOM)
    try:
        yield tier
    finally:
        tier.close()


def test_chunks_are_found_on_disk_to_their_last_token_and_purged_there(tmp_path: Path) -> None:
    model, asked = network("llama", torch.float32), prompt("doc-0", "doc-1", "doc-2")
    with on_disk(tmp_path) as tier:
        first = Reader(model, below=tier).told(asked)
    with on_disk(tmp_path) as tier:
        reader = Reader(model, below=tier)
        found = reader.told(asked)
        assert found.explained is not None
        assert [chunk.disk_tokens for chunk in found.explained.chunks] == [72, 75, 78]
        assert torch.equal(first.logits, found.logits)
        assert found.reused.on("disk") > 200
        gone = tier.purge(PurgeRule(document="doc-2"))
        assert (gone.blocks, gone.bytes_left) == (5, 0)
    with on_disk(tmp_path) as tier:
        told = Reader(model, below=tier).explain(Asking.of(asked, terms=TELL))
        assert [chunk.disk_tokens for chunk in told.chunks] == [72, 75, 0]


def test_a_block_on_disk_that_nobody_marked_bears_the_mark_of_who_does(tmp_path: Path) -> None:
    model = network("llama", torch.float32)
    asked = prompt("doc-0", "doc-1", method="exact")
    with on_disk(tmp_path) as tier:
        reader = Reader(model, below=tier)
        reader.told(Prompt(asked))
        assert tier.flush(30)
        reader.told(asked)
        assert tier.flush(30)
        whole = len(tier.listed())
        gone = tier.purge(PurgeRule(document="doc-1"))
        left = asked.spans[1].start // CHUNK
        assert (gone.blocks, gone.bytes_left) == (whole - left, 0)
    with on_disk(tmp_path) as tier:
        assert len(tier.listed()) == left
