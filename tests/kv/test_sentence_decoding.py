"""Decoding over a budget: what is chosen, that attention reads no more, and what must be equal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reuse.encoding import prefilled
from small_families import VOCABULARY, network
from small_model import make_tokenizer
from transformers.modeling_utils import AttentionInterface

from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import FAMILIES, shape_of
from thinkonce.kv.sentence.decoder import Choosing, SentenceDecoder, Written
from thinkonce.kv.sentence.ends import SentenceEnds
from thinkonce.kv.sentence.importance import WINDOW, asked, importance
from thinkonce.kv.sentence.queries import listening
from thinkonce.kv.sentence.sentences import Sentences

LENGTH, BUDGET, NEW = 300, 140, 40
NOISE = {torch.float32: 1e-4, torch.bfloat16: 0.2}  # of logits that reach tens
LOOKING_FAR = [family for family in FAMILIES if family != "mistral"]


@pytest.fixture(autouse=True)
def in_inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@cache
def tokens(count: int = LENGTH, seed: int = 1) -> tuple[int, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCABULARY, (count,), generator=random).tolist())


@cache
def ends() -> SentenceEnds:
    return SentenceEnds(make_tokenizer())


def decoder_of(model: Any, budget: int = BUDGET, choosing: Choosing | None = None) -> Any:
    return SentenceDecoder(model, ends(), budget, choosing or Choosing())


def begun(decoder: SentenceDecoder, model: Any) -> Written:
    memory = Slab(shape_of(model))
    memory.reserve(decoder.tokens)
    return decoder.begun(tokens(), prefilled(model, tokens()), memory)


class Seen:
    """What attention itself is given, in every layer, since `clear`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries: dict[int, torch.Tensor] = {}
        self.columns: dict[int, int] = {}
        own = AttentionInterface.get_interface

        def get_interface(table: Any, name: str, default: Any) -> Any:
            attend = own(table, name, default)

            def seeing(module: Any, query: Any, key: Any, *given: Any, **named: Any) -> Any:
                self.queries[module.layer_idx] = query[0].clone()
                self.columns[module.layer_idx] = key.shape[2]
                return attend(module, query, key, *given, **named)

            return seeing

        monkeypatch.setattr(AttentionInterface, "get_interface", get_interface)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_queries_are_heard_as_attention_gets_them(
    family: str, dtype: torch.dtype, seen: Seen
) -> None:
    model, heard = network(family, dtype), dict[int, torch.Tensor]()
    with listening(model, [0, 1], heard.__setitem__):
        forward(model, tokens()[:40], 0, None)
    assert heard.keys() == seen.queries.keys() == {0, 1}
    for layer, queries in heard.items():
        assert torch.equal(queries, seen.queries[layer])


def test_nobody_listens_afterwards() -> None:
    model = network("llama", torch.float32)
    heard: list[int] = []
    with listening(model, [0], lambda layer, queries: heard.append(layer)):
        forward(model, tokens()[:4], 0, None)
    forward(model, tokens()[:4], 0, None)
    assert heard == [0]


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        *((family, torch.float32) for family in LOOKING_FAR),
        *((family, torch.bfloat16) for family in ("llama", "gemma3_text")),
    ],
)
def test_a_budget_for_all_is_full_attention(family: str, dtype: torch.dtype) -> None:
    model = network(family, dtype)
    whole = prefilled(model, tokens())
    whole.reserve(LENGTH + NEW)
    everything = Choosing(when="always")
    written = begun(decoder_of(model, LENGTH + NEW, everything), model)
    token, preferred = tokens(NEW, seed=2), []
    for place, each in enumerate(token, start=LENGTH):
        exact = forward(model, [each], place, whole.cache)
        found = written.step(each, place)
        assert float((exact - found).abs().max()) < NOISE[dtype]
        preferred.append(int(exact.argmax()) == int(found.argmax()))
    assert len(written.sentences) > len(ends().sentences(tokens())), "sentences were written"
    assert all(preferred) or dtype == torch.bfloat16


@pytest.mark.parametrize("family", LOOKING_FAR)
def test_attention_reads_the_budget_and_no_more(family: str, seen: Seen) -> None:
    model = network(family, torch.float32)
    decoder = decoder_of(model)
    written = begun(decoder, model)
    windows = [layer for layer in (0, 1) if layer not in decoder.layers]
    for place, each in enumerate(tokens(NEW, seed=2), start=LENGTH):
        written.step(each, place)
        assert {seen.columns[layer] for layer in decoder.layers} == {BUDGET}
        assert all(seen.columns[layer] == place + 1 for layer in windows), "as they always do"
    assert written.arena.bytes == BUDGET * shape_of(model).bytes_a_token * len(decoder.layers) // 2
    assert written.arena.slab.length == LENGTH + NEW, "all of it stays where it was"


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_smaller_budget_is_another_answer(family: str) -> None:
    """Else all that is shown here would be shown of a decoder that reads everything."""
    model = network(family, torch.float32)
    whole = prefilled(model, tokens())
    whole.reserve(LENGTH + 1)
    exact = forward(model, [7], LENGTH, whole.cache)
    found = begun(decoder_of(model), model).step(7, LENGTH)
    assert float((exact - found).abs().max()) > 0.1


