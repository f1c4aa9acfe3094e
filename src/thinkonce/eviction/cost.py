"""The default: forget first what is cheapest to lose for the room it takes.

    H(x) = L + w(x) * (f(x) - 1/2) * (cost(x) / size(x)) ** alpha

w is the weight of the priority, f how often x was asked for, L ("floor") the H of the last
victim. The entry of smallest H goes; because L rises and a hit renews it, entries that nobody
asks for sink without any count having to be halved. This is GreedyDual-Size with Frequency
(Cherkasova, HP Labs tech. report HPL-98-69R1; Cao and Irani, USITS '97), with three changes,
measured in `benchmarks/eviction.py`:

- alpha 0.6 instead of 1: with 1 a few dear entries fill the cache and hits are lost, with 0
  price does not count. 0.6 keeps hits above LRU's and most of the money; 0.65 falls to LRU's.
- f survives eviction in a ghost of twice as many rows as there are entries. Without it
  everything that comes back starts as a stranger.
- A first use counts half: most of what was asked once is not asked again. This alone brings
  more hits at small capacities and less money at large ones; with alpha 0.6 more of both.

A newcomer competes at once: one of smallest H is the next victim, which is the admission filter.

A hit answered outside the lock only does `entry.hits += 1; entry.floor = policy.floor`. So the
heap holds one row an entry with the H it had then; a row found too low at the top goes back
with the H of now. Racing hits may lose a count, which moves H by one use.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import ClassVar

from thinkonce.entry import Entry
from thinkonce.eviction.ghost import Ghost
from thinkonce.eviction.policy import Limits, Note, register

__all__ = ("ALPHA", "FIRST_USE", "GHOST_RATIO", "MIN_COST", "CostPolicy", "density")

ALPHA = 0.6
FIRST_USE = 0.5
GHOST_RATIO = 2  # rows an entry held, about 140 bytes each; 4 gains 0.1 to 0.9 points of hits
# A cost that is zero, negative or not finite counts as this: below any real price of an
# answer (a token costs 1e-8 dollars), yet two free entries still differ by size and use.
MIN_COST = 1e-9
SPARE_ROWS = 1000  # removed entries leave their row behind; do not rebuild for fewer


def density(cost: float, size: int, alpha: float) -> float:
    """`(cost / size) ** alpha`; a size below 1 counts as 1, an unusable cost as `MIN_COST`."""
    if not 0.0 < cost < inf:
        cost = MIN_COST
    return float((cost / size if size > 1 else cost) ** alpha)


@register
class CostPolicy:
    """O(log n) a call; `Entry.hits` is f, `Entry.floor` the L at the last use, `Entry.place`
    the entry's serial number. Entries are reached by serial, so that a row left behind by
    `remove` keeps no answer in memory."""

    name: ClassVar[str] = "cost"
    note: ClassVar[Note] = Note.COUNT

    def __init__(self, limits: Limits, alpha: float = ALPHA) -> None:
        self.floor = 0.0
        self._alpha = alpha
        self._held: dict[int, Entry] = {}  # serial -> entry
        self._heap: list[tuple[float, int]] = []  # (H when pushed, serial)
        self._ghost = Ghost()
        self._serial = 0

    def __len__(self) -> int:
        return len(self._held)

    def insert(self, entry: Entry) -> None:
        entry.hits = 1 + (self._ghost.recall(entry) or 0)
        entry.floor = self.floor
        self._serial += 1
        entry.place = self._serial
        self._held[self._serial] = entry
        heappush(self._heap, (self.worth(entry), self._serial))

    def hit(self, entry: Entry) -> None:
        if self._holds(entry):
            entry.hits += 1
            entry.floor = self.floor

    def remove(self, entry: Entry) -> None:
        """f is remembered here too: a refreshed or expired answer is no stranger."""
        if self._holds(entry):
            self._leave(entry)

    def evict(self) -> Entry | None:
        heap = self._heap
        while heap:
            pushed, serial = heap[0]
            entry = self._held.get(serial)
            if entry is None:
                heappop(heap)
                continue
            now = self.worth(entry)
            if now > pushed:
                heapreplace(heap, (now, serial))
                continue
            heappop(heap)
            self.floor = max(self.floor, now)  # a lost count may have put `now` below L
            self._leave(entry)
            return entry
        return None

    def worth(self, entry: Entry) -> float:
        """H of `entry` as of its last use; without unit."""
        uses = entry.hits - 1 + FIRST_USE
        return entry.floor + entry.weight * uses * density(entry.cost, entry.size, self._alpha)

    def _holds(self, entry: Entry) -> bool:
        return entry.place is not None and self._held.get(entry.place) is entry

    def _leave(self, entry: Entry) -> None:
        del self._held[entry.place]
        entry.place = None
        self._ghost.remember(entry, entry.hits)
        self._ghost.shrink(GHOST_RATIO * len(self._held))
        if len(self._heap) > 4 * len(self._held) + SPARE_ROWS:
            self._heap = [(self.worth(held), serial) for serial, held in self._held.items()]
            heapify(self._heap)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        self._ghost.check()
        assert len(self._ghost) <= GHOST_RATIO * len(self._held), "the ghost outgrew the cache"
        rows = [serial for _, serial in self._heap]
        assert len(set(rows)) == len(rows), "an entry has two rows"
        assert self._held.keys() <= set(rows), "an entry has no row: it could never leave"
        assert len(rows) <= 4 * len(self._held) + SPARE_ROWS, "dead rows pile up"
        assert all(entry.place == serial for serial, entry in self._held.items())
