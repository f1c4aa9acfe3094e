"""Which blocks are in the files, where, how long, and which of them go first: all in memory.

Rows of all writers lie in one array; a dictionary leads from an id to its latest row. A path is
used as a whole, so a parent is never older than its children; of equally old rows the later one
is the deeper. Hence the order in which blocks go: of the smallest weight the oldest first, of
equals the latest row. Lives are in seconds of the monotonic clock here, of the wall clock in
rows: a clock that is set back brings nothing back that has expired.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.disk.names import Sort, Word, Words
from thinkonce.kv.disk.rows import ROW, Kind, Rows, checked
from thinkonce.kv.prefix.stay import MEDIUM, Raised, Stay

__all__ = ("Catalogue", "Place", "live_rows")

_LEAST_ROOM = 1024  # rows


class Place(NamedTuple):
    """Where a record lies; `length` in bytes."""

    writer: int
    segment: int
    offset: int
    length: int


class Catalogue:
    """Not thread-safe. About 250 bytes a block. `max_bytes`: the budget."""

    def __init__(self, max_bytes: int = 2**62, clock: Clock = SYSTEM) -> None:
        self.max_bytes, self._clock = max_bytes, clock
        self.clear()

    def clear(self) -> None:
        """Know of nothing."""
        self._rows = np.zeros(_LEAST_ROOM, ROW)
        self._writers = np.zeros(_LEAST_ROOM, np.uint16)
        # By row; read one by one, which an array of numpy is slow at.
        self._used, self._expires, self._weights = array("q"), array("d"), array("H")
        self._end = 0
        self._at: dict[bytes, int] = {}
        self._raised: Raised[bytes] = Raised()
        self.words = Words()
        self._serial = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, id: bytes) -> bool:
        """Whether it is there, and has not expired."""
        row = self._at.get(id)
        return row is not None and self._expires[row] > self._clock.monotonic()

    def add(self, writer: int, rows: Rows) -> None:
        """Take in rows in the order in which they were written."""
        rows = self._without_words(rows)
        begin, self._end = self._end, self._end + len(rows)
        self._make_room()
        self._rows[begin : self._end] = rows
        self._writers[begin : self._end] = writer
        self._expires.extend(self._here(rows))
        self._weights.extend(rows["weight"].tolist())
        ids: list[bytes] = rows["id"].tolist()
        first = self._all_new(begin, ids, rows)
        columns = (ids[first:], rows["length"][first:].tolist(), rows["kind"][first:].tolist())
        for row, (id, length, kind) in enumerate(zip(*columns, strict=True), begin + first):
            self._put(row, id, length, kind, writer)
        self._age(begin)

    def moved(self, writer: int, rows: Rows) -> None:
        """Records lie elsewhere now; they are as old as they were. Those that were forgotten
        meanwhile are not taken in.
        """
        kept = rows[np.array([id in self._at for id in rows["id"].tolist()], bool)]
        ages = [self._used[self._at[id]] for id in kept["id"].tolist()]
        begin = self._end
        self.add(writer, kept)
        self._used[begin : self._end] = array("q", ages)

    def ids(self) -> list[bytes]:
        return list(self._at)

    def held(self) -> Iterator[tuple[np.void, float, int]]:
        """The rows of all blocks, when they expire by the monotonic clock, and their weights."""
        for row in self._at.values():
            yield self._rows[row], self._expires[row], self._weights[row]

    def place(self, id: bytes) -> Place | None:
        """Where it lies, expired or not."""
        row = self._at.get(id)
        return None if row is None else self._place(row)

    def following(self, parent: bytes, most: int) -> list[bytes]:
        """Of what follows that block, what was written last."""
        words = self._rows[: self._end].view("<u4").reshape(-1, ROW.itemsize // 4)
        column = words[:, ROW.fields["parent"][1] // 4] if ROW.fields else words[:, 0]
        alike = np.flatnonzero(column == np.frombuffer(parent, "<u4")[0])[::-1]
        rows = self._rows[alike]
        ids = [row["id"].tobytes() for row in rows if row["parent"].tobytes() == parent]
        return [id for id in dict.fromkeys(ids) if id in self][:most]

    def words_of(self, id: bytes) -> set[Word]:
        """Under which words the owner of a block falls that is there."""
        return self.words.of(self._rows["owner"][self._at[id]].tobytes())

    def size(self, ids: Iterable[bytes]) -> int:
        """Bytes of their records together."""
        rows = [row for id in ids if (row := self._at.get(id)) is not None]
        return int(self._rows["length"][rows].sum(dtype=np.int64)) if rows else 0

    def use(self, ids: Iterable[bytes]) -> None:
        """All of one path."""
        self._serial += 1
        for id in ids:
            row = self._at.get(id)
            if row is not None:
                self._used[row] = self._serial

    def lengthen(self, id: bytes, stay: Stay) -> bool:
        """The longest life and the highest priority that anybody asked for, of a block that is
        there; whether that changed anything. `expires` is in seconds of the monotonic clock.
        """
        row = self._at.get(id)
        if row is None or (before := self._stay(row)).covers(stay):
            return False
        after = before.or_longer(stay._replace(weight=self._allowed(row, stay.weight)))
        self._raise(row, after.weight)
        self._expires[row] = after.expires
        return after != before

    def stay(self, id: bytes) -> Stay:
        """Of a block that is there."""
        return self._stay(self._at[id])

    def lengthen_all(self, rows: Rows) -> list[bytes]:
        """What rows of kind STAYS say; ids of the blocks for which that changed anything."""
        each = zip(rows["id"].tolist(), self._here(rows), rows["weight"].tolist(), strict=True)
        return [id for id, expires, weight in each if self.lengthen(id, Stay(expires, weight))]

    def forget(self, id: bytes) -> None:
        row = self._at.pop(id, None)
        if row is not None:
            self._raise(row, 0)
            self._expires[row] = inf
            self.bytes -= int(self._rows["length"][row])

    def forget_writer(self, writer: int) -> None:
        for id in [id for id, row in self._at.items() if self._writers[row] == writer]:
            self.forget(id)

    def older(self, writer: int, ids: Sequence[bytes], times: Sequence[float]) -> list[bytes]:
        """Of these those that are that writer's, and were written by these times (wall clock)."""
        rows = ((id, self._at.get(id), at) for id, at in zip(ids, times, strict=True))
        found = [(id, row, at) for id, row, at in rows if row is not None]
        return [
            id
            for id, row, at in found
            if self._writers[row] == writer and self._rows["written"][row] <= at
        ]

    def expired(self) -> list[bytes]:
        """Ids of those that nobody used for as long as they were to live."""
        now = self._clock.monotonic()
        if not (np.array(self._expires) <= now).any():
            return []
        return [id for id, row in self._at.items() if self._expires[row] <= now]

    def owned(self, falls: Callable[[bytes], bool]) -> list[bytes]:
        """Ids of the blocks of owners for whom that holds."""
        rows = np.fromiter(self._at.values(), np.int64, len(self._at))
        owners: list[bytes] = self._rows["owner"][rows].tolist()
        chosen = {owner for owner in set(owners) if falls(owner)}
        return [id for id, owner in zip(self._at, owners, strict=True) if owner in chosen]

    def oldest(self, writer: int, size: int) -> list[bytes]:
        """Ids of that writer's blocks that go first, of `size` bytes together or more."""
        live = self._live(writer)
        weights = np.array(self._weights, np.uint16)[live]
        order = live[np.lexsort((-live, self._ages()[live], weights))]
        enough = int(np.searchsorted(np.cumsum(self._rows["length"][order]), size)) + 1
        found: list[bytes] = self._rows["id"][order[:enough]].tolist()
        return found

    def segments(self, writer: int) -> dict[int, int]:
        """Live bytes by segment."""
        rows = self._rows[self._live(writer)]
        numbers, index = np.unique(rows["segment"], return_inverse=True)
        sums = np.bincount(index, rows["length"], len(numbers))
        return {int(number): int(total) for number, total in zip(numbers, sums, strict=True)}

    def sealed_otherwise(self, writer: int, key: bytes) -> list[int]:
        """Segments with live records of another key."""
        rows = self._rows[self._live(writer)]
        keys = np.frombuffer(rows["key"].tobytes(), "<u4")
        others = rows["segment"][keys != np.frombuffer(key, "<u4")[0]]
        found: list[int] = np.unique(others).tolist()
        return found

    def rows_in(self, writer: int, segments: Sequence[int]) -> Rows:
        """Live rows of these segments, in the order in which they were written."""
        rows = self.live(writer)
        found: Rows = rows[np.isin(rows["segment"], segments)]
        return found

    def live(self, writer: int) -> Rows:
        """Live rows in the order in which they were written, as they would be written now."""
        live = self._live(writer)
        live.sort()
        rows: Rows = self._rows[live]
        rows["expires"] = np.array(self._expires)[live] + self._to_wall
        rows["weight"] = np.array(self._weights, np.uint16)[live]
        rows["written"] = np.minimum(rows["written"], self._clock.wall())
        return checked(rows)

    def row(self, id: bytes) -> Rows:
        """Of a block that is there, as it would be written now; an array of one."""
        row = self._at[id]
        found: Rows = self._rows[row : row + 1].copy()
        found["expires"] = self._expires[row] + self._to_wall
        found["weight"], found["written"] = self._weights[row], self._clock.wall()
        return checked(found)

    def compact(self) -> None:
        """Let go of rows that nobody needs, where they are most of all."""
        if self._end < 4 * len(self._at) + _LEAST_ROOM:
            return
        kept = np.array(sorted(self._at.values()), np.int64)
        self._used = array("q", self._ages()[kept].tobytes())
        self._expires = array("d", np.array(self._expires)[kept].tobytes())
        self._weights = array("H", np.array(self._weights, np.uint16)[kept].tobytes())
        self._rows, self._writers, self._end = self._rows[kept], self._writers[kept], len(kept)
        ids: list[bytes] = self._rows["id"].tolist()
        self._at = {id: row for row, id in enumerate(ids)}
        self.words.keep(set(self._rows["owner"].tolist()))

    @property
    def _to_wall(self) -> float:
        """What makes a time of the wall clock of one of the monotonic clock."""
        return self._clock.wall() - self._clock.monotonic()

    def _here(self, rows: Rows) -> array[float]:
        """When rows expire, by the monotonic clock. None outlives what it had left when it was
        written: the wall clock may have been set back since.
        """
        expires, ahead = rows["expires"], rows["written"] - self._clock.wall()
        here = np.where(ahead > 0, expires - ahead, expires) - self._to_wall
        return array("d", here.tobytes())

    def _stay(self, row: int) -> Stay:
        return Stay(self._expires[row], self._weights[row])

    def _allowed(self, row: int, weight: int) -> int:
        """`weight`, or that of `medium` where this tenant has raised as much as it may."""
        block = partial(self._raised_by, row)
        return self._raised.allowed(self._weights[row], weight, block, self.max_bytes)

    def _raise(self, row: int, weight: int) -> None:
        """Set the weight of a block, and count what its tenant has raised."""
        self._raised.changed(self._weights[row], weight, partial(self._raised_by, row))
        self._weights[row] = weight

    def _raised_by(self, row: int) -> tuple[bytes, int]:
        found = self._rows[row]
        return self.words.tenant(found["owner"].tobytes()), int(found["length"])

    def _without_words(self, rows: Rows) -> Rows:
        said = rows["kind"] == Kind.WORD
        if not said.any():
            return rows
        for row in rows[said]:
            word = Word(Sort(int(row["weight"])), row["parent"].tobytes())
            self.words.add(row["id"].tobytes(), (word,))
        others: Rows = rows[~said]
        return others

    def _all_new(self, begin: int, ids: list[bytes], rows: Rows) -> int:
        """Take in rows that are the first, as a million are at the start, in one go; how many.
        None where some of them replace others.
        """
        others = np.flatnonzero(rows["kind"] != Kind.LIVE)
        count = int(others[0]) if len(others) else len(rows)
        at = {} if self._at else dict(zip(ids[:count], range(begin, begin + count), strict=True))
        if len(at) < count:
            return 0
        if count:
            self._at, self.bytes = at, int(rows["length"][:count].sum(dtype=np.int64))
            for row in np.flatnonzero(rows["weight"][:count] > MEDIUM).tolist():
                self._count_raised(begin + row)
        return count

    def _put(self, row: int, id: bytes, length: int, kind: int, writer: int) -> None:
        before = self._at.get(id)
        is_others = before is not None and self._writers[before] != writer
        if is_others:
            return  # each says what is in its own files; of two that have it the first is read
        if kind == Kind.STAYS:
            self.lengthen(id, self._stay(row))
            return
        self.forget(id)
        if kind == Kind.LIVE:
            self._at[id] = row
            self.bytes += length
            self._count_raised(row)

    def _count_raised(self, row: int) -> None:
        weight, self._weights[row] = self._weights[row], 0
        self._raise(row, self._allowed(row, weight))

    def _age(self, begin: int) -> None:
        """Each new row is younger than the one before it, and what it stands on as young."""
        count = self._end - begin
        self._used.extend(range(self._serial + 1, self._serial + count + 1))
        self._serial += count
        used, parents = self._used, self._rows["parent"][begin : self._end].tolist()
        above = list(map(self._at.get, parents))
        for row in range(self._end - 1, begin - 1, -1):
            parent = above[row - begin]
            if parent is not None and used[parent] < used[row]:
                used[parent] = used[row]
                if parent < begin:  # what is new has its turn in this loop
                    self._age_above(parent)

    def _age_above(self, row: int) -> None:
        age = self._used[row]
        above = self._at.get(self._rows["parent"][row].tobytes())
        while above is not None and self._used[above] < age:
            self._used[above] = age
            above = self._at.get(self._rows["parent"][above].tobytes())

    def _live(self, writer: int) -> npt.NDArray[np.int64]:
        rows = np.fromiter(self._at.values(), np.int64, len(self._at))
        found: npt.NDArray[np.int64] = rows[self._writers[rows] == writer]
        return found

    def _ages(self) -> npt.NDArray[np.int64]:
        return np.array(self._used, np.int64)

    def _place(self, row: int) -> Place:
        found = self._rows[row]
        where = (int(found[name]) for name in ("segment", "offset", "length"))
        return Place(int(self._writers[row]), *where)

    def _make_room(self) -> None:
        if self._end <= len(self._rows):
            return
        room = max(self._end, 2 * len(self._rows))
        for name in ("_rows", "_writers"):
            column = getattr(self, name)
            grown = np.zeros(room, column.dtype)
            grown[: len(column)] = column
            setattr(self, name, grown)


def live_rows(writer: int, rows: Rows, but: Iterable[bytes]) -> Rows:
    """Rows of the blocks that are there by these rows, without some."""
    known = Catalogue()
    known.add(writer, rows)
    for name in but:
        known.forget(name)
    return known.live(writer)
