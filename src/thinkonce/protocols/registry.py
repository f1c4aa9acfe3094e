"""Which dialect a path speaks. A new dialect is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from thinkonce.protocols.anthropic_messages import AnthropicMessages
from thinkonce.protocols.dialect import Dialect
from thinkonce.protocols.openai_chat import OpenAIChat
from thinkonce.protocols.openai_completions import OpenAICompletions
from thinkonce.protocols.openai_responses import OpenAIResponses

__all__ = ("DIALECTS", "spoken_at")

_ALL: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in _ALL})
_PATHS = {prefix + name: each for name, each in DIALECTS.items() for prefix in ("/v1/", "/")}


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
