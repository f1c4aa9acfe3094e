"""Which entries have expired, without looking at those that have not.

Entries lie in a dict of buckets, one a second of `fresh_until`, and a heap orders the buckets:

    _order    [ 17, 18, 30 ]                        heap of seconds
    _buckets  { 17: {a, b}, 18: {c}, 30: {d, e} }   the second is coarse ...
    _opened   heap of (instant, entry) of seconds already reached ... the instant is exact

The edge of a bucket is never the expiry. When a second begins, its bucket is opened into a
small heap by the exact instant, so one crowded second costs its entries once, however often
it is asked about. About three quarters of the time of one heap of all entries (`docs/log.md`).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import floor, inf

from thinkonce.entry import Entry

__all__ = ("ExpiryBuckets",)

SPARE_ROWS = 64  # rows of what was discarded; do not rebuild for fewer


class ExpiryBuckets:
    """By `Entry.fresh_until`, monotonic seconds, which must not change while an entry is here.

    An entry that never expires (`inf`) is not taken in. O(1) amortised, O(log k) for the k
    entries of the second under way. Not thread-safe.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Entry, None]] = {}
        self._order: list[int] = []
        self._opened: list[tuple[float, int]] = []  # (instant, id of the entry)
        self._opened_entries: dict[int, Entry] = {}  # id -> entry
        self._reached: float = -inf  # every bucket up to this second has been opened

    def __len__(self) -> int:
        return len(self._opened_entries) + sum(map(len, self._buckets.values()))

    def add(self, entry: Entry) -> None:
        if not -inf < entry.fresh_until < inf:
            return
        second = floor(entry.fresh_until)
        if second <= self._reached:
            self._open(entry)
        elif (bucket := self._buckets.get(second)) is not None:
            bucket[entry] = None
        else:
            self._buckets[second] = {entry: None}
            heappush(self._order, second)

    def discard(self, entry: Entry) -> None:
        """Forget an entry that left for another reason; one that is not here is ignored."""
        if self._opened_entries.get(id(entry)) is entry:
            del self._opened_entries[id(entry)]
            self._tidy_opened()
            return
        if not -inf < entry.fresh_until < inf:
            return
        second = floor(entry.fresh_until)
        bucket = self._buckets.get(second)
        if bucket is not None and bucket.pop(entry, entry) is None and not bucket:
            del self._buckets[second]
            self._tidy_order()

    def pop_expired(self, now: float, limit: int) -> list[Entry]:
        """Take out up to `limit` entries whose instant is `now` or before, earliest first."""
        self._reach(now)
        expired: list[Entry] = []
        while self._opened and self._opened[0][0] <= now and len(expired) < limit:
            instant, identity = heappop(self._opened)
            entry = self._opened_entries.get(identity)
            # A row of a discarded entry may carry the identity of one that came later.
            if entry is not None and entry.fresh_until == instant:
                del self._opened_entries[identity]
                expired.append(entry)
        self._tidy_opened()
        return expired

    def _reach(self, now: float) -> None:
        while self._order and self._order[0] <= now:
            second = heappop(self._order)
            for entry in self._buckets.pop(second, ()):
                self._open(entry)
        self._tidy_order()
        self._reached = max(self._reached, floor(now))

    def _open(self, entry: Entry) -> None:
        self._opened_entries[id(entry)] = entry
        heappush(self._opened, (entry.fresh_until, id(entry)))

    def _tidy_opened(self) -> None:
        if len(self._opened) > 2 * len(self._opened_entries) + SPARE_ROWS:
            self._opened = [
                (entry.fresh_until, identity) for identity, entry in self._opened_entries.items()
            ]
            heapify(self._opened)

    def _tidy_order(self) -> None:
        if len(self._order) > 2 * len(self._buckets) + SPARE_ROWS:
            self._order = list(self._buckets)
            heapify(self._order)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert all(self._buckets.values()), "an empty bucket was left behind"
        assert self._buckets.keys() <= set(self._order), "a bucket has no row: never opened"
        assert len(self._order) <= 2 * len(self._buckets) + SPARE_ROWS, "dead seconds pile up"
        rows = {identity for _, identity in self._opened}
        assert self._opened_entries.keys() <= rows, "an opened entry has no row"
        assert len(self._opened) <= 2 * len(self._opened_entries) + SPARE_ROWS, "dead rows pile up"
        for second, bucket in self._buckets.items():
            assert second > self._reached, "a bucket was passed by"
            assert all(floor(entry.fresh_until) == second for entry in bucket)
