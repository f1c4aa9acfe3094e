"""What a policy remembers of entries it no longer holds: a number under the hash of the key.

Only the 64-bit hash is kept, never the key: in-process keys may be kilobytes long. Two keys of
equal hash share a row, which at worst restores the wrong number to one entry.
"""

from __future__ import annotations

from collections import OrderedDict

from thinkonce.entry import Entry

__all__ = ("Ghost",)


class Ghost:
    """First in, first out. `total` is the sum of the numbers kept. Not thread-safe."""

    __slots__ = ("_rows", "total")

    def __init__(self) -> None:
        self._rows: OrderedDict[int, int] = OrderedDict()
        self.total = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, entry: Entry) -> bool:
        return hash(entry.key) in self._rows

    def remember(self, entry: Entry, number: int) -> None:
        """Keep `number` for the key of `entry`, as the newest row."""
        row = hash(entry.key)
        self.total += number - self._rows.pop(row, 0)
        self._rows[row] = number

    def recall(self, entry: Entry) -> int | None:
        """The number kept for the key of `entry`, which is forgotten; None if there is none."""
        number = self._rows.pop(hash(entry.key), None)
        if number is not None:
            self.total -= number
        return number

    def forget_oldest(self) -> None:
        """Raises KeyError when empty."""
        self.total -= self._rows.popitem(last=False)[1]

    def shrink(self, rows: int) -> None:
        """Forget the oldest until at most `rows` are left."""
        while len(self._rows) > rows:
            self.forget_oldest()

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert self.total == sum(self._rows.values()), "the ghost's sum drifted"
