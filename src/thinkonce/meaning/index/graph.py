"""A graph of near neighbours (HNSW, `usearch`), for partitions too large to look at every row.

What it finds is compared again in floating point. It may miss a neighbour now and then; it never
gives a row that was removed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinkonce.meaning.index.flat import NAME_BYTES, SPARE, Near
from thinkonce.meaning.index.packed import Packed, pack
from thinkonce.meaning.native import onnxruntime_before_usearch

onnxruntime_before_usearch()

from usearch.index import Index  # noqa: E402

__all__ = ("GraphIndex",)

# Neighbours of a row, and how far is looked when adding and searching (Malkov and Yashunin,
# 2018, section 4): with these, what a scan finds first is found in 99 of 100 cases at 100,000 rows.
LINKS, LOOK_ADDING, LOOK_SEARCHING = 16, 128, 128


class GraphIndex:
    """As `FlatIndex`. Thread-safe; not for a forked child."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._graph = Index(
            ndim=dimensions,
            metric="cos",
            dtype="i8",
            connectivity=LINKS,
            expansion_add=LOOK_ADDING,
            expansion_search=LOOK_SEARCHING,
        )
        self._numbers: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._next = self._graph_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: bytes) -> bool:
        return name in self._numbers

    @property
    def nbytes(self) -> int:
        return self._graph_bytes + NAME_BYTES * len(self._numbers)

    def put(self, name: bytes, vector: Packed) -> None:
        """Add a row, or give the row `name` another vector."""
        with self._lock:
            self._drop(name)
            number, self._next = self._next, self._next + 1
            self._graph.add(number, vector[0], copy=True)
            # Asked for here alone: beside another thread's `add` it reads freed memory.
            self._graph_bytes = int(self._graph.memory_usage)
            self._numbers[name], self._names[number] = number, name

    def remove(self, name: bytes) -> bool:
        with self._lock:
            return self._drop(name)

    def search(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        """The `count` nearest rows, nearest first. `vector`: (dimensions,), of length 1."""
        numbers, _ = pack(vector)
        with self._lock:
            if not self._numbers:
                return []
            found = [int(n) for n in self._graph.search(numbers, count + SPARE).keys]
            rows: NDArray[Any] = np.vstack([self._row(number) for number in found])
            names = [self._names[number] for number in found]
        wide = rows.astype(np.float32)
        exact = (wide @ vector) / np.linalg.norm(wide, axis=1)
        order = np.argsort(-exact, kind="stable")[:count]
        return [Near(names[n], float(exact[n])) for n in order]

    def names(self) -> list[bytes]:
        with self._lock:
            return list(self._numbers)

    def rows(self) -> Iterator[tuple[bytes, Packed]]:
        """All of it, as it is now."""
        with self._lock:
            held = list(self._numbers.items())
            rows = [self._row(number) for _, number in held]
        for (name, _), row in zip(held, rows, strict=True):
            yield name, (row, float(1 / np.linalg.norm(row.astype(np.float32))))

    def _row(self, number: int) -> NDArray[np.int8]:
        row: Any = self._graph.get(number)
        return row.reshape(-1)  # type: ignore[no-any-return]

    def _drop(self, name: bytes) -> bool:
        number = self._numbers.pop(name, None)
        if number is None:
            return False
        del self._names[number]
        self._graph.remove(number)
        return True
