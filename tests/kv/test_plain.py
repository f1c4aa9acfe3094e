"""Plain generation against transformers' own, token by token."""

from __future__ import annotations

import pytest
import torch
from small_families import never

from thinkonce.kv.generation.generator import Prefilled, Read, Sampling, Token
from thinkonce.kv.generation.plain import PlainGenerator
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.weights.model import Model


def tokens_of(model: Model, prompt: list[int], sampling: Sampling) -> list[Token]:
    steps = list(
        PlainGenerator(model.network, model.end_ids).generate(Asking.of(prompt), sampling, never)
    )
    pieces = [step.tokens for step in steps if isinstance(step, Read)]
    assert sum(pieces) == len(prompt)
    assert steps[len(pieces)] == Prefilled(len(prompt), 0)
    return [step for step in steps if isinstance(step, Token)]


def random_prompt(length: int) -> list[int]:
    random = torch.Generator().manual_seed(length)
    found: list[int] = torch.randint(3, 400, (length,), generator=random).tolist()
    return found


@pytest.mark.parametrize("length", [1, 2, 17, 511, 512, 513, 1025, 1500])
def test_greedy_equals_transformers_token_by_token(model: Model, length: int) -> None:
    prompt = random_prompt(length)
    made = tokens_of(model, prompt, Sampling(max_tokens=32, temperature=0))
    with torch.inference_mode():
        output = model.network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, length, dtype=torch.long),
            do_sample=False,
            max_new_tokens=32,
        )
    assert [token.id for token in made] == output[0, length:].tolist()


def test_log_probabilities_are_the_model_s_own(model: Model) -> None:
    prompt = random_prompt(20)
    sampling = Sampling(max_tokens=4, temperature=0, logprobs=5, logit_bias={9: 5.0})
    made = tokens_of(model, prompt, sampling)
    text = torch.tensor([prompt + [token.id for token in made]])
    with torch.inference_mode():
        rows = model.network(input_ids=text).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    for token, row in zip(made, rows, strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        assert [logprob for _, logprob in token.top] == pytest.approx(
            row.topk(5).values.tolist(), abs=1e-4
        )


def test_an_end_token_is_the_last(model: Model) -> None:
    end = next(iter(model.end_ids))
    made = tokens_of(model, [5, 6], Sampling(max_tokens=9, logit_bias={end: 100}))
    assert made == [Token(end, ends=True)]


def test_cancelling_stops_at_the_next_token_and_within_the_prompt(model: Model) -> None:
    generator = PlainGenerator(model.network, model.end_ids)
    left = False
    steps = generator.generate(Asking.of(random_prompt(9)), Sampling(max_tokens=99), lambda: left)
    assert [type(next(steps)) for _ in range(3)] == [Read, Prefilled, Token]
    left = True
    assert list(steps) == []
    asked = iter([False, False, True])
    long = generator.generate(
        Asking.of(random_prompt(1500)), Sampling(max_tokens=9), lambda: next(asked)
    )
    assert list(long) == [Read(512)] * 2, "the third piece of the prompt was not read"
