"""S3-FIFO: newcomers prove themselves in a small queue before they reach the main one.

Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP '23.

    new ──► small (10 %) ──used twice──► main (90 %) ──used since──► back to main's end
              │ not used twice             │ not used
              ▼                            ▼
            gone; key to the ghost ──asked for again──► main        gone
"""

from __future__ import annotations

from typing import ClassVar

from thinkonce.entry import Entry
from thinkonce.eviction.ghost import Ghost
from thinkonce.eviction.policy import Limits, Note, register
from thinkonce.eviction.segment import Segment, bytes_bind, weight

__all__ = ("S3FifoPolicy",)

PARTS = 10  # the small queue is one part of these
SPARE_GHOSTS = 16  # a cache that just lost most of its entries still remembers a few


@register
class S3FifoPolicy:
    """`Entry.hits` is the use count, 0 to 3. Amortised O(1): a move spends a use.

    Counts bytes or entries, whichever bound is nearer. A cache of fewer than ten entries has no
    room for a small queue: all go to main, whose second chance stands in for LRU. As in the
    paper, a newcomer enters after the eviction it caused: until then it waits in `_newest`.
    """

    name: ClassVar[str] = "s3fifo"
    note: ClassVar[Note] = Note.BIT

    def __init__(self, limits: Limits) -> None:
        self.floor = 0.0
        self._limits = limits
        self._small = Segment()
        self._main = Segment()
        self._ghost = Ghost()  # key -> bytes
        self._newest: Entry | None = None
        self._newest_queue = self._small

    def __len__(self) -> int:
        return len(self._small) + len(self._main) + (self._newest is not None)

    def insert(self, entry: Entry) -> None:
        self._settle()
        known = self._ghost.recall(entry) is not None
        entry.hits = 0
        self._newest = entry
        self._newest_queue = self._main if known or self._is_tiny() else self._small

    def hit(self, entry: Entry) -> None:
        entry.hits = min(entry.hits + 1, 3)

    def remove(self, entry: Entry) -> None:
        if entry is self._newest:
            self._newest = None
        elif not self._small.discard(entry):
            self._main.discard(entry)

    def evict(self) -> Entry | None:
        tiny = self._is_tiny()
        while self._small or self._main:
            if self._small and (tiny or not self._main or self._small_is_full()):
                victim = self._try_small(1 if tiny else 2)
            else:
                victim = self._try_main(tiny)
            if victim is not None:
                return victim
        newest, self._newest = self._newest, None
        return newest

    def _settle(self) -> None:
        if self._newest is not None:
            self._newest_queue.append(self._newest)

    def _try_small(self, uses_needed: int) -> Entry | None:
        """Promote the oldest of small, or return it as the victim."""
        entry = self._small.pop_oldest()
        if entry.hits >= uses_needed:
            entry.hits = 0
            self._main.append(entry)
            return None
        self._ghost.remember(entry, weight(entry))
        self._trim_ghost()
        return entry

    def _try_main(self, tiny: bool) -> Entry | None:
        """Give the oldest of main another round, or return it as the victim."""
        entry = self._main.pop_oldest()
        if not entry.hits:
            return entry
        entry.hits = 0 if tiny else entry.hits - 1
        self._main.append(entry)
        return None

    def _in_bytes(self) -> bool:
        return bytes_bind(
            self._limits,
            len(self._small) + len(self._main),
            self._small.num_bytes + self._main.num_bytes,
        )

    def _small_is_full(self) -> bool:
        in_bytes = self._in_bytes()
        return PARTS * self._small.size(in_bytes) >= self._capacity(in_bytes)

    def _capacity(self, in_bytes: bool) -> int:
        capacity = self._limits.max_bytes if in_bytes else self._limits.max_entries
        assert capacity is not None, "at least one bound is set"
        return capacity

    def _is_tiny(self) -> bool:
        """Whether fewer than ten entries fit, judged by the mean size of those held."""
        in_bytes = self._in_bytes()
        capacity = self._capacity(in_bytes)
        if not in_bytes:
            return capacity < PARTS
        held = len(self._small) + len(self._main)
        return PARTS * (self._small.num_bytes + self._main.num_bytes) > capacity * held

    def _trim_ghost(self) -> None:
        """As much as main may hold, and never more rows than there are entries."""
        in_bytes = self._in_bytes()
        room = self._capacity(in_bytes) * (PARTS - 1) // PARTS
        while (self._ghost.total if in_bytes else len(self._ghost)) > room:
            self._ghost.forget_oldest()
        self._ghost.shrink(len(self._small) + len(self._main) + SPARE_GHOSTS)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        for part in (self._small, self._main, self._ghost):
            part.check()
        held = [*self._small, *self._main, *([self._newest] if self._newest else [])]
        assert len({entry.key for entry in held}) == len(held), "a key twice"
        assert all(0 <= entry.hits <= 3 for entry in held)
