"""ARC: divides its space between what was asked for once and what was asked for again.

Megiddo and Modha: "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST '03.

    forgotten <── [ B1 ghost ][ T1 asked once ] | [ T2 asked again ][ B2 ghost ] ──> forgotten

A key that comes back from B1 says T1 was too short, one from B2 says T2 was: the target size
of T1 (`_target`, p in the paper) moves accordingly. The paper's case IV ("delete the LRU page
of B1 ...") is `_trim` here, which also holds when entries leave by themselves.
"""

from __future__ import annotations

from typing import ClassVar

from thinkonce.entry import Entry
from thinkonce.eviction.ghost import Ghost
from thinkonce.eviction.policy import Limits, Note, register
from thinkonce.eviction.segment import Segment, bytes_bind, weight

__all__ = ("ArcPolicy",)

SPARE_GHOSTS = 1000


@register
class ArcPolicy:
    """O(1) amortised. Counts bytes or entries, whichever bound is nearer; with bytes, the target
    moves by the size of what came back. A newcomer enters after the eviction it caused: until
    then it waits in `_newest`.

    At most `c` of T1 + B1 and `2c` in all, and at most twice as many ghosts as entries (plus
    1000): small ghosts of a cache that now holds large entries must not pile up.
    """

    name: ClassVar[str] = "arc"
    note: ClassVar[Note] = Note.BUFFER

    def __init__(self, limits: Limits) -> None:
        self.floor = 0.0
        self._limits = limits
        self._once, self._again = Segment(), Segment()  # T1, T2
        self._once_ghost, self._again_ghost = Ghost(), Ghost()  # B1, B2: key -> bytes
        self._target = 0.0  # wanted size of T1, in the unit of `_in_bytes`
        self._in_bytes = limits.max_bytes is not None
        self._trimmed_to = 0  # c when the ghosts were last shortened; for `check`
        self._newest: Entry | None = None
        self._newest_segment = self._once
        self._newest_left_again = False  # it came back from B2

    def __len__(self) -> int:
        return len(self._once) + len(self._again) + (self._newest is not None)

    def insert(self, entry: Entry) -> None:
        self._settle()
        self._choose_unit()
        in_once, in_again = entry in self._once_ghost, entry in self._again_ghost
        if in_once or in_again:
            self._adapt(weight(entry) if self._in_bytes else 1, in_once)
            (self._once_ghost if in_once else self._again_ghost).recall(entry)
        self._newest = entry
        self._newest_segment = self._again if in_once or in_again else self._once
        self._newest_left_again = in_again
        self._trim()

    def hit(self, entry: Entry) -> None:
        self._settle()  # whatever it pushed out is gone by now
        if entry in self._again:
            self._again.renew(entry)
        elif self._once.discard(entry):
            self._again.append(entry)

    def remove(self, entry: Entry) -> None:
        if entry is self._newest:
            self._newest = None
        elif not self._once.discard(entry):
            self._again.discard(entry)

    def evict(self) -> Entry | None:
        self._choose_unit()
        victim: Entry | None
        if not self._once and not self._again:
            victim, self._newest = self._newest, None
        elif self._takes_from_once():
            victim = self._once.pop_oldest()
            self._once_ghost.remember(victim, weight(victim))
        else:
            victim = self._again.pop_oldest()
            self._again_ghost.remember(victim, weight(victim))
        self._trim()
        return victim

    def _takes_from_once(self) -> bool:
        """REPLACE of the paper; the newcomer counts in neither list."""
        if not self._once or not self._again:
            return bool(self._once)
        size = self._once.size(self._in_bytes)
        return size > self._target or (self._newest_left_again and size == self._target)

    def _settle(self) -> None:
        if self._newest is not None:
            self._newest_segment.append(self._newest)
            self._newest = None

    def _adapt(self, step: int, in_once: bool) -> None:
        once, again = self._ghost_size(self._once_ghost), self._ghost_size(self._again_ghost)
        if in_once:
            self._target = min(self._capacity(), self._target + step * max(1.0, again / once))
        else:
            self._target = max(0.0, self._target - step * max(1.0, once / again))

    def _ghost_size(self, ghost: Ghost) -> int:
        return ghost.total if self._in_bytes else len(ghost)

    def _capacity(self) -> int:
        capacity = self._limits.max_bytes if self._in_bytes else self._limits.max_entries
        assert capacity is not None, "at least one bound is set"
        return capacity

    def _choose_unit(self) -> None:
        """Follow the nearer bound; the target keeps its share of the space."""
        num_bytes = self._once.num_bytes + self._again.num_bytes
        in_bytes = bytes_bind(self._limits, len(self._once) + len(self._again), num_bytes)
        if in_bytes is not self._in_bytes:
            share = self._target / before if (before := self._capacity_or_zero()) else 0.0
            self._in_bytes = in_bytes
            self._target = share * self._capacity()

    def _capacity_or_zero(self) -> int:
        return (self._limits.max_bytes if self._in_bytes else self._limits.max_entries) or 0

    def _trim(self) -> None:
        """Shorten the ghosts until T1 + B1 <= c and all four <= 2c."""
        capacity = self._capacity()
        once, both = self._lengths(capacity)
        while self._once_ghost and once + self._ghost_size(self._once_ghost) > capacity:
            self._once_ghost.forget_oldest()
        both += self._ghost_size(self._once_ghost)
        while self._again_ghost and both + self._ghost_size(self._again_ghost) > 2 * capacity:
            self._again_ghost.forget_oldest()
        self._trimmed_to = capacity
        for ghost in (self._once_ghost, self._again_ghost):
            ghost.shrink(len(self) + SPARE_GHOSTS)

    def _lengths(self, capacity: int) -> tuple[int, int]:
        """T1 and T1 + T2 with the newcomer, as they are once it has been made room for."""
        once, again = self._once.size(self._in_bytes), self._again.size(self._in_bytes)
        if self._newest is not None:
            coming = weight(self._newest) if self._in_bytes else 1
            once += coming if self._newest_segment is self._once else 0
            again += coming if self._newest_segment is self._again else 0
        return min(once, capacity), min(once + again, capacity)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        for part in (self._once, self._again, self._once_ghost, self._again_ghost):
            part.check()
        held = [*self._once, *self._again, *([self._newest] if self._newest else [])]
        assert len({entry.key for entry in held}) == len(held), "a key twice"
        twice = [entry for entry in held if entry in self._once_ghost or entry in self._again_ghost]
        assert not twice, "a key is held and remembered at once"
        assert self._target >= 0
        once, both = self._lengths(self._trimmed_to)
        once_ghost, again_ghost = map(self._ghost_size, (self._once_ghost, self._again_ghost))
        assert once + once_ghost <= self._trimmed_to or not once_ghost, "T1 + B1 above c"
        everything = both + once_ghost + again_ghost
        assert everything <= 2 * self._trimmed_to or not again_ghost, "all four above 2c"
