"""Which dialect a path speaks. A new dialect is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from thinkonce.protocols.anthropic_messages import AnthropicMessages
from thinkonce.protocols.dialect import Dialect
from thinkonce.protocols.openai_chat import OpenAIChat
from thinkonce.protocols.openai_completions import OpenAICompletions
from thinkonce.protocols.openai_responses import OpenAIResponses

__all__ = ("DIALECTS", "by_path", "spoken_at")

T = TypeVar("T")

_ALL: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in _ALL})


def by_path(by_name: Mapping[str, T]) -> dict[str, T]:
    """Each name is a path with and without /v1."""
    return {prefix + name: each for name, each in by_name.items() for prefix in ("/v1/", "/")}


_PATHS = by_path(DIALECTS)


def spoken_at(path: str) -> Dialect:
    """Whose errors a client expects at `path`: also below a dialect's own, as `count_tokens` is.

    OpenAI's where no dialect is spoken.
    """
    above = path
    while above:
        if above in _PATHS:
            return _PATHS[above]
        above = above.rpartition("/")[0]
    return DIALECTS["chat/completions"]
