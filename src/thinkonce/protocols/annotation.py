"""The marks in a body: `"cache_hit"` and `"kv_cache"`."""

from __future__ import annotations

import msgspec

from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.protocols.splice import without

__all__ = ("Annotation", "unmarked")

_MARKS = ("cache_hit", "kv_cache")


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """What the body says of how it was come by. Seconds, US dollars, milliseconds."""

    status: Outcome
    match: Match | None = None
    tier: str | None = None
    key: str | None = None
    cache_key: str | None = None
    age: float | None = None
    ttl: float | None = None
    similarity: float | None = None
    saved_tokens: int | None = None
    saved_cost: float | None = None
    saved_ms: float | None = None
    stored: bool | None = None
    not_stored: Reason | None = None
    matched: str | msgspec.UnsetType = msgspec.UNSET  # the stored question, where in other words
    items: int | msgspec.UnsetType = msgspec.UNSET  # of a batch, and how many of them were known
    items_hit: int | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> bytes:
        """The two JSON members, without braces around them."""
        hit = self.status is Outcome.HIT or self.status is Outcome.STALE
        head = b'"cache_hit":true,"kv_cache":' if hit else b'"cache_hit":false,"kv_cache":'
        return head + _encode(self)


_encode = msgspec.json.Encoder().encode


def unmarked(body: bytes) -> bytes:
    """`body` without marks of another cache on the way."""
    if b'"cache_hit"' in body or b'"kv_cache"' in body:
        return without(body, _MARKS)
    return body
