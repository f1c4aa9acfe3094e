"""What a cache tells about itself: counts, and what one call would get."""

from __future__ import annotations

from math import inf
from typing import Any, NotRequired, TypedDict

import msgspec

from thinkonce.outcome import Match, Outcome, Reason
from thinkonce.tally import Tally
from thinkonce.tiers.memory import MemoryTier

__all__ = ("CacheStats", "Explanation", "stats_of")


class CacheStats(TypedDict):
    """Counts since the start; `total_items`, `bytes` and `by_priority` are of the memory tier.

    `hit_rate` and `cache_hit_rate` are one number, a share between 0 and 1; `default_ttl` is in
    seconds, None for no expiry; `saved_seconds` is model time that hits did not take. `semantic`,
    of the whole cache, is there where questions in other words are answered, until it is closed.
    """

    hits: int
    misses: int
    stale: int
    coalesced: int
    refreshed: int
    bypassed: int
    hit_rate: float
    cache_hit_rate: float
    total_items: int
    max_size: int | None
    max_bytes: int | None
    bytes: int
    default_ttl: float | None
    evictions: dict[str, int]
    by_priority: dict[str, int]
    saved_seconds: float
    tier_errors: dict[str, int]
    dropped_writes: int
    semantic: NotRequired[dict[str, Any]]


class Explanation(msgspec.Struct, frozen=True):
    """What a call would get now, and why. `key` is the shared key in hex, "" if there is none.

    `age` and `life_left` are in seconds (None without an entry; inf: never expires). `match` says
    how a hit is found, and `question` the stored one where it is found in other words;
    `in_other_words` why it is not, in a word ("": it is, or was not looked for). `compared` is what
    that rests on, with the nearest stored questions, where it was looked for.
    """

    outcome: Outcome
    reason: Reason | None
    key: str
    tier: str | None = None
    age: float | None = None
    life_left: float | None = None
    match: Match | None = None
    question: str | None = None
    in_other_words: str = ""
    compared: dict[str, Any] | None = None


def stats_of(tally: Tally, memory: MemoryTier, ttl: float, dropped_writes: int) -> CacheStats:
    """`tally` beside what `memory` holds; `ttl` in seconds, inf for no expiry."""
    held, limits = memory.stats(), memory.limits
    return CacheStats(
        hits=tally.hits,
        misses=tally.misses,
        stale=tally.stale,
        coalesced=tally.coalesced,
        refreshed=tally.refreshed,
        bypassed=tally.bypassed,
        hit_rate=tally.hit_rate,
        cache_hit_rate=tally.hit_rate,
        total_items=held.entries,
        max_size=limits.max_entries,
        max_bytes=limits.max_bytes,
        bytes=held.bytes,
        default_ttl=None if ttl == inf else ttl,
        evictions=held.evictions,
        by_priority=memory.by_priority(),
        saved_seconds=tally.saved_seconds,
        tier_errors=dict(tally.tier_errors),
        dropped_writes=dropped_writes,
    )
