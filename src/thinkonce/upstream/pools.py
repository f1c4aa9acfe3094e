"""Who can answer: pools of equivalent servers, chosen by the model's name.

A pool is part of every key made for it, so it is chosen before anything is looked up. Which of
its servers then answers is routing, and changes nothing in the key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit, urlunsplit

from thinkonce.settings import Upstream

__all__ = ("Pool", "Pools", "base_url")

# Anthropic's SDK takes a base URL without /v1 and adds it itself; OpenAI's takes it with /v1.
_ADDS_VERSION = ("messages", "messages/count_tokens", "messages/batches")


@dataclass(frozen=True, slots=True)
class Base:
    """Where a server's API begins: `root` without a slash at its end, `query` for every call."""

    root: str
    query: str = ""

    def url(self, path: str, query: str) -> str:
        """`path` without /v1 and without a slash at its beginning."""
        root = self.root
        if path.startswith(_ADDS_VERSION) and not root.endswith("/v1"):
            root += "/v1"
        both = "&".join(filter(None, (self.query, query)))
        return f"{root}/{path}?{both}" if both else f"{root}/{path}"


def base_url(written: str) -> Base:
    """A provider's base URL as its SDK takes it; a bare host means its `/v1`."""
    parts = urlsplit(written)
    path = parts.path.rstrip("/") or "/v1"
    return Base(urlunsplit((parts.scheme, parts.netloc, path, "", "")), parts.query)


@dataclass(frozen=True, slots=True)
class Pool:
    """Servers declared equivalent. `name` is the identity that enters keys.

    `ask_usage`: its servers may be asked for the usage chunk on behalf of a client that did not.
    """

    name: str
    bases: tuple[Base, ...]
    models: tuple[str, ...] = ("*",)
    ask_usage: bool = False
    _turn: itertools.count[int] = field(default_factory=itertools.count, repr=False, compare=False)

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def in_turn(self) -> Sequence[Base]:
        """All servers, beginning with another one at each call."""
        if len(self.bases) == 1:
            return self.bases
        first = next(self._turn) % len(self.bases)
        return self.bases[first:] + self.bases[:first]


class Pools:
    """The pools of a gateway, in the order of its configuration."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self.all = tuple(pools)
        self._one = self.all[0] if len(self.all) == 1 and self.all[0].models == ("*",) else None

    @classmethod
    def of(cls, upstreams: Mapping[str, Upstream]) -> Pools:
        return cls(
            Pool(
                name=name,
                bases=tuple(map(base_url, upstream.urls)),
                models=tuple(upstream.models),
                ask_usage=upstream.ask_usage,
            )
            for name, upstream in upstreams.items()
        )

    def for_model(self, model: str) -> Pool | None:
        """The first pool whose patterns fit; the first of all for a request without a model."""
        if self._one is not None:
            return self._one
        if not model:
            return self.all[0]
        return next((pool for pool in self.all if pool.serves(model)), None)

    def patterns(self) -> tuple[str, ...]:
        return tuple(pattern for pool in self.all for pattern in pool.models)
