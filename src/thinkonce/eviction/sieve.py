"""SIEVE: a queue that never reorders, and a hand that removes what was not used since it passed.

Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU", NSDI '24. Their one linked
list with a hand in it is kept here as two queues that meet at the hand:

    tail  [ passed by the hand ][ still ahead of it ]  head     hand = first of `_ahead`
            `_passed`             `_ahead`             new entries join at the head

Passing an entry moves it from the front of `_ahead` to the end of `_passed`, which leaves the
order of the whole as it was. When `_ahead` runs empty the hand is back at the tail: swap.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from thinkonce.entry import Entry
from thinkonce.eviction.policy import Limits, Note, register

__all__ = ("SievePolicy",)


@register
class SievePolicy:
    """`Entry.hits` above 0 is the visited bit. Amortised O(1): a pass clears a bit a hit set.

    In the paper a newcomer enters after the eviction it caused. Here it is inserted first, so
    it waits in `_newest`, out of the hand's reach, until the next one comes.
    """

    name: ClassVar[str] = "sieve"
    note: ClassVar[Note] = Note.BIT

    def __init__(self, limits: Limits) -> None:
        self.floor = 0.0
        self._ahead: OrderedDict[Entry, None] = OrderedDict()
        self._passed: OrderedDict[Entry, None] = OrderedDict()
        self._newest: Entry | None = None

    def __len__(self) -> int:
        return len(self._ahead) + len(self._passed) + (self._newest is not None)

    def insert(self, entry: Entry) -> None:
        if self._newest is not None:
            self._ahead[self._newest] = None
        entry.hits = 0
        self._newest = entry

    def hit(self, entry: Entry) -> None:
        entry.hits = 1

    def remove(self, entry: Entry) -> None:
        if entry is self._newest:
            self._newest = None
        elif entry in self._ahead:
            del self._ahead[entry]
            self._wrap()
        else:
            self._passed.pop(entry, None)

    def evict(self) -> Entry | None:
        while self._ahead:
            entry = self._ahead.popitem(last=False)[0]
            visited = entry.hits
            if visited:
                entry.hits = 0
                self._passed[entry] = None
            self._wrap()
            if not visited:
                return entry
        newest, self._newest = self._newest, None
        return newest

    def _wrap(self) -> None:
        if not self._ahead:
            self._ahead, self._passed = self._passed, self._ahead

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert self._ahead or not self._passed, "the hand points at nothing"
        held = [*self._passed, *self._ahead, *([self._newest] if self._newest else [])]
        assert len({entry.key for entry in held}) == len(held), "a key twice"
