"""The nearest tier: a dict that is read without a lock and written under one.

Readers see whole entries, because an entry is finished before one dict store publishes it, and a
removed entry is only unlinked. Hits are noted by the policy's `note` (see `eviction.policy`);
everything else a policy does happens under the lock, at write time. Bounds on entries and bytes
hold whenever the lock is free. Expired entries make room before live ones do.

Pinned entries live outside the policy until they expire; together they may take half of either
bound, and further pins are treated as priority high.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from sys import getsizeof

from thinkonce.clock import SYSTEM, Clock
from thinkonce.entry import LEFT, Entry, localise, said_bytes
from thinkonce.errors import ConfigError, TierError
from thinkonce.eviction.expiry import ExpiryBuckets
from thinkonce.eviction.policy import Limits, Note, make_policy
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.outcome import Reason
from thinkonce.selector import Purge, Selector
from thinkonce.settings.sections import DEFAULT_POLICY
from thinkonce.tiers.ghosts import Ghosts
from thinkonce.tiers.purges import LocalPurges, PurgeLog, concerned
from thinkonce.tiers.tier import Key, TierStats

__all__ = ("ENTRY_OVERHEAD", "MEMORY", "MemoryTier")

MEMORY = "memory"  # the tier's name, by which plain hits are recognised

# Bytes an entry takes besides payload and key: the struct, its floats, the digest, a dict slot,
# a policy row, an expiry row. Measured with tracemalloc over 100,000 entries: 620-700.
ENTRY_OVERHEAD = 700
LARGEST_SHARE = 8  # one entry may take this part of the space
LEAST_BYTES = LARGEST_SHARE * ENTRY_OVERHEAD
PINNED_SHARE = 0.5
HIT_BUFFER = 1024
DIGEST_BYTES = 32
PINNED = object()  # stands in `Entry.place` of an entry that no policy holds


class MemoryTier:
    """Thread-safe. `map` may be read by probes without the lock; only this class writes it.

    `lock` is held for every change, and by whoever counts hits that probes left on entries.
    """

    name = MEMORY
    persistent = False

    def __init__(
        self,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = 256 * 1024**2,
        policy: str = DEFAULT_POLICY,
        clock: Clock = SYSTEM,
        purges: PurgeLog | None = None,
    ) -> None:
        _check_limits(max_entries, max_bytes)
        self.map: dict[Hashable, Entry] = {}
        self.limits = Limits(max_entries, max_bytes)
        self.policy = make_policy(policy, self.limits)
        self.heard: deque[Entry] = deque(maxlen=HIT_BUFFER)
        self.purges = LocalPurges() if purges is None else purges
        self.applied = self.purges.epoch[0]
        self.ghosts = Ghosts()
        self._clock = clock
        self.lock = threading.RLock()
        self._expiry = ExpiryBuckets()
        self._bytes = self._pinned_bytes = self._pinned = 0
        self._evictions: dict[str, int] = {}
        self.note = self._note_of(self.policy.note)
        on_fork(self._in_child)

    # -- reading -----------------------------------------------------------------------

    def get(self, key: Key) -> Entry | None:
        entry = self.peek(key)
        if entry is not None and self._clock.monotonic() < entry.fresh_until:
            self.note(entry)
        return entry

    def peek(self, key: Key) -> Entry | None:
        self.catch_up()
        entry = self.map.get(key.local)
        if entry is None:
            return None
        if entry.forget_at <= self._clock.monotonic():
            with self.lock:
                if self.map.get(entry.key) is entry:
                    self._remove(entry, Reason.EXPIRED)
            return None
        return entry

    def why_gone(self, key: Key) -> Reason | None:
        """Why `key` is not here, as far as the ghosts remember."""
        return self.ghosts.why(key.local)

    def __len__(self) -> int:
        return len(self.map)

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> Iterator[Entry]:
        now = self._clock.monotonic()
        self.catch_up()
        with self.lock:
            held = list(self.map.values())
        found = [
            entry
            for entry in held
            if entry.digest > after and now < entry.forget_at and selector.matches_entry(entry)
        ]
        found.sort(key=lambda entry: entry.digest)
        return iter(found[:limit])

    def stats(self) -> TierStats:
        with self.lock:
            return TierStats(len(self.map), self._bytes, dict(self._evictions))

    def by_priority(self) -> dict[str, int]:
        """How many entries of each priority are here."""
        with self.lock:
            return dict(Counter(entry.meta.priority for entry in self.map.values()))

    # -- writing -----------------------------------------------------------------------

    def lacks(self, key: Key) -> bool:
        return key.local not in self.map

    def put(self, key: Key, entry: Entry) -> None:
        """Publish `entry` unless it is too large or a purge since its request concerns it."""
        localise(entry, self._clock)
        entry.key, entry.digest = key.local, key.digest
        entry.size = entry.payload_size + len(entry.request) + ENTRY_OVERHEAD + _key_size(key.local)
        meta = entry.meta
        entry.size += said_bytes(meta.tags, meta.namespace, meta.label, meta.model)
        if entry.hint is not None:
            entry.size += entry.hint.size
        self.catch_up()  # as a rule it finds all there is, so that nobody waits for its disk
        with self.lock:
            self.catch_up()
            if self._purged_meanwhile(entry) or self._too_large(entry):
                return
            self._drain_hits()
            old = self.map.get(entry.key)
            if old is not None:
                self._unlink(old)
            self._link(entry)
            self._make_room()

    def delete(self, key: Key) -> bool:
        self.catch_up()
        with self.lock:
            if (entry := self.map.get(key.local)) is not None:
                self._remove(entry, Reason.PURGED)
            return entry is not None

    def doom(self, key: Key) -> None:
        with self.lock:
            if (entry := self.map.get(key.local)) is not None:
                self._remove(entry, Reason.PURGED)

    def purge(self, purge: Purge) -> int:
        with self.lock:
            removed = self._remove_concerned([purge])
            if self.applied == purge.epoch - 1:
                self.applied = purge.epoch
            return removed

    def forget(self, key: Key, purge: Purge) -> bool:
        """Apply a purge of `key` alone, without looking at any other entry."""
        with self.lock:
            known = self.applied == purge.epoch - 1
            if known:
                self.applied = purge.epoch
            entry = self.map.get(key.local)
            if entry is None or not purge.concerns(entry):
                return False
            self._remove(entry, Reason.PURGED)
            return True

    def catch_up(self) -> None:
        """Apply purges that other processes, or other caches on the same log, have made."""
        target = self.purges.epoch[0]
        if target == self.applied:
            return
        purges = self.purges.since(self.applied)
        if purges is None:  # the log no longer reaches back: everything older must go
            purges = [Purge(target, Selector())]
        with self.lock:
            self._remove_concerned(purges)
            self.applied = max([self.applied, target, *(purge.epoch for purge in purges)])

    def detach(self) -> None:
        """Hear of no purges but one's own from now on; one that cannot be read empties the tier."""
        with suppress(TierError):
            self.catch_up()
        with self.lock:
            self.purges = LocalPurges(epoch=self.purges.epoch[0])

    def resize(self, max_entries: int | None, max_bytes: int | None) -> None:
        """Change the bounds while running; shrinking evicts at once."""
        _check_limits(max_entries, max_bytes)
        with self.lock:
            self.limits.max_entries, self.limits.max_bytes = max_entries, max_bytes
            self._drain_hits()
            self._make_room()

    def flush(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        return None

    # -- under the lock ----------------------------------------------------------------

    def _link(self, entry: Entry) -> None:
        self._bytes += entry.size
        if self._may_pin(entry):
            self._pinned_bytes += entry.size
            self._pinned += 1
            entry.place = PINNED
        else:
            self.policy.insert(entry)
        entry.tally, entry.told = None, entry.hits
        self._expiry.add(entry)
        self.ghosts.forget(entry.key)
        self.map[entry.key] = entry

    def _unlink(self, entry: Entry) -> None:
        if self.map.get(entry.key) is entry:
            del self.map[entry.key]
        _count_last(entry)
        self._expiry.discard(entry)
        self._bytes -= entry.size
        if entry.place is PINNED:
            entry.place = None
            self._pinned_bytes -= entry.size
            self._pinned -= 1
        else:
            self.policy.remove(entry)

    def _remove(self, entry: Entry, reason: Reason) -> None:
        self._unlink(entry)
        self.ghosts.note(entry.key, reason)
        self._evictions[reason] = self._evictions.get(reason, 0) + 1

    def _remove_concerned(self, purges: list[Purge]) -> int:
        concerns = _concerns(purges)
        doomed = [entry for entry in self.map.values() if concerns(entry)]
        for entry in doomed:
            self._remove(entry, Reason.PURGED)
        self._drain_hits()  # the buffer would keep what was purged in memory
        return len(doomed)

    def _make_room(self) -> None:
        while self._over():
            expired = self._expiry.pop_expired(self._clock.monotonic(), 1)
            if expired:
                self._remove(expired[0], Reason.EXPIRED)
            elif not self._evict_one():
                return

    def _evict_one(self) -> bool:
        victim = self.policy.evict()
        if victim is None:
            victim = next((e for e in self.map.values() if e.place is PINNED), None)
            if victim is None:
                return False
            self._remove(victim, Reason.EVICTED)
            return True
        del self.map[victim.key]
        _count_last(victim)
        self._expiry.discard(victim)
        self._bytes -= victim.size
        self.ghosts.note(victim.key, Reason.EVICTED)
        self._evictions[Reason.EVICTED] = self._evictions.get(Reason.EVICTED, 0) + 1
        return True

    def _over(self) -> bool:
        limits = self.limits
        return (limits.max_entries is not None and len(self.map) > limits.max_entries) or (
            limits.max_bytes is not None and self._bytes > limits.max_bytes
        )

    def _too_large(self, entry: Entry) -> bool:
        # One entry may take an eighth of the space: larger ones push out too much for one hit.
        if self.limits.max_bytes is None or entry.size <= self.limits.max_bytes // LARGEST_SHARE:
            return False
        old = self.map.get(entry.key)
        if old is not None:  # the answer it would have replaced is outdated
            self._remove(old, Reason.TOO_LARGE)
        self.ghosts.note(entry.key, Reason.TOO_LARGE)
        return True

    def _purged_meanwhile(self, entry: Entry) -> bool:
        if entry.epoch == self.applied:
            return False
        return concerned(entry, self.purges.since(entry.epoch))

    def _may_pin(self, entry: Entry) -> bool:
        if entry.meta.priority != "pinned":
            return False
        max_bytes, max_entries = self.limits.max_bytes, self.limits.max_entries
        return (
            max_bytes is None or self._pinned_bytes + entry.size <= max_bytes * PINNED_SHARE
        ) and (max_entries is None or self._pinned + 1 <= max_entries * PINNED_SHARE)

    def _in_child(self) -> None:
        """After a fork. Another thread may have been inside the lock: then start empty."""
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return
        free_after_fork(self.lock)
        while self.map:
            self.map.popitem()[1].tally = LEFT
        # In place: generated probes hold it.
        vars(self.policy).update(vars(make_policy(self.policy.name, self.limits)))
        self._expiry = ExpiryBuckets()
        self._bytes = self._pinned_bytes = self._pinned = 0

    # -- notes of hits -----------------------------------------------------------------

    def _note_of(self, kind: Note) -> Callable[[Entry], None]:
        if kind is Note.COUNT:
            return self._note_count
        return _note_bit if kind is Note.BIT else self.heard.append

    def _note_count(self, entry: Entry) -> None:
        entry.hits += 1
        entry.told += 1  # whoever calls this counts the hit
        entry.floor = self.policy.floor

    def _drain_hits(self) -> None:
        for _ in range(len(self.heard)):  # others may append faster than this takes out
            entry = self.heard.popleft()
            if self.map.get(entry.key) is entry and entry.place is not PINNED:
                self.policy.hit(entry)

    def check(self) -> None:
        """Raise AssertionError if bounds or counts drifted. For tests."""
        with self.lock:
            self.policy.check()
            assert not self._over(), "a bound is exceeded while the lock is free"
            assert self._bytes == sum(entry.size for entry in self.map.values())
            pinned = [entry for entry in self.map.values() if entry.place is PINNED]
            assert self._pinned_bytes == sum(entry.size for entry in pinned)
            assert self._pinned == len(pinned)
            self._expiry.check()
            assert len(self.policy) + len(pinned) == len(self.map), "policy and map disagree"


def _count_last(entry: Entry) -> None:
    """Hits that the generated probe left on an entry must not go with it."""
    if entry.tally is not None:
        entry.tally.collect(entry)
    entry.tally = LEFT


def _concerns(purges: list[Purge]) -> Callable[[Entry], bool]:
    """Whether one of `purges` means an entry; many purges of one key each cost one look-up."""
    exact = {purge.selector.key: purge.epoch for purge in purges if _is_exact(purge.selector)}
    others = [purge for purge in purges if not _is_exact(purge.selector)]
    return lambda entry: (
        entry.epoch < exact.get(entry.digest, 0) or any(purge.concerns(entry) for purge in others)
    )


def _is_exact(selector: Selector) -> bool:
    return len(selector.key) == DIGEST_BYTES and selector == Selector(key=selector.key)


def _key_size(local: Hashable) -> int:
    """Bytes of a key, the texts in a tuple included; types are shared and cost nothing."""
    if type(local) is not tuple:
        return getsizeof(local)
    return getsizeof(local) + sum(getsizeof(part) for part in local if type(part) is not type)


def _note_bit(entry: Entry) -> None:
    if entry.hits < 3:  # S3-FIFO counts to three; SIEVE only asks whether it is zero
        entry.hits += 1


def _check_limits(max_entries: int | None, max_bytes: int | None) -> None:
    if max_entries is None and max_bytes is None:
        raise ConfigError("max_bytes", None, "a bound, unless max_size is set")
    if max_entries is not None and max_entries < 1:
        raise ConfigError("max_size", max_entries, "entries >= 1, or None for no such bound")
    if max_bytes is not None and max_bytes < LEAST_BYTES:  # nothing would ever be stored
        accepts = f"bytes >= {LEAST_BYTES}, or None for no such bound"
        raise ConfigError("max_bytes", max_bytes, accepts)
