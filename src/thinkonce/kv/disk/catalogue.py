"""Which blocks are in the files, where, and which of them go first: all of it in memory.

Rows of all writers lie in one array; a dictionary leads from an id to its latest row. A path is
used as a whole, so a parent is never older than its children; of equally old rows the later one
is the deeper. Hence the order in which blocks go: oldest first, of equals the latest row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thinkonce.kv.disk.rows import ROW, Kind, Rows

__all__ = ("Catalogue", "Place")

_LEAST_ROOM = 1024  # rows


class Place(NamedTuple):
    """Where a record lies; `length` in bytes."""

    writer: int
    segment: int
    offset: int
    length: int


class Catalogue:
    """Not thread-safe. About 200 bytes a block."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Know of nothing."""
        self._rows = np.zeros(_LEAST_ROOM, ROW)
        self._writers = np.zeros(_LEAST_ROOM, np.uint16)
        self._used = array("q")  # by row; read one by one, which an array of numpy is slow at
        self._end = 0
        self._at: dict[bytes, int] = {}
        self._serial = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, id: bytes) -> bool:
        return id in self._at

    def add(self, writer: int, rows: Rows) -> None:
        """Take in rows in the order in which they were written."""
        begin, self._end = self._end, self._end + len(rows)
        self._make_room()
        self._rows[begin : self._end] = rows
        self._writers[begin : self._end] = writer
        ids: list[bytes] = rows["id"].tolist()
        if not self._all_new(begin, ids, rows):
            columns = (ids, rows["length"].tolist(), rows["kind"].tolist())
            for row, (id, length, kind) in enumerate(zip(*columns, strict=True), start=begin):
                self._put(row, id, length, kind, writer)
        self._age(begin)

    def moved(self, writer: int, rows: Rows) -> None:
        """Records lie elsewhere now; they are as old as they were."""
        before = (self._at.get(id) for id in rows["id"].tolist())
        ages = [0 if row is None else self._used[row] for row in before]
        begin = self._end
        self.add(writer, rows)
        self._used[begin : self._end] = array("q", ages)

    def ids(self) -> list[bytes]:
        return list(self._at)

    def place(self, id: bytes) -> Place | None:
        row = self._at.get(id)
        return None if row is None else self._place(row)

    def following(self, parent: bytes, most: int) -> list[bytes]:
        """Of what follows that block, what was written last."""
        words = self._rows[: self._end].view("<u4").reshape(-1, ROW.itemsize // 4)
        column = words[:, ROW.fields["parent"][1] // 4] if ROW.fields else words[:, 0]
        alike = np.flatnonzero(column == np.frombuffer(parent, "<u4")[0])[::-1]
        rows = self._rows[alike]
        ids = [row["id"].tobytes() for row in rows if row["parent"].tobytes() == parent]
        return [id for id in dict.fromkeys(ids) if id in self._at][:most]

    def use(self, ids: Iterable[bytes]) -> None:
        """All of one path."""
        self._serial += 1
        for id in ids:
            row = self._at.get(id)
            if row is not None:
                self._used[row] = self._serial

    def forget(self, id: bytes) -> None:
        row = self._at.pop(id, None)
        if row is not None:
            self.bytes -= int(self._rows["length"][row])

    def forget_writer(self, writer: int) -> None:
        for id in [id for id, row in self._at.items() if self._writers[row] == writer]:
            self.forget(id)

    def oldest(self, writer: int, size: int) -> list[bytes]:
        """Ids of that writer's blocks that go first, of `size` bytes together or more."""
        live = self._live(writer)
        order = live[np.lexsort((-live, self._ages()[live]))]
        enough = int(np.searchsorted(np.cumsum(self._rows["length"][order]), size)) + 1
        found: list[bytes] = self._rows["id"][order[:enough]].tolist()
        return found

    def segments(self, writer: int) -> dict[int, int]:
        """Live bytes by segment."""
        rows = self._rows[self._live(writer)]
        numbers, index = np.unique(rows["segment"], return_inverse=True)
        sums = np.bincount(index, rows["length"], len(numbers))
        return {int(number): int(total) for number, total in zip(numbers, sums, strict=True)}

    def rows_in(self, writer: int, segments: Sequence[int]) -> Rows:
        """Live rows of these segments, in the order in which they were written."""
        live = self._live(writer)
        live.sort()
        rows = self._rows[live]
        return rows[np.isin(rows["segment"], segments)]

    def live(self, writer: int) -> Rows:
        live = self._live(writer)
        live.sort()
        return self._rows[live]

    def compact(self) -> None:
        """Let go of rows that nobody needs, where they are most of all."""
        if self._end < 4 * len(self._at) + _LEAST_ROOM:
            return
        kept = np.array(sorted(self._at.values()), np.int64)
        self._rows, self._writers = self._rows[kept], self._writers[kept]
        self._used, self._end = array("q", self._ages()[kept].tobytes()), len(kept)
        ids: list[bytes] = self._rows["id"].tolist()
        self._at = {id: row for row, id in enumerate(ids)}

    def _all_new(self, begin: int, ids: list[bytes], rows: Rows) -> bool:
        """Take in rows that are the first, as a million are at the start, in one go; False and
        nothing done where some of them replace others.
        """
        if self._at or not (rows["kind"] == Kind.LIVE).all():
            return False
        at = dict(zip(ids, range(begin, self._end), strict=True))
        if len(at) < len(ids):
            return False
        self._at, self.bytes = at, int(rows["length"].sum(dtype=np.int64))
        return True

    def _put(self, row: int, id: bytes, length: int, kind: int, writer: int) -> None:
        before = self._at.get(id)
        is_others = before is not None and self._writers[before] != writer
        if is_others:
            return  # each says what is in its own files; of two that have it the first is read
        self.forget(id)
        if kind == Kind.LIVE:
            self._at[id] = row
            self.bytes += length

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