def test_the_state_that_was_read_is_left_as_it_is() -> None:
    model = network("qwen3", torch.float32)
    written = begun(decoder_of(model), model)
    for place, each in enumerate(tokens(NEW, seed=2), start=LENGTH):
        written.step(each, place)
    left = written.arena.slab.copy(0, LENGTH)
    assert torch.equal(left, prefilled(model, tokens()).copy(0, LENGTH))


def test_each_token_is_attended_to_once() -> None:
    model = network("llama", torch.float32)
    written = begun(decoder_of(model), model)
    for place, each in enumerate(tokens(NEW, seed=2), start=LENGTH):
        written.step(each, place)
        for state in written.arena.state[0, 0]:  # of one layer: keys differ by place
            assert len(state.unique(dim=0)) == BUDGET


def test_importance_is_what_the_last_tokens_attend_to() -> None:
    model = network("llama", torch.float32)
    slab = prefilled(model, tokens())
    queries = asked(model, slab, tokens(), [0, 1])
    model.set_attn_implementation("eager")
    try:
        weights = model(torch.tensor([tokens()]), output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    for layer in (0, 1):
        paid = weights[layer][0, :, -WINDOW:, :-WINDOW].sum(1).view(2, 2, -1).sum(1)
        near = torch.stack(
            [paid[:, max(0, at - 3) : at + 4].amax(1) for at in range(LENGTH - WINDOW)], 1
        )
        found = importance(model, layer, queries[layer], slab.tensor[layer, 0, :, :LENGTH])
        torch.testing.assert_close(found, near, atol=1e-4, rtol=1e-4)


KEYS = torch.randn(2, 2, 60, 4, generator=torch.Generator().manual_seed(0))
SPANS = [range(7), range(7, 30), range(30, 31), range(31, 60)]


def some(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(count)
    rows = [torch.randperm(52, generator=random)[:count].sort().values for _ in range(4)]
    last = torch.arange(52, 60).expand(2, 2, -1)
    return torch.cat((torch.stack(rows).view(2, 2, -1), last), -1)


def test_a_vector_is_the_mean_of_a_sentences_kept_keys() -> None:
    kept = some(20)
    sentences = Sentences(kept, SPANS, list(KEYS))
    for layer in range(2):
        for head in range(2):
            for number, span in enumerate(SPANS):
                ours = [place for place in kept[layer, head].tolist() if place in span]
                mean = KEYS[layer, head, ours].mean(0) if ours else torch.zeros(4)
                torch.testing.assert_close(sentences.vectors[layer, head, number], mean)


@settings(max_examples=30)
@given(st.integers(5, 50), st.integers(1, 60), st.integers(40, 80), st.integers(0, 9))
def test_sentences_are_taken_by_score_until_the_budget_is_full(
    count: int, most: int, end: int, seed: int
) -> None:
    with torch.inference_mode():
        kept = some(count)
        sentences = Sentences(kept, SPANS, list(KEYS))
        sentences.add(range(60, 70), list(KEYS[:, :, :10]))
        spans = [*SPANS, range(60, 70)]
        end = max(end, 60)  # rows have equally many tokens before it
        scores = torch.rand(2, 2, len(spans), generator=torch.Generator().manual_seed(seed))
        found = sentences.best(scores, end, most)
    for layer in range(2):
        for head in range(2):
            own = [*kept[layer, head].tolist(), *range(60, 70)]
            order = sorted(range(len(spans)), key=lambda each: -scores[layer, head, each])
            wanted = [at for each in order for at in own if at in spans[each] and at < end]
            assert found[layer, head].tolist() == sorted(wanted[:most])


def test_what_is_written_is_found_again() -> None:
    """A sentence of the answer leaves the latest tokens, and is chosen by its own vector."""
    model = network("llama", torch.float32)

    def newest(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return torch.arange(vectors.shape[2]).expand(vectors.shape[:3])

    decoder = decoder_of(model, choosing=Choosing(score=newest, when="always"))
    written = begun(decoder, model)
    for place, each in enumerate(tokens(NEW, seed=2), start=LENGTH):
        written.step(each, place)
    attended = {tuple(key) for key in written.arena.state[0, 0, 0].tolist()}
    keys = written.arena.slab.tensor[0, 0, 0, LENGTH : LENGTH + NEW]
    assert attended >= {tuple(key) for key in keys.tolist()}
    assert NEW > WINDOW, "some have left the latest"


def test_a_model_that_looks_no_further_than_its_windows_has_nothing_to_choose() -> None:
    decoder = decoder_of(network("mistral", torch.float32))
    assert decoder.room(10_000) == 0
    assert decoder.attended(tokens()) is None


def test_prompts_within_the_budget_are_left_alone() -> None:
    decoder = decoder_of(network("llama", torch.float32))
    assert [decoder.room(count) for count in (BUDGET, BUDGET + 1)] == [0, BUDGET]
    told = decoder.attended(tokens())
    assert (told.tokens, told.prompt_tokens) == (BUDGET, LENGTH)
    assert told.sentences == len(ends().sentences(tokens()))
