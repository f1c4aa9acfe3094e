"""Every row compared with the question: exact, and the fastest there is up to ten thousand rows.

A scan in 8-bit integers (`numkong`) finds the nearest few, which are then compared again in
floating point. 512 dimensions, one core: 2 us over 10 rows, 26 us over 1,000, 255 us over 10,000,
some 30 ms over a million. There may be tens of thousands of these: a row of its own takes 2 KB.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numkong
import numpy as np
from numpy.typing import NDArray

from thinkonce.meaning.packed import Packed, pack

__all__ = ("FlatIndex", "Near")

LEAST_ROOM = 1  # rows: most partitions never have a second one
SPARE = 8  # rows more than asked for, that are compared again
NAME_BYTES = 200  # of a name and its place, about
SAMPLED = 32  # of so many rows one is looked at for where the largest begin
MANY = 20_000  # rows, from which that is worth it
EMPTY_BYTES = 1000


class Near(NamedTuple):
    """A row and the cosine of its vector and the question's."""

    name: bytes
    similarity: float


class FlatIndex:
    """Vectors of one partition by the names of their rows. Thread-safe; not for a forked child."""

    __slots__ = ("_lock", "_names", "_places", "_rows", "_scales", "dimensions")

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows: NDArray[np.int8] = np.empty((0, dimensions), np.int8)
        self._scales: NDArray[np.float32] = np.empty(0, np.float32)
        self._names: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: bytes) -> bool:
        return name in self._places

    @property
    def nbytes(self) -> int:
        held = self._rows.nbytes + self._scales.nbytes
        return EMPTY_BYTES + held + NAME_BYTES * len(self._names)

    def put(self, name: bytes, vector: Packed) -> None:
        """Add a row, or give the row `name` another vector."""
        numbers, scale = vector
        with self._lock:
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = len(self._names)
                self._names.append(name)
                self._make_room(place + 1)
            self._rows[place], self._scales[place] = numbers, scale

    def extend(self, names: Sequence[bytes], vectors: Sequence[Packed]) -> None:
        """`put` for many rows that are not here yet, at once."""
        with self._lock:
            start = len(self._names)
            self._names += names
            self._places.update(zip(names, range(start, len(self._names)), strict=True))
            self._make_room(len(self._names))
            self._rows[start : len(self._names)] = [numbers for numbers, _ in vectors]
            self._scales[start : len(self._names)] = [scale for _, scale in vectors]

    def remove(self, name: bytes) -> bool:
        """Whether there was such a row. The last row takes its place."""
        with self._lock:
            place = self._places.pop(name, None)
            if place is None:
                return False
            last = self._names.pop()
            if last != name:
                count = len(self._names)
                self._rows[place], self._scales[place] = self._rows[count], self._scales[count]
                self._names[place], self._places[last] = last, place
            self._make_room(len(self._names))
            return True

    def search(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        """The `count` nearest rows, nearest first. `vector`: (dimensions,), of length 1."""
        numbers, _ = pack(vector)
        with self._lock:
            held = len(self._names)
            if not held:
                return []
            dots = np.asarray(numkong.cdist(numbers[None, :], self._rows[:held], "dot"))[0]
            rough = np.multiply(dots, self._scales[:held], dtype=np.float32)
            places = _largest(rough, count + SPARE)
            exact = (self._rows[places].astype(np.float32) @ vector) * self._scales[places]
            order = np.argsort(-exact, kind="stable")[:count]
            return [Near(self._names[places[n]], float(exact[n])) for n in order]

    def names(self) -> list[bytes]:
        with self._lock:
            return list(self._names)

    def get(self, name: bytes) -> Packed | None:
        with self._lock:
            place = self._places.get(name)
            return None if place is None else (self._rows[place].copy(), float(self._scales[place]))

    def rows(self) -> Iterator[tuple[bytes, Packed]]:
        """All of it, as it is now."""
        with self._lock:
            names, rows, scales = list(self._names), self._rows.copy(), self._scales.copy()
        for name, row, scale in zip(names, rows, scales, strict=False):
            yield name, (row, float(scale))

    def _make_room(self, count: int) -> None:
        """Half as much again when it is full, half of it when three quarters are empty."""
        room = len(self._scales)
        if count > room or (count < room // 4 and room > LEAST_ROOM):
            room = max(room // 2 if count < room else room + room // 2, count, LEAST_ROOM)
            self._rows = _resized(self._rows, room)
            self._scales = _resized(self._scales, room)


def _largest(values: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Places of at least `count` values, the largest among them; all where there are fewer."""
    if len(values) <= count:
        return np.arange(len(values))
    if len(values) < MANY:
        return np.argpartition(values, -count)[-count:]
    # Looking for the largest of all takes as long as the scan. The `count`-th of a sample lies
    # below the `count`-th of all, so what is above it is a few hundred rows.
    cut = np.partition(values[::SAMPLED], -count)[-count]
    return np.flatnonzero(values >= cut)


def _resized(rows: NDArray[Any], room: int) -> NDArray[Any]:
    made = np.empty((room, *rows.shape[1:]), rows.dtype)
    kept = min(room, len(rows))
    made[:kept] = rows[:kept]
    return made
