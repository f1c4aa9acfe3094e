"""The tokens an answer took: as its upstream counted them, or as the texts let guess.

Chat and text completions say `prompt_tokens` and `completion_tokens`, the other dialects
`input_tokens` and `output_tokens`; here they are the same two numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from thinkonce.protocols.bounds import bounded
from thinkonce.protocols.dialect import Asked
from thinkonce.protocols.estimate import estimate_tokens, texts_of

__all__ = ("Usage", "asked_tokens", "counted", "estimate_usage", "estimated_usage", "usage_text")

# Where a request's own words are, in any dialect.
_QUESTION = ("system", "messages", "tools", "prompt", "suffix", "instructions", "input")

_encode = msgspec.json.Encoder().encode


class Usage(msgspec.Struct, frozen=True):
    """Of a usage object, the two numbers that are counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Said(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int | None = None


def counted(usage: dict[str, Any]) -> Usage:
    """The numbers of a usage object, 0 where there is none.

    Some providers (xAI, Gemini) count a model's thoughts in the total alone, and bill them as
    output: what the total has beyond the two parts is output.
    """
    try:
        said = msgspec.convert(usage, _Said)
    except msgspec.ValidationError:
        return Usage()
    prompt = bounded(said.prompt_tokens or said.input_tokens)
    completion = bounded(said.completion_tokens or said.output_tokens)
    return Usage(prompt, max(completion, bounded(said.total_tokens) - prompt))


def usage_text(usage: dict[str, Any]) -> bytes:
    """As JSON; b"" where it cannot be written."""
    try:
        return _encode(usage)
    except (ValueError, OverflowError, RecursionError):
        return b""


def estimate_usage(asked: Asked, answer: Any) -> Usage:
    """For an upstream that does not count: from the texts of the request and of the answer."""
    return Usage(asked_tokens(asked), estimate_tokens("".join(texts_of(answer))))


def asked_tokens(asked: Asked) -> int:
    """Of a request, as its texts let guess."""
    said = "".join("".join(texts_of(asked.body.get(name))) for name in _QUESTION)
    return estimate_tokens(said) + _token_ids(asked.body.get("prompt"))


def _token_ids(prompt: Any) -> int:
    """How many a prompt holds that is written in them: one list, or a list of lists."""
    if not isinstance(prompt, list):
        return 0
    ids = [each for part in prompt for each in (part if isinstance(part, list) else (part,))]
    return sum(type(each) is int for each in ids)


def estimated_usage(tokens: Usage) -> bytes:
    """In the words of chat and text completions."""
    total = tokens.prompt_tokens + tokens.completion_tokens
    return _encode(
        {
            "prompt_tokens": tokens.prompt_tokens,
            "completion_tokens": tokens.completion_tokens,
            "total_tokens": total,
            "estimated": True,
        }
    )
