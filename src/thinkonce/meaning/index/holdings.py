"""Whose rows a shared partition has, so that room is made where most of it is taken.

Rows of tenants with one client have no member and are not counted.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("Holdings",)

ROW_BYTES = 280  # of a digest in two dicts, of its place and its fingerprint


class _Row(NamedTuple):
    at: int
    fingerprint: bytes


class Holdings:
    """Not thread-safe: whoever holds it takes turns."""

    __slots__ = ("_first", "_last", "_member_of", "_rows")

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[bytes, _Row]] = {}  # by member and digest
        self._member_of: dict[bytes, bytes] = {}
        self._first = self._last = 0

    def __len__(self) -> int:
        return len(self._member_of)

    @property
    def nbytes(self) -> int:
        return ROW_BYTES * len(self._member_of)

    def add(self, member: bytes, digest: bytes, fingerprint: bytes, *, newer: bool) -> None:
        """`newer` than all that is held, or older than all of it."""
        self.drop(digest)
        if not member:
            return
        self._first, self._last = self._first - (not newer), self._last + newer
        row = _Row(self._last if newer else self._first, fingerprint)
        self._rows.setdefault(member, {})[digest] = row
        self._member_of[digest] = member

    def drop(self, digest: bytes) -> bytes:
        """Its fingerprint; b"" where it is nobody's."""
        member = self._member_of.pop(digest, b"")
        rows = self._rows.get(member)
        if rows is None:
            return b""
        fingerprint = rows.pop(digest).fingerprint
        if not rows:
            del self._rows[member]
        return fingerprint

    def to_go(self, count: int) -> list[bytes]:
        """Up to `count` digests whose going leaves the members as equal as can be.

        The oldest of whoever has most, down to what the next one has, then of both, and so on.
        """
        order = sorted(self._rows.values(), key=len, reverse=True)
        cut = _level([len(rows) for rows in order], count)
        found: list[bytes] = []
        for rows in order:
            oldest = sorted(rows, key=rows.__getitem__)
            found += oldest[: max(len(rows) - cut, 0)]
        return found[:count]

    def member_of(self, digest: bytes) -> bytes:
        """b"" where it is nobody's."""
        return self._member_of.get(digest, b"")

    def names(self) -> list[bytes]:
        return list(self._member_of)


def _level(sizes: list[int], count: int) -> int:
    """What the largest may keep so that all that is above it makes `count`; `sizes` fall."""
    for at, below in enumerate([*sizes[1:], 0]):
        above = sum(sizes[: at + 1]) - (at + 1) * below
        if above >= count:
            return below + (above - count) // (at + 1)
    return 0
