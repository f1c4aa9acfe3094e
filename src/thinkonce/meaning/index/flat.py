"""Every row compared with the question: exact, and the fastest there is up to ten thousand rows.

A scan in 8-bit integers (`numkong`) finds the nearest few, which are then compared again in
floating point. 512 dimensions, one core: 2 us over 10 rows, 26 us over 1,000, 255 us over 10,000,
some 30 ms over a million. There may be tens of thousands of these: a row of its own takes 2 KB.

    blocks   [ 65536 rows ][ 65536 rows ][ 1, 2, 4 .. 65536 rows ]     place = 65536 * block + row

Rows lie in blocks, so that a large index that grows does not copy what it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numkong
import numpy as np
from numpy.typing import NDArray

from thinkonce.meaning.index.packed import Packed, pack

__all__ = ("BLOCK", "FlatIndex", "Near")

BLOCK = 65_536  # rows: a scan lets other threads run after each
SPARE = 8  # rows more than asked for, that are compared again
NAME_BYTES = 200  # of a name and its place, about
SAMPLED = 8  # of so many rows one is looked at for where the largest begin
MANY = 4000  # rows, from which that is worth it
EMPTY_BYTES = 1000


class Near(NamedTuple):
    """A row and the cosine of its vector and the question's."""

    name: bytes
    similarity: float


class Block(NamedTuple):
    """`rows`: (room, dimensions) of int8; `scales`: (room,) of float32."""

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]


