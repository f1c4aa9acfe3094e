"""Which dialect a path speaks. A new dialect is one file and one line here."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from thinkonce.protocols.batches import BatchDialect
from thinkonce.protocols.chunks.chat import OpenAIChat
from thinkonce.protocols.chunks.completions import OpenAICompletions
from thinkonce.protocols.dialect import Dialect, Speech
from thinkonce.protocols.facts import Facts
from thinkonce.protocols.messages.dialect import AnthropicMessages
from thinkonce.protocols.openai_embeddings import OpenAIEmbeddings
from thinkonce.protocols.responses.dialect import OpenAIResponses

__all__ = ("BATCHES", "BELOW", "DIALECTS", "SPEECHES", "by_path", "facts_of", "likely", "spoken_at")

T = TypeVar("T")

# In the order in which a body that names no path is asked whose it is.
_DIALECTS: tuple[Dialect, ...] = (
    AnthropicMessages(),
    OpenAIChat(),
    OpenAIResponses(),
    OpenAICompletions(),
)
# Their requests are many in one, and are answered one by one.
_BATCHES: tuple[BatchDialect, ...] = (OpenAIEmbeddings(),)


def by_path(by_name: Mapping[str, T]) -> dict[str, T]:
    """Each name is a path with and without /v1."""
    return {prefix + name: each for name, each in by_name.items() for prefix in ("/v1/", "/")}


# By name: the path without /v1.
DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in _DIALECTS})
BATCHES: Mapping[str, BatchDialect] = MappingProxyType({each.name: each for each in _BATCHES})
SPEECHES: Mapping[str, Speech] = MappingProxyType({**DIALECTS, **BATCHES})
# What is forwarded below one of them and may be asked twice, and what that is.
BELOW: Mapping[str, str] = MappingProxyType(
    {
        f"{name}/{end}": about
        for name, each in SPEECHES.items()
        for end, about in each.facts.below.items()
    }
)
_PATHS = by_path(DIALECTS)
_CHAT, _NOTHING = "chat/completions", Facts()


def facts_of(name: str) -> Facts:
    """Of any path without /v1."""
    speech = SPEECHES.get(name)
    return _NOTHING if speech is None else speech.facts


def likely(fields: Container[str], headers: Iterable[bytes]) -> str:
    """Where a body with these fields belongs that came with headers of these names."""
    names = tuple(headers)
    for each in SPEECHES.values():
        prefix = each.facts.header_prefix
        is_sent = not prefix or any(name.startswith(prefix) for name in names)
        if is_sent and each.facts.field in fields:
            return each.name
    return _CHAT


def spoken_at(path: str) -> Dialect:
    """Whose errors a client expects at `path`: also below a dialect's own, as `count_tokens` is.

    OpenAI's where no dialect is spoken.
    """
    above = path
    while above:
        if above in _PATHS:
            return _PATHS[above]
        above = above.rpartition("/")[0]
    return DIALECTS[_CHAT]
