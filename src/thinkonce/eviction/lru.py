"""Least recently used: the entry that nobody asked for the longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from thinkonce.entry import Entry
from thinkonce.eviction.policy import Limits, Note, register

__all__ = ("LruPolicy",)


@register
class LruPolicy:
    """An ordered map, oldest use first. O(1); keeps no ghost. The newest is never the victim
    unless it is alone."""

    name: ClassVar[str] = "lru"
    note: ClassVar[Note] = Note.BUFFER

    def __init__(self, limits: Limits) -> None:
        self.floor = 0.0
        self._order: OrderedDict[Entry, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def insert(self, entry: Entry) -> None:
        self._order[entry] = None

    def hit(self, entry: Entry) -> None:
        if entry in self._order:
            self._order.move_to_end(entry)

    def remove(self, entry: Entry) -> None:
        self._order.pop(entry, None)

    def evict(self) -> Entry | None:
        return self._order.popitem(last=False)[0] if self._order else None

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert len({entry.key for entry in self._order}) == len(self._order), "a key twice"
