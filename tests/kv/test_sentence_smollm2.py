"""The packaged model finds a line of a long text with a small budget, where chance does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from thinkonce.kv.generation.attending import Step
from thinkonce.kv.generation.decode import forward
from thinkonce.kv.generation.slab import Slab
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.sentence.decoder import Choosing, SentenceDecoder
from thinkonce.kv.sentence.ends import SentenceEnds
from thinkonce.kv.sentence.sentences import Score, by_attention
from thinkonce.kv.weights import packaged
from thinkonce.kv.weights.model import Model, load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        packaged.locate(packaged.MODELS[0]) is None,
        reason=f"{packaged.DEFAULT} is not installed: thinkonce model install",
    ),
]

PHRASES = {9: "wooden rocket candle", 22: "purple elephant garden", 37: "green pillow bread"}
"""By the place of their line in the text."""
BUDGET = 192


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("THINKONCE_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield load()


def prompt(model: Model, place: int) -> list[int]:
    """Some 850 tokens, in which every sentence is another one."""
    animals = ("fox", "dog", "cat", "owl", "bear", "hare", "crow", "wolf", "mole", "frog")
    lines = [
        f"The {one} met the {other} near the river and they spoke about the weather."
        for one in animals[:6]
        for other in animals
        if one != other
    ]
    lines.insert(place, f'The secret phrase of Anna is "{PHRASES[place]}".')
    text = (
        f"<|im_start|>user\n{' '.join(lines)}<|im_end|>\n"
        "<|im_start|>user\nWhat is the secret phrase of Anna?<|im_end|>\n"
        '<|im_start|>assistant\nThe secret phrase of Anna is "'
    )
    found: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def answer(model: Model, tokens: list[int], score: Score | None) -> str:
    """Six tokens; the first is that of the exact reading, the others over a budget, or over all."""
    network, shape = model.network, shape_of(model.network)
    slab, memory = Slab(shape), Slab(shape)
    with torch.inference_mode():
        slab.reserve(len(tokens) + 8)
        memory.reserve(BUDGET)
    logits = forward(network, tokens, 0, slab.cache)
    step: Step = lambda token, place: forward(network, [token], place, slab.cache)  # noqa: E731
    if score is not None:
        decoder = SentenceDecoder(
            network, SentenceEnds(model.tokenizer), BUDGET, Choosing(score=score)
        )
        step = decoder.step(tokens, slab, memory)
    said: list[int] = []
    for place in range(len(tokens), len(tokens) + 6):
        said.append(int(logits.argmax()))
        logits = step(said[-1], place)
    return str(model.tokenizer.decode(said)).strip()


def drawn(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return torch.rand(vectors.shape[:3], generator=torch.Generator().manual_seed(3))


def found(model: Model, score: Score | None) -> list[bool]:
    """Whether each phrase is told in full."""
    prompts = {place: prompt(model, place) for place in PHRASES}
    assert all(len(tokens) > 4 * BUDGET for tokens in prompts.values())
    return [
        answer(model, tokens, score).startswith(PHRASES[place]) for place, tokens in prompts.items()
    ]


def test_what_full_attention_finds_is_found_and_by_chance_is_not(smollm2: Model) -> None:
    torch.set_num_threads(1)
    assert found(smollm2, None) == [True] * 3
    assert found(smollm2, by_attention) == [True] * 3
    assert found(smollm2, drawn) == [False] * 3
