"""Which dialect a path speaks. A new dialect is one file and one line here."""

from __future__ import annotations

from thinkonce.protocols.dialect import Dialect

__all__ = ("DIALECTS", "dialect_for")

DIALECTS: dict[str, Dialect] = {}


def dialect_for(path: str) -> Dialect | None:
    """The dialect of `/v1/chat/completions` or `/chat/completions`; None: forward untouched."""
    return DIALECTS.get(path.removeprefix("/v1").removeprefix("/"))
