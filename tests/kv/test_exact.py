"""A prefix from memory gives the bits that reading it anew gives: logits, keys, values, tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_families import OWN, VOCABULARY, network, never

from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.generator import Prefilled, Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.plain import PlainGenerator
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.generation.slab import KvShape
from thinkonce.kv.generation.support import FAMILIES, shape_of
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.terms import Terms

pytestmark = pytest.mark.usefixtures("one_thread")
CHUNK = 16
DTYPES = (torch.float32, torch.bfloat16)
MODEL = bytes(32)
ROOM = 1 << 24
GREEDY = Sampling(max_tokens=16, temperature=0)


def generator(
    model: Any, kept: PrefixIndex[torch.Tensor] | None, fingerprint: bytes = MODEL
) -> ReusingGenerator:
    return exact_generator(
        Keeping(model, chunk_tokens=CHUNK, fingerprint=fingerprint, kept=kept), frozenset()
    )


def warm(model: Any, room: int = ROOM) -> tuple[ReusingGenerator, PrefixIndex[torch.Tensor]]:
    index: PrefixIndex[torch.Tensor] = PrefixIndex(room)
    return generator(model, index), index


@dataclass
class Read:
    """What a prompt gave: compared bit for bit."""

    logits: torch.Tensor
    state: torch.Tensor
    cached: int
    answer: list[int]

    def same_as(self, other: Read) -> bool:
        pairs = [(self.logits, other.logits), (self.state, other.state)]
        return self.answer == other.answer and all(torch.equal(*pair) for pair in pairs)


def read(
    reader: ReusingGenerator, prompt: list[int], owner: Owner = NOBODY, tokens: int = 64
) -> Read:
    found = reader.read(Asking.of(prompt, owner), never)
    assert found is not None
    with torch.inference_mode():
        state = reader.slab.copy(0, len(prompt))
    answer: list[int] = []
    if tokens:
        steps = reader.generate(
            Asking.of(prompt, owner), Sampling(max_tokens=tokens, temperature=0), never
        )
        answer = [step.id for step in steps if isinstance(step, Token)]
    return Read(found.logits, state, found.cached_tokens, answer)


def tokens_of(steps: Any) -> list[Token]:
    return [step for step in steps if isinstance(step, Token)]


def random_tokens(length: int, seed: int = 0) -> list[int]:
    random = torch.Generator().manual_seed(1000 * seed + length)
    found: list[int] = torch.randint(0, VOCABULARY, (length,), generator=random).tolist()
    return found


def test_every_family_that_is_reused_is_tested() -> None:
    assert set(OWN) == set(FAMILIES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_from_memory_gives_the_bits_of_reading_it_anew(
    family: str, dtype: torch.dtype
) -> None:
    """Tails of 0, 1, 2, 3 and C-1 tokens, behind 3 known chunks that another prompt wrote."""
    model = network(family, dtype)
    cold, (kept, _) = generator(model, None), warm(model)
    shared = random_tokens(3 * CHUNK)
    read(kept, shared + random_tokens(7), tokens=0)
    for tail in (1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1):
        prompt = shared + random_tokens(tail, seed=tail)
        found = read(kept, prompt, tokens=2)
        assert found.cached == 3 * CHUNK
        assert found.same_as(read(cold, prompt, tokens=2)), f"a tail of {tail}"
    assert read(kept, shared, tokens=0).cached == 2 * CHUNK, "the last piece is always computed"


@dataclass(frozen=True)
class Turn:
    """Keep the first `keep` tokens of the prompt before, and add `more` new ones."""

    keep: int
    more: int
    seed: int = 0


Talk = list[Turn]

EDGES = [n * CHUNK + by for n in range(5) for by in (-1, 0, 1, 2, 3) if n * CHUNK + by >= 0]
GROWING: Talk = [Turn(0, 3 * CHUNK + 2), Turn(3 * CHUNK + 2, 5), Turn(99, CHUNK, 1)]
BRANCHING: Talk = [Turn(0, 4 * CHUNK), Turn(2 * CHUNK, 2 * CHUNK, 1), Turn(2 * CHUNK + 1, 9, 2)]


def talks() -> st.SearchStrategy[Talk]:
    """Prompts that begin anew, grow, or branch off at or beside an edge of a chunk."""
    turn = st.builds(Turn, st.sampled_from(EDGES), st.integers(1, 2 * CHUNK + 3), st.integers(0, 9))
    return st.tuples(
        st.builds(Turn, st.just(0), st.integers(2 * CHUNK, 4 * CHUNK)),
        st.lists(turn, min_size=1, max_size=3),
    ).map(lambda drawn: [drawn[0], *drawn[1]])


def prompts_of(talk: Talk) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for turn in talk:
        found.append(found[-1][: turn.keep] + random_tokens(turn.more, turn.seed))
    return found[1:]


def check_talk(family: str, dtype: torch.dtype, talk: Talk, room: int, *, answer: int = 64) -> int:
    """Every prompt of it from memory and anew, and an answer to the last one; how many tokens
    were known.
    """
    model = network(family, dtype)
    (kept, index), cold = warm(model, room), generator(model, None)
    cached = 0
    for number, prompt in enumerate(prompts_of(talk), start=1):
        tokens = answer if number == len(talk) else 0
        found = read(kept, prompt, tokens=tokens)
        assert found.same_as(read(cold, prompt, tokens=tokens))
        assert found.cached < len(prompt)
        assert found.cached % CHUNK == 0
        index.check()
        cached += found.cached
    return cached


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_conversations_are_the_same_with_and_without_memory(
    family: str, dtype: torch.dtype
) -> None:
    block = shape_of(network(family, dtype)).bytes_a_token * CHUNK
    reused = []

    # Room for everything, and room for so little that blocks are forgotten all the time.
    @settings(max_examples=2)
    @example(GROWING, ROOM)
    @example(BRANCHING, 3 * block)
    @given(talk=talks(), room=st.sampled_from([ROOM, 3 * block]))
    def check(talk: Talk, room: int) -> None:
        answer = 64 if talk is GROWING else 8
        reused.append(check_talk(family, dtype, talk, room, answer=answer))

    check()
    assert reused[:2] == [6 * CHUNK, 4 * CHUNK], "the two written ones were read from memory"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_hundreds_of_conversations_are_the_same(family: str, dtype: torch.dtype) -> None:
    block = shape_of(network(family, dtype)).bytes_a_token * CHUNK
    reused = []

    @settings(max_examples=100)
    @given(talk=talks(), room=st.sampled_from([ROOM, 3 * block, block]))
    def check(talk: Talk, room: int) -> None:
        reused.append(check_talk(family, dtype, talk, room))

    check()
    assert sum(map(bool, reused)) >= 30


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_changed_token_in_a_block_shows(dtype: torch.dtype) -> None:
    """The control: what the tests above compare would notice a block that is not exact."""
    model = network("llama", dtype)
    cold, (kept, index) = generator(model, None), warm(model)
    prompt = random_tokens(3 * CHUNK + 5)
    read(kept, prompt)
    node = next(node for node in index._nodes.values() if node.start == CHUNK)
    with torch.inference_mode():
        node.state[0, :, :, 5] += 4.0
    found, true = read(kept, prompt), read(cold, prompt)
    assert found.cached == 3 * CHUNK
    assert not torch.equal(found.logits, true.logits)
    assert not torch.equal(found.state, true.state)


def test_blocks_of_other_pieces_would_show() -> None:
    """The control for the chunks: keys and values computed in other company differ."""
    model = network("llama", torch.float32)
    tiny = exact_generator(
        Keeping(model, chunk_tokens=4, fingerprint=MODEL, kept=None), frozenset()
    )
    prompt = random_tokens(4 * CHUNK)
    found, other = read(generator(model, None), prompt, tokens=0), read(tiny, prompt, tokens=0)
    assert torch.allclose(found.state, other.state, atol=1e-3)
    assert not torch.equal(found.state, other.state)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_transformers(family: str) -> None:
    """In fp32, where no two tokens are as likely as each other: windows are masked as they are
    there, though keys and values lie here in full."""
    model = network(family, torch.float32)
    (kept, _), plain = warm(model), PlainGenerator(model, frozenset())
    for length in (5, 77):
        prompt = random_tokens(length)
        for _ in range(2):
            made = [
                s.id
                for s in kept.generate(Asking.of(prompt), GREEDY, never)
                if isinstance(s, Token)
            ]
            other = [
                s.id
                for s in plain.generate(Asking.of(prompt), GREEDY, never)
                if isinstance(s, Token)
            ]
            assert made == other


def test_nothing_is_read_across_owners_or_models() -> None:
    model = network("llama", torch.float32)
    kept, index = warm(model)
    other = generator(model, index, fingerprint=bytes(31) + b"\1")
    prompt = random_tokens(3 * CHUNK)
    alice, bob = Owner("alice"), Owner("bob")
    assert [read(kept, prompt, who, tokens=0).cached for who in (alice, bob, alice)] == [
        0, 0, 2 * CHUNK,
    ]  # fmt: skip
    assert read(kept, prompt, Owner("alice", cache_key="x"), tokens=0).cached == 0
    assert read(other, prompt, alice, tokens=0).cached == 0


def test_one_forward_pass_a_piece_and_none_for_what_is_known() -> None:
    model = network("llama", torch.float32)
    kept, _ = warm(model)
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        prompt = random_tokens(4 * CHUNK + 3)
        read(kept, prompt, tokens=0)
        assert lengths == [CHUNK] * 4 + [3]
        lengths.clear()
        read(kept, prompt + random_tokens(CHUNK), tokens=0)
        assert lengths == [CHUNK, 3]
    finally:
        hook.remove()


def test_a_reading_that_is_given_up_helps_the_next_one() -> None:
    model = network("llama", torch.float32)
    kept, index = warm(model)
    prompt = random_tokens(4 * CHUNK)
    asked = iter([False, False, True])
    assert kept.read(Asking.of(prompt), lambda: next(asked)) is None
    found = read(kept, prompt)
    assert found.cached == 2 * CHUNK
    assert found.same_as(read(generator(model, None), prompt))
    index.check()


def test_what_does_not_fit_the_budget_is_computed() -> None:
    model = network("llama", torch.float32)
    block = shape_of(model).bytes_a_token * CHUNK
    kept, index = warm(model, room=2 * block)
    prompt = random_tokens(5 * CHUNK + 1)
    found = [read(kept, prompt, tokens=8) for _ in range(2)]
    assert found[0].same_as(found[1])
    assert found[1].cached == 2 * CHUNK
    assert index.stats().bytes == 2 * block


@pytest.mark.parametrize("blocks", [0, 2])
def test_what_is_told_as_written_found_room(blocks: int) -> None:
    model = network("llama", torch.float32)
    kept, index = warm(model, room=blocks * shape_of(model).bytes_a_token * CHUNK)
    asking = Asking.of(random_tokens(5 * CHUNK + 1))
    found = [kept.read(asking, never) for _ in range(2)]
    written = [reading.written_tokens for reading in found if reading is not None]
    assert written == [blocks * CHUNK, 0]
    here = sorted(index.nodes(), key=lambda node: node.start)
    with index.hold([node.block for node in here]):
        other = kept.read(Asking.of(random_tokens(3 * CHUNK)[::-1]), never)
    assert other is not None
    assert (other.kept_tokens, other.written_tokens) == (0, 0), "another request holds all there is"


def test_what_is_kept_already_is_not_written_again() -> None:
    """Neither by who reads it anew, nor by two who read it by turns."""
    kept, _ = warm(network("llama", torch.float32))
    asking = Asking.of(random_tokens(3 * CHUNK + 1))
    turns = [kept.generate(asking, GREEDY, never) for _ in range(2)]
    steps = chain.from_iterable(zip_longest(*turns))
    written = [step.written_tokens for step in steps if isinstance(step, Prefilled)]
    assert len(written) == 2
    assert sum(written) == 3 * CHUNK
    anew = kept.read(replace(asking, terms=Terms(reads=False)), never)
    assert anew is not None
    assert (anew.cached_tokens, anew.kept_tokens, anew.written_tokens) == (0, 3 * CHUNK, 0)


def test_memory_that_runs_out_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = network("llama", torch.float32)
    kept, index = warm(model)
    prompt = random_tokens(2 * CHUNK + 1)
    true = read(generator(model, None), prompt)
    full = KvShape.empty

    def no_room(shape: KvShape, tokens: int, device: torch.device | None = None) -> torch.Tensor:
        if tokens == CHUNK:
            raise MemoryError("none left")
        return full(shape, tokens, device)

    with monkeypatch.context() as patch:
        patch.setattr(KvShape, "empty", no_room)
        found = kept.read(Asking.of(prompt), never)
    assert found is not None
    assert torch.equal(found.logits, true.logits)
    assert kept.stats.not_kept == 1, "behind a block that is not there nothing is kept"
    assert index.stats().blocks == 0
    assert "not kept: none left" in caplog.text


@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_that_take_turns_are_those_of_one_after_the_other(dtype: torch.dtype) -> None:
    model = network("qwen3", dtype)
    drawn = Sampling(max_tokens=24, temperature=0.8, seed=3, logprobs=2)
    shared = random_tokens(2 * CHUNK)
    prompts = [random_tokens(7, seed=1), [*shared, 5], [*shared, 6, 7], random_tokens(40, seed=2)]
    alone = generator(model, None)
    expected = [tokens_of(alone.generate(Asking.of(prompt), drawn, never)) for prompt in prompts]
    kept, index = warm(model)
    answers = [list[Token]() for _ in prompts]
    open_ones = [
        (kept.generate(Asking.of(p), drawn, never), answers[n]) for n, p in enumerate(prompts)
    ]
    while open_ones:
        answer, made = open_ones.pop(0)
        step = next(answer, None)
        made.extend([step] if isinstance(step, Token) else [])
        open_ones.extend([(answer, made)] if step is not None else [])
    assert answers == expected
    assert kept.slabs.under_way == 0
    index.check()


def test_the_answer_s_own_tokens_are_not_kept() -> None:
    """They were computed one by one: the next turn reads them again, in full chunks."""
    model = network("llama", torch.float32)
    (kept, index), cold = warm(model), generator(model, None)
    prompt = random_tokens(CHUNK + 3)
    answer = read(kept, prompt).answer
    assert index.stats().blocks == 1
    turn = prompt + answer + random_tokens(3)
    found = read(kept, turn)
    assert found.cached == CHUNK
    assert found.same_as(read(cold, turn))
