"""How long an answer may be: what the model's context leaves for it, and what memory does."""

from __future__ import annotations

from collections.abc import Sequence

from thinkonce.kv.engine import KvEngine
from thinkonce.kv.generation.generator import TooLong
from thinkonce.kv.prefix.prompt import Prompt

__all__ = ("longest_answer",)


def longest_answer(
    engine: KvEngine, context: int, prompts: Sequence[Prompt], asked: int | None, usual: int
) -> int:
    """Tokens that the answer to each of `prompts` may take: `asked`; None: nobody said, and it is
    as many as there is room for, at most `usual`. `context`: positions that the model has.

    Raises TooLong where that does not fit the context, or can never fit memory.
    """
    return min(_of_one(engine, context, each, asked, usual) for each in prompts)


def _of_one(engine: KvEngine, context: int, prompt: Prompt, asked: int | None, usual: int) -> int:
    if prompt.end + (1 if asked is None else asked) > context:
        wants = f" and the answer may take {asked}" if asked else ""
        raise TooLong(
            f"this model's context holds {context} tokens; the prompt takes {prompt.end}{wants}. "
            "Shorten the prompt or lower max_tokens"
        )
    bound = min(usual, context - prompt.end) if asked is None else asked
    # Holes between modules take positions and no memory.
    most = engine.most_tokens(prompt) if asked is None else None
    if most is not None:
        bound = max(1, min(bound, most - len(prompt)))
    engine.check(prompt, bound)
    return bound
