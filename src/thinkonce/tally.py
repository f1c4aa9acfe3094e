"""What happened, counted: the numbers behind `cache_stats()`, `Cache.stats()` and the metrics."""

from __future__ import annotations

from thinkonce.flow import Answer
from thinkonce.outcome import Outcome

__all__ = ("Tally",)


class Tally:
    """Counts since it was made. `saved_seconds` is the model time that hits did not take.

    Probes add to it without a lock: on CPython with the GIL, `+=` on a slot is not interrupted,
    because no call and no loop lies between its load and its store.
    """

    __slots__ = (
        "bypassed",
        "coalesced",
        "hits",
        "misses",
        "refreshed",
        "saved_seconds",
        "stale",
        "tier_errors",
    )

    def __init__(self) -> None:
        self.hits = self.misses = self.stale = self.coalesced = 0
        self.refreshed = self.bypassed = 0
        self.saved_seconds = 0.0
        self.tier_errors: dict[str, int] = {}

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that the cache answered, 0.0 before the first one."""
        answered = self.hits + self.stale + self.coalesced
        asked = answered + self.misses
        return answered / asked if asked else 0.0

    def count(self, answer: Answer) -> None:
        saved = answer.entry.seconds if answer.entry is not None else 0.0
        match answer.outcome:
            case Outcome.HIT:
                self.hits += 1
                self.saved_seconds += saved
            case Outcome.STALE:
                self.stale += 1
                self.saved_seconds += saved
            case Outcome.COALESCED:
                self.coalesced += 1
                self.saved_seconds += saved
            case Outcome.MISS:
                self.misses += 1
            case Outcome.REFRESH:
                self.refreshed += 1
            case Outcome.BYPASS:
                self.bypassed += 1

    def tier_failed(self, tier: str) -> None:
        self.tier_errors[tier] = self.tier_errors.get(tier, 0) + 1

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            if name != "tier_errors":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for tier, errors in other.tier_errors.items():
            self.tier_errors[tier] = self.tier_errors.get(tier, 0) + errors
