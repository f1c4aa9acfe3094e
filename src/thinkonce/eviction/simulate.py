"""Replays a log of requests through a policy, to the same decisions the memory tier takes.

No clock and no I/O: time is what each access says. `thinkonce plan` and the benchmarks stand on
this, so what they promise is what the live policy does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from math import inf
from typing import NamedTuple

import msgspec

from thinkonce.entry import Entry, Meta
from thinkonce.eviction.expiry import ExpiryBuckets
from thinkonce.eviction.policy import Limits, Note, Policy

__all__ = ("Access", "Expiry", "Replay", "simulate")

HIT_BUFFER = 1024  # hits a buffering policy may not have seen yet; older ones are lost, as live
NO_META = Meta()


class Access(NamedTuple):
    """One request. `size` in bytes, `cost` in any one unit, `ttl` and `at` in seconds."""

    key: Hashable
    size: int = 1
    cost: float = 1.0
    ttl: float = inf
    at: float = 0.0


class Expiry(Enum):
    """What becomes of entries past their life."""

    NONE = "none"  # lives are ignored
    LAZY = "lazy"  # noticed when asked for; until then they take up room
    FIRST = "expired-first"  # they go before anything alive when room is needed


class Replay(msgspec.Struct):
    """What a replay came to. Ratios are 0 for an empty log."""

    requests: int = 0
    hits: int = 0
    bytes_asked: int = 0
    bytes_hit: int = 0
    cost_asked: float = 0.0
    cost_saved: float = 0.0
    evictions: int = 0
    expirations: int = 0  # entries dropped because their life was over

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.requests if self.requests else 0.0

    @property
    def byte_hit_ratio(self) -> float:
        return self.bytes_hit / self.bytes_asked if self.bytes_asked else 0.0

    @property
    def cost_saved_ratio(self) -> float:
        return self.cost_saved / self.cost_asked if self.cost_asked else 0.0


def simulate(
    policy: Policy,
    accesses: Iterable[Access],
    limits: Limits,
    expiry: Expiry = Expiry.NONE,
    max_entry_bytes: int | None = None,
) -> Replay:
    """Replay `accesses` in order. `policy` must be empty and made with these `limits`.

    Entries above `max_entry_bytes` are not kept; None: above `max_bytes`. The memory tier's is
    `max_bytes // 8`.
    """
    shelf = _Shelf(policy, limits, expiry)
    if max_entry_bytes is not None:
        shelf.max_entry_bytes = min(shelf.max_bytes, max_entry_bytes)
    replay = Replay()
    for access in accesses:
        replay.requests += 1
        replay.bytes_asked += access.size
        replay.cost_asked += access.cost
        if shelf.look(access):
            replay.hits += 1
            replay.bytes_hit += access.size
            replay.cost_saved += access.cost
        else:
            shelf.keep(access)
    replay.evictions, replay.expirations = shelf.evictions, shelf.expirations
    return replay


class _Shelf:
    """The memory tier without its locks: what is held, and under which bounds."""

    def __init__(self, policy: Policy, limits: Limits, expiry: Expiry) -> None:
        self.policy, self.expiry = policy, expiry
        self.max_bytes = inf if limits.max_bytes is None else limits.max_bytes
        self.max_entry_bytes = self.max_bytes
        self.max_entries = inf if limits.max_entries is None else limits.max_entries
        self.held: dict[Hashable, Entry] = {}
        self.num_bytes = 0
        self.buckets = ExpiryBuckets()
        self.unseen_hits: deque[Entry] = deque(maxlen=HIT_BUFFER)
        self.evictions = self.expirations = 0

    def look(self, access: Access) -> bool:
        entry = self.held.get(access.key)
        if entry is None:
            return False
        if entry.fresh_until <= access.at:
            self._drop(entry)
            self.expirations += 1
            return False
        self._note(entry)
        return True

    def keep(self, access: Access) -> None:
        if access.size > self.max_entry_bytes or self.max_entries < 1:
            return
        self._drain()
        entry = Entry(
            key=access.key, payload=None, meta=NO_META, size=access.size, cost=access.cost
        )
        if self.expiry is not Expiry.NONE:
            entry.fresh_until = access.at + access.ttl
        if self.expiry is Expiry.FIRST:
            self.buckets.add(entry)
        self.held[access.key] = entry
        self.num_bytes += access.size
        self.policy.insert(entry)
        if self._is_over():
            self._make_room(access.at)

    def _is_over(self) -> bool:
        return self.num_bytes > self.max_bytes or len(self.held) > self.max_entries

    def _make_room(self, now: float) -> None:
        while self._is_over() and (expired := self.buckets.pop_expired(now, 1)):
            self.expirations += 1
            self._drop(expired[0])
        while self._is_over() and (victim := self.policy.evict()) is not None:
            self.evictions += 1
            self._forget(victim)

    def _note(self, entry: Entry) -> None:
        if self.policy.note is Note.COUNT:
            entry.hits += 1
            entry.floor = self.policy.floor
        elif self.policy.note is Note.BIT:
            entry.hits = min(entry.hits + 1, 3)
        else:
            self.unseen_hits.append(entry)

    def _drain(self) -> None:
        while self.unseen_hits:
            self.policy.hit(self.unseen_hits.popleft())

    def _drop(self, entry: Entry) -> None:
        self.policy.remove(entry)
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self.held[entry.key]
        self.num_bytes -= entry.size
        if self.expiry is Expiry.FIRST:
            self.buckets.discard(entry)
