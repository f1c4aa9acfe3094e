"""A run of entries in an order, with its bytes: what the divided policies are made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from thinkonce.entry import Entry
from thinkonce.eviction.policy import Limits

__all__ = ("Segment", "bytes_bind", "weight")


def weight(entry: Entry) -> int:
    """Bytes of `entry`, at least 1, so that nothing is ever free."""
    return entry.size if entry.size > 0 else 1


def bytes_bind(limits: Limits, num_entries: int, num_bytes: int) -> bool:
    """Whether `max_bytes` is the bound that is nearer to being reached."""
    if limits.max_bytes is None:
        return False
    if limits.max_entries is None:
        return True
    return num_bytes * limits.max_entries >= num_entries * limits.max_bytes


class Segment:
    """Oldest first. Entries are told apart by identity. Not thread-safe.

    An OrderedDict, because a dict that loses its first row again and again has to walk over
    the gaps, and because entries in linked nodes would be cycles that nothing collects
    (`Entry` is invisible to the garbage collector).
    """

    __slots__ = ("_order", "num_bytes")

    def __init__(self) -> None:
        self._order: OrderedDict[Entry, None] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._order

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._order)

    def size(self, in_bytes: bool) -> int:
        return self.num_bytes if in_bytes else len(self._order)

    def append(self, entry: Entry) -> None:
        """Add as the newest."""
        self._order[entry] = None
        self.num_bytes += weight(entry)

    def renew(self, entry: Entry) -> None:
        """Make the newest what is already here."""
        self._order.move_to_end(entry)

    def discard(self, entry: Entry) -> bool:
        """Take out; False if it is not here."""
        if entry not in self._order:
            return False
        del self._order[entry]
        self.num_bytes -= weight(entry)
        return True

    def pop_oldest(self) -> Entry:
        """Raises KeyError when empty."""
        entry = self._order.popitem(last=False)[0]
        self.num_bytes -= weight(entry)
        return entry

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert self.num_bytes == sum(map(weight, self._order)), "the segment's bytes drifted"
        assert len({entry.key for entry in self._order}) == len(self._order), "a key twice"