class FlatIndex:
    """Vectors of one partition by the names of their rows. Thread-safe; not for a forked child."""

    __slots__ = ("_blocks", "_lock", "_names", "_places", "dimensions")

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._blocks: list[Block] = []
        self._names: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: bytes) -> bool:
        return name in self._places

    @property
    def nbytes(self) -> int:
        blocks = self._blocks[:]  # another thread may take the last one away
        room = len(blocks[-1].scales) + BLOCK * (len(blocks) - 1) if blocks else 0
        return EMPTY_BYTES + room * (self.dimensions + 4) + NAME_BYTES * len(self._names)

    def put(self, name: bytes, vector: Packed) -> None:
        """Add a row, or give the row `name` another vector."""
        with self._lock:
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = len(self._names)
                self._names.append(name)
                self._make_room(place + 1)
            self._write(place, vector)

    def extend(
        self, names: Sequence[bytes], rows: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> None:
        """`put` for many rows that are not here yet: (n, dimensions) and (n,)."""
        with self._lock:
            start, done = len(self._names), 0
            self._names += names
            self._places.update(zip(names, range(start, len(self._names)), strict=True))
            while done < len(names):
                number, at = divmod(start + done, BLOCK)
                count = min(BLOCK - at, len(names) - done)
                self._make_room(start + done + count)
                block = self._blocks[number]
                block.rows[at : at + count] = rows[done : done + count]
                block.scales[at : at + count] = scales[done : done + count]
                done += count

    def remove(self, name: bytes) -> bool:
        """Whether there was such a row. The last row takes its place."""
        with self._lock:
            place = self._places.pop(name, None)
            if place is None:
                return False
            last = self._names.pop()
            if last != name:
                self._write(place, self._read(len(self._names)))
                self._names[place], self._places[last] = last, place
            self._give_back(len(self._names))
            return True

    def search(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        """The `count` nearest rows, nearest first. `vector`: (dimensions,), of length 1.

        Who writes waits for none of the scan. A row that takes another one's place meanwhile may
        be missed, by this search alone; what is given is always a row that is here.
        """
        with self._lock:
            blocks, held = list(self._blocks), len(self._names)
        places = _largest(_rough(blocks, held, pack(vector)[0]), count + SPARE)
        with self._lock:
            places = places[places < len(self._names)]
            rows, scales = self._gathered(places)
            names = [self._names[place] for place in places]
        exact = (rows.astype(np.float32) @ vector) * scales
        order = np.argsort(-exact, kind="stable")[:count]
        return [Near(names[n], float(exact[n])) for n in order]

    def names(self) -> list[bytes]:
        with self._lock:
            return list(self._names)

    def last(self, count: int) -> list[bytes]:
        """The names of up to `count` rows that would be the cheapest to remove."""
        with self._lock:
            return self._names[-count:]

    def get(self, name: bytes) -> Packed | None:
        with self._lock:
            place = self._places.get(name)
            return None if place is None else self._read(place)

    def rows(self) -> Iterator[tuple[bytes, Packed]]:
        """All that is here while it is read."""
        for name in self.names():
            vector = self.get(name)
            if vector is not None:
                yield name, vector

    # -- under the lock ----------------------------------------------------------------------

    def _gathered(self, places: NDArray[np.intp]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        if len(self._blocks) == 1:
            return self._blocks[0].rows[places], self._blocks[0].scales[places]
        rows = np.empty((len(places), self.dimensions), np.int8)
        scales = np.empty(len(places), np.float32)
        numbers, ats = places // BLOCK, places % BLOCK
        for number in np.unique(numbers):
            mine = numbers == number
            block = self._blocks[number]
            rows[mine], scales[mine] = block.rows[ats[mine]], block.scales[ats[mine]]
        return rows, scales

    def _read(self, place: int) -> Packed:
        number, at = divmod(place, BLOCK)
        block = self._blocks[number]
        return block.rows[at].copy(), float(block.scales[at])

    def _write(self, place: int, vector: Packed) -> None:
        number, at = divmod(place, BLOCK)
        block = self._blocks[number]
        block.rows[at], block.scales[at] = vector

    def _make_room(self, count: int) -> None:
        """For rows in one block more than there are, at most; the last block doubles."""
        number, wanted = (count - 1) // BLOCK, (count - 1) % BLOCK + 1
        if number == len(self._blocks):
            room = BLOCK if number else wanted
            rows = np.empty((room, self.dimensions), np.int8)
            self._blocks.append(Block(rows, np.empty(room, np.float32)))
        room = len(self._blocks[number].scales)
        if wanted > room:
            self._resize(number, min(max(2 * room, wanted), BLOCK))

    def _give_back(self, count: int) -> None:
        """Blocks that are empty, and half of the only one when three quarters are."""
        while len(self._blocks) > -(-count // BLOCK):
            self._blocks.pop()
        if len(self._blocks) == 1 and count < (room := len(self._blocks[0].scales)) // 4:
            self._resize(0, room // 2)

    def _resize(self, number: int, room: int) -> None:
        rows, scales = self._blocks[number]
        self._blocks[number] = Block(_resized(rows, room), _resized(scales, room))


def _rough(blocks: list[Block], held: int, question: NDArray[np.int8]) -> NDArray[np.float32]:
    """The cosine of each of the first `held` rows and the question, about."""
    found = np.empty(held, np.float32)
    for number, (rows, scales) in enumerate(blocks):
        start = number * BLOCK
        count = min(BLOCK, held - start)
        dots = np.asarray(numkong.cdist(question[None, :], rows[:count], "dot"))[0]
        np.multiply(dots, scales[:count], out=found[start : start + count], casting="same_kind")
    return found


def _largest(values: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Places of at least `count` values, the largest among them; all where there are fewer."""
    if len(values) <= count:
        return np.arange(len(values))
    if len(values) < MANY:
        return np.argpartition(values, -count)[-count:]
    # Looking for the largest of all takes as long as the scan. The `count`-th of a sample lies
    # below the `count`-th of all, so what is above it is a hundred rows or two.
    cut = np.partition(values[::SAMPLED], -count)[-count]
    return np.flatnonzero(values >= cut)


def _resized(rows: NDArray[Any], room: int) -> NDArray[Any]:
    made = np.empty((room, *rows.shape[1:]), rows.dtype)
    kept = min(room, len(rows))
    made[:kept] = rows[:kept]
    return made
