"""The option in use: answers that say what they attended to, and a store that stays exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import Serve, client_of, make_network
from transformers import MistralConfig, MistralForCausalLM

from thinkonce.errors import ConfigError
from thinkonce.kv import Engine
from thinkonce.kv.engine import open_engine
from thinkonce.kv.generation.generator import Prefilled, Read, Sampling, Token, TooLong
from thinkonce.kv.generation.reusing import ReusingGenerator
from thinkonce.kv.modules.laying import laid_out
from thinkonce.kv.modules.prompt import put_together
from thinkonce.kv.modules.schema import Module, Schema
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.sentence.decoder import SentenceDecoder
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

BUDGET = 128
LONG = tuple(1 + place * 7 % 290 for place in range(300))
SHORT = LONG[:BUDGET]
GREEDY = Sampling(max_tokens=12, temperature=0.0)


def generator(model: Model, memory: int = 1 << 30, budget: int = BUDGET) -> ReusingGenerator:
    made = open_engine(model, Kv(memory=memory, sentence_tokens=budget)).reusing
    assert made is not None
    return made


def answered(made: ReusingGenerator, prompt: tuple[int, ...]) -> tuple[Prefilled, list[int]]:
    steps = list(made.generate(Asking.of(prompt), GREEDY, lambda: False))
    begun = next(step for step in steps if isinstance(step, Prefilled))
    return begun, [step.id for step in steps if isinstance(step, Token)]


def test_an_answer_says_that_it_is_not_exact_where_it_is_not(model: Model) -> None:
    made = generator(model)
    assert not answered(made, LONG)[0].reused.is_exact
    assert answered(made, SHORT)[0].reused.is_exact
    assert answered(generator(model, budget=0), LONG)[0].reused.is_exact


def test_short_prompts_are_answered_as_without_the_option(model: Model) -> None:
    assert answered(generator(model), SHORT)[1] == answered(generator(model, budget=0), SHORT)[1]


def test_what_is_kept_of_a_prompt_is_exact_to_the_bit(model: Model) -> None:
    made, whole = generator(model), generator(model, budget=0)
    first, second = answered(made, LONG), answered(made, LONG)
    assert second[0].cached_tokens == 256
    assert first[1] == second[1], "loaded state is chosen from as computed state is"
    one, other = (each.read(Asking.of((*LONG, 5)), lambda: False) for each in (made, whole))
    assert one is not None
    assert other is not None
    assert (one.cached_tokens, other.cached_tokens) == (256, 0)
    assert torch.equal(one.logits, other.logits)


def test_the_first_token_is_that_of_full_attention(model: Model) -> None:
    assert (
        answered(generator(model), LONG)[1][0] == answered(generator(model, budget=0), LONG)[1][0]
    )


def test_an_arena_counts_in_the_memory_that_was_set(model: Model) -> None:
    bytes_a_token = generator(model).slabs.shape.bytes_a_token
    fits, less = 1024 * bytes_a_token, 768 * bytes_a_token
    made = generator(model, fits)
    steps = made.generate(Asking.of(LONG), GREEDY, lambda: False)
    while not isinstance(next(steps), Prefilled):
        pass
    assert made.slabs.bytes == (512 + 256) * bytes_a_token, "in steps of 256 tokens"
    steps.close()
    assert made.slabs.under_way == 0
    with pytest.raises(TooLong, match="440 tokens"):
        list(generator(model, less - 1).generate(Asking.of(LONG), GREEDY, lambda: False))


def test_an_answer_waits_until_there_is_room_for_both(model: Model) -> None:
    bytes_a_token = generator(model).slabs.shape.bytes_a_token
    made = generator(model, 1024 * bytes_a_token)
    first, second = (made.generate(Asking.of(LONG), GREEDY, lambda: False) for _ in range(2))
    while not isinstance(next(first), Prefilled):
        pass
    assert next(second) == Read(0)
    assert made.slabs.under_way == 2, "what the second could have is not held meanwhile"
    rest = [step.id for step in first if isinstance(step, Token)]
    assert [step.id for step in second if isinstance(step, Token)] == rest


def test_answers_by_turns_do_not_disturb_each_other(model: Model) -> None:
    made, other = generator(model), (*LONG[40:], *LONG[:40])
    alone = [answered(made, prompt)[1] for prompt in (LONG, other, SHORT)]
    under_way = [
        made.generate(Asking.of(prompt), GREEDY, lambda: False) for prompt in (LONG, other, SHORT)
    ]
    found: list[list[int]] = [[], [], []]
    while under_way != [None] * 3:
        for place, steps in enumerate(under_way):
            step = next(steps, None) if steps is not None else None
            if step is None:
                under_way[place] = None  # type: ignore[call-overload]
            elif isinstance(step, Token):
                found[place].append(step.id)
    assert found == alone


def test_memory_that_runs_out_while_choosing_costs_no_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def runs_out(*given: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(SentenceDecoder, "begun", runs_out)
    with caplog.at_level(logging.WARNING, "thinkonce.kv"):
        found = answered(generator(model), LONG)[1]
    assert found == answered(generator(model, budget=0), LONG)[1]
    assert "attends to all of its prompt: none left" in caplog.text


@pytest.fixture
def opened(model_folder: Path) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def start(**options: Any) -> Engine:
        engines.append(Engine.open(str(model_folder), **options))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def test_explain_tells_what_an_answer_attends_to(opened: Callable[..., Engine]) -> None:
    engine = opened(sentence_tokens=BUDGET)
    assert engine.stats()["exact"] is False
    long = [{"role": "user", "content": "The quick brown fox jumps. Over the lazy dog? " * 12}]
    reply = engine.chat(long, max_tokens=8, temperature=0)
    told = reply.explain.attended
    assert told is not None
    assert (told.tokens, told.prompt_tokens) == (BUDGET, reply.usage.prompt_tokens)
    assert told.sentences >= 24
    assert not reply.usage.exact
    short = engine.chat([{"role": "user", "content": "Hi."}], max_tokens=8)
    assert short.explain.attended is None
    assert short.usage.exact


def test_the_server_says_it_in_answers_and_streams(model: Model, serve: Serve) -> None:
    with client_of(serve(kv=Kv(chunk=64, sentence_tokens=BUDGET))) as client:

        def ask(text: str, **more: Any) -> Any:
            messages = [{"role": "user", "content": text}]
            return client.chat.completions.create(
                model=model.name, messages=messages, max_tokens=8, temperature=0, **more
            )

        explain = {"extra_body": {"kv_cache": {"explain": True}}}
        long = ask("The quick brown fox. Over the lazy dog? " * 12, **explain)
        assert long.kv_cache["exact"] is False
        assert long.usage.kv_explain[0]["attended"]["tokens"] == BUDGET
        short = ask("Hi.", **explain)
        assert not hasattr(short, "kv_cache"), "what is exact is told as ever"
        assert short.usage.kv_explain[0]["attended"] is None
        chunks = list(ask("The quick brown fox. Over the lazy dog? " * 12, stream=True))
        assert [chunk.kv_cache["exact"] for chunk in chunks if hasattr(chunk, "kv_cache")] == [
            False
        ]


def test_a_budget_that_leaves_nothing_to_choose_is_refused(opened: Callable[..., Engine]) -> None:
    with pytest.raises(ConfigError, match=r"sentence_tokens=64.*128 and more"):
        opened(sentence_tokens=64)


def test_a_model_of_windows_alone_says_that_the_option_does_nothing(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    shape = make_network(400).config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    heads = ("num_attention_heads", "num_key_value_heads")
    config = MistralConfig(**{name: shape[name] for name in (*names, *heads)}, sliding_window=64)
    windows = Model(**{**fields_of(model), "network": MistralForCausalLM(config).eval()})
    with caplog.at_level(logging.WARNING, "thinkonce.kv"):
        open_engine(windows, Kv(sentence_tokens=BUDGET))
    assert "sentence_tokens is left aside" in caplog.text


def cut(text: str) -> list[int]:
    """A token for each word."""
    return [sum(map(ord, word)) % 290 + 4 for word in text.split()]


def test_prompts_of_modules_go_on_in_their_own_way(model: Model) -> None:
    """Their positions are not those of their rows."""
    begin, end = (" ".join(f"{name}{number}" for number in range(90)) for name in ("one", "two"))
    layout = laid_out(Schema("s", (begin, Module("m", (end,)))), cut, 3)
    asked = put_together(layout, ["m"], {}, cut("and then"), cut)
    assert len(asked) > BUDGET
    some, whole = (answered(generator(model, budget=each), asked)[1] for each in (BUDGET, 0))
    assert some == whole
    assert generator(model).explain(Asking.of(asked)).attended is None
    assert generator(model).explain(Asking.of(tuple(asked))).attended is not None


def fields_of(model: Model) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__dataclass_fields__}
