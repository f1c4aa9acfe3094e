"""What happened, counted: the numbers behind `cache_stats()`, `Cache.stats()` and the metrics."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from thinkonce.entry import LEFT, Entry
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.outcome import Outcome
from thinkonce.steps import Answer

__all__ = ("Ledger", "Tally")

Owner = TypeVar("Owner")
# Answers that no model was waited for.
SAVING = (Outcome.HIT, Outcome.STALE, Outcome.COALESCED)


class Tally:
    """Counts since it was made. `saved_seconds` is the model time that hits did not take.

    `probed_hits` and `probed_seconds` are added to without a lock: on CPython with the GIL, `+=`
    on a slot is not interrupted, because no call and no loop lies between its load and its store.

    Where the policy counts hits on the entry anyway, the generated probe counts nowhere else. At
    its first hit it puts the entry into `waiting` (`first`), and `collect` adds what came
    together: when somebody reads `hits`, or when the entry leaves the memory tier. So a number
    read is exact, and reading costs as much as there are entries that were hit since the last.
    `lock` is that of the tier, because entries leave while others read.

    `tier_failed` has a call there, so two failures at one instant may count as one.
    """

    __slots__ = (
        "bypassed",
        "coalesced",
        "lock",
        "misses",
        "probed_hits",
        "probed_seconds",
        "refreshed",
        "stale",
        "tier_errors",
        "waiting",
    )

    def __init__(self, lock: AbstractContextManager[object] | None = None) -> None:
        self.lock = lock or nullcontext()
        self.probed_hits = self.misses = self.stale = self.coalesced = 0
        self.refreshed = self.bypassed = 0
        self.probed_seconds = 0.0
        self.tier_errors: dict[str, int] = {}
        self.waiting: set[Entry] = set()

    @property
    def hits(self) -> int:
        self._collect_all()
        return self.probed_hits

    @property
    def saved_seconds(self) -> float:
        self._collect_all()
        return self.probed_seconds

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that the cache answered, 0.0 before the first one."""
        answered = self.hits + self.stale + self.coalesced
        asked = answered + self.misses
        return answered / asked if asked else 0.0

    def count(self, answer: Answer) -> None:
        self.note(answer.outcome)
        if answer.outcome in SAVING and answer.entry is not None:
            self.probed_seconds += answer.entry.seconds

    def note(self, outcome: str) -> None:
        """One request more; what it saved is counted by whoever knows."""
        match outcome:
            case Outcome.HIT:
                self.probed_hits += 1
            case Outcome.STALE:
                self.stale += 1
            case Outcome.COALESCED:
                self.coalesced += 1
            case Outcome.MISS:
                self.misses += 1
            case Outcome.REFRESH:
                self.refreshed += 1
            case Outcome.BYPASS:
                self.bypassed += 1

    def tier_failed(self, tier: str) -> None:
        self.tier_errors[tier] = self.tier_errors.get(tier, 0) + 1

    def add(self, other: Tally) -> None:
        self.probed_hits += other.hits
        self.probed_seconds += other.saved_seconds
        for name in ("misses", "stale", "coalesced", "refreshed", "bypassed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for tier, errors in other.tier_errors.items():
            self.tier_errors[tier] = self.tier_errors.get(tier, 0) + errors

    # -- hits that stand on entries ----------------------------------------------------

    def first(self, entry: Entry) -> Any:
        """The value of a hit by the probe on an entry whose hits do not wait for us.

        Those of an entry that must be thawed never do: that costs far more than counting.
        """
        if entry.thaw is None:
            self._await_hits(entry)
            return entry.payload
        value = entry.thaw(entry.payload)
        self.probed_hits += 1
        self.probed_seconds += entry.seconds
        return value

    def _await_hits(self, entry: Entry) -> None:
        with self.lock:
            last = entry.tally
            if last is self:  # another thread was first
                return
            if last is LEFT:
                self.collect(entry)
                entry.tally = LEFT
                return
            if last is not None:  # two functions share the entry: only this hit is ours
                last.collect(entry, but=1)
            entry.tally = self
            self.waiting.add(entry)

    def collect(self, entry: Entry, but: int = 0) -> None:
        """Count what waits on `entry`, all but the last `but` hits. Under the lock."""
        # First this, then the count: a probe that adds to `hits` later will find it and call.
        entry.tally = None
        self.waiting.discard(entry)
        hits = entry.hits - entry.told - but
        entry.told += hits
        self.probed_hits += hits
        self.probed_seconds += hits * entry.seconds

    def _collect_all(self) -> None:
        if not self.waiting:
            return
        with self.lock:
            for entry in list(self.waiting):
                self.collect(entry)


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
        on_fork(self._in_child)

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

    def _in_child(self) -> None:
        free_after_fork(self._lock)

    def _fold(self) -> None:
        living = []
        for ref, tally in self._tallies:
            if ref() is None:
                self._past.add(tally)
            else:
                living.append((ref, tally))
        self._tallies = living
