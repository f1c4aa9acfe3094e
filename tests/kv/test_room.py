"""How long an answer may be, said once for the server and for a model in one's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from thinkonce.kv.engine import KvEngine, open_engine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.generation.support import shape_of
from thinkonce.kv.modules.laying import laid_out
from thinkonce.kv.modules.prompt import put_together
from thinkonce.kv.modules.schema import Schema
from thinkonce.kv.prefix.prompt import Prompt
from thinkonce.kv.serving.answers.room import longest_answer
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Kv

PROMPT = Prompt(range(300))
CONTEXT, USUAL = 2048, 1024
STEP = 256  # tokens in which memory is given out


@pytest.fixture
def opened(model: Model) -> Iterator[Callable[..., KvEngine]]:
    """With memory for so many steps."""
    engines: list[KvEngine] = []

    def start(steps: int, **settings: int) -> KvEngine:
        memory = steps * STEP * shape_of(model.network).bytes_a_token
        engines.append(open_engine(model, Kv(chunk=64, memory=memory, **settings)))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def test_an_answer_without_a_bound_is_as_long_as_there_is_room(
    opened: Callable[..., KvEngine],
) -> None:
    engine = opened(3)
    assert longest_answer(engine, CONTEXT, [PROMPT], None, 10) == 10
    assert longest_answer(engine, CONTEXT, [PROMPT], None, USUAL) == 3 * STEP - 300
    assert longest_answer(engine, CONTEXT, [PROMPT.until(5), PROMPT], None, USUAL) == 3 * STEP - 300
    assert longest_answer(engine, 310, [PROMPT], None, USUAL) == 10


def test_what_was_asked_for_fits_or_is_refused_with_what_would(
    opened: Callable[..., KvEngine],
) -> None:
    engine = opened(3)
    assert longest_answer(engine, CONTEXT, [PROMPT], 3 * STEP - 300, USUAL) == 3 * STEP - 300
    with pytest.raises(TooLong, match=r"\[kv\] memory"):
        longest_answer(engine, CONTEXT, [PROMPT], 3 * STEP - 299, USUAL)
    with pytest.raises(TooLong, match=r"holds 310 tokens.* takes 300 and the answer may take 11"):
        longest_answer(engine, 310, [PROMPT], 11, USUAL)
    assert longest_answer(engine, 300, [PROMPT], 0, USUAL) == 0
    with pytest.raises(TooLong, match="holds 300 tokens"):
        longest_answer(engine, 300, [PROMPT], None, USUAL)


def test_a_decoder_s_memory_is_for_prompts_that_it_takes(opened: Callable[..., KvEngine]) -> None:
    engine = opened(3, sentence_tokens=128)
    layout = laid_out(Schema("s", ("word " * 300,)), lambda text: [7] * len(text.split()), 3)
    modules = put_together(layout, [], {}, (), lambda text: [])
    assert len(modules) == 300
    assert longest_answer(engine, CONTEXT, [PROMPT], None, USUAL) == 2 * STEP - 300
    assert longest_answer(engine, CONTEXT, [modules], None, USUAL) == 3 * STEP - 300
