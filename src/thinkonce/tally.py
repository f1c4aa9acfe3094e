"""What happened, counted: the numbers behind `cache_stats()`, `Cache.stats()` and the metrics."""

from __future__ import annotations

import threading
import weakref
from typing import Generic, TypeVar

from thinkonce.outcome import Outcome
from thinkonce.steps import Answer

__all__ = ("Ledger", "Tally")

Owner = TypeVar("Owner")


class Tally:
    """Counts since it was made. `saved_seconds` is the model time that hits did not take.

    Probes add to it without a lock: on CPython with the GIL, `+=` on a slot is not interrupted,
    because no call and no loop lies between its load and its store.

    `tier_failed` has a call there, so two failures at one instant may count as one.
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


class Ledger(Generic[Owner]):
    """The tallies of everything that asks one cache. Those of owners that died still count.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._past = Tally()
        self._tallies: list[tuple[weakref.ref[Owner], Tally]] = []
        self._most = 64  # rows before the dead are looked for
        # Re-entrant: an owner may be collected at any moment, also while this lock is held.
        self._lock = threading.RLock()

    def enter(self, owner: Owner, tally: Tally) -> None:
        """Count `tally` in `total`, for ever; `owner` is held weakly."""
        with self._lock:
            self._tallies.append((weakref.ref(owner), tally))
            if len(self._tallies) > self._most:
                self._fold()
                self._most = 2 * len(self._tallies) + 64

    def total(self) -> Tally:
        with self._lock:
            self._fold()
            total = Tally()
            for tally in (self._past, *(tally for _, tally in self._tallies)):
                total.add(tally)
            return total

    def _fold(self) -> None:
        living = []
        for ref, tally in self._tallies:
            if ref() is None:
                self._past.add(tally)
            else:
                living.append((ref, tally))
        self._tallies = living
