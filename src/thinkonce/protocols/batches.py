"""What a dialect can do whose requests are many in one, each part with an answer of its own.

batch(body) -> Batch            the parts of a request, in order
members(batch) -> [dict]        what each part has besides what all have in common, for its key
with_items(raw, items)          the request, asking for some of them only
read(answer, items) -> [Reply]  the upstream's answer, taken apart
join(replies, form) -> bytes    an answer of our own, put together
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from thinkonce.protocols.dialect import Speech
from thinkonce.protocols.reply import Reply

__all__ = ("Batch", "BatchDialect")


class Batch(msgspec.Struct, frozen=True):
    """The parts of one request, in order, and the form its answers are wanted in."""

    items: list[Any]
    form: str


class BatchDialect(Speech, Protocol):
    """Stateless and thread-safe. A new one is one file, and its line in `registry.py`."""

    finish: str  # what a whole part's reply says that it ended in

    def batch(self, body: dict[str, Any]) -> Batch | None:
        """None where the body cannot be taken apart, or `is_too_large`: it goes by as it is."""
        ...

    def is_too_large(self, body: dict[str, Any]) -> bool: ...

    def members(self, batch: Batch) -> list[dict[str, Any]]: ...

    def with_items(self, raw: bytes, items: Sequence[Any]) -> bytes: ...

    def read(self, body: bytes, items: Sequence[Any]) -> list[Reply] | None:
        """One reply for each of `items`, in that order; None for anything else.

        Its `body` is the JSON text of that part's answer alone.
        """
        ...

    def join(self, replies: Sequence[Reply], form: str) -> bytes | None:
        """None where one of them cannot be had in that form."""
        ...
