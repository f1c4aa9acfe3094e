"""The questions of one partition, in memory: what was asked where all else was equal.

    rows of the store ──► take ──┐
    puts of this process ──► add ┴──► vectors: FlatIndex ──► many: moved on into a GraphIndex
                                      wordings: fingerprint ──► newest digests (`wordings`)
                                      holdings: whose rows, where a group shares the partition

Made of rows and thrown away at will. What it gives are candidates: an entry may have gone since,
and whoever finds that out says so (`forget`). Texts are not held; they lie with the entries.
A search looks into both indexes, so that rows may be moved while it goes on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from thinkonce.likeness import Hint
from thinkonce.meaning.index.flat import FlatIndex, Near
from thinkonce.meaning.index.graph import GraphIndex
from thinkonce.meaning.index.holdings import Holdings
from thinkonce.meaning.index.packed import Packed, unpack, unpack_all
from thinkonce.meaning.index.wordings import Wordings
from thinkonce.tiers.tier import Question

__all__ = ("FIRST", "GRAPH_FROM", "Space")

# Rows. Below, a scan costs less than a graph's upkeep: 30,000 rows of 512 dimensions take 0.9 ms a
# search and 12 us a row to add, a graph 0.3 ms and 0.6 ms. Most requests that search add a row.
GRAPH_FROM = 30_000
MOVE_FROM = 4_000  # the same where there is a graph already
FIRST = 2**62  # a number later than any row's
MOST_MISSING = 100_000  # digests remembered whose vector is still to be made
OWN_BYTES = 1200  # of a space without rows
MISSING_BYTES = 150  # of a digest whose vector is still to be made
SPARED_SECONDS = 10.0  # a store commits within one, or drops the write
# After each row: a search that waits for the graph gets its turn, as it would not by itself.
BREATH_SECONDS = 0.0002
MOVED = 50  # rows moved into a graph at a time


class Space:
    """Thread-safe; not for a forked child.

    `newest` and `oldest` are the rows of the store that were read last, in either direction;
    `complete` once there are none before `oldest`. `missing` holds digests of entries without a
    vector of this space's embedder.
    """

    __slots__ = (
        "_fed",
        "_flat",
        "_graph",
        "_holdings",
        "_lock",
        "_wordings",
        "added",
        "complete",
        "counted",
        "dimensions",
        "embedder",
        "epoch",
        "missing",
        "newest",
        "oldest",
        "partition",
        "read",
    )

    def __init__(self, partition: bytes, embedder: str, dimensions: int) -> None:
        self.partition, self.embedder, self.dimensions = partition, embedder, dimensions
        self.newest, self.oldest, self.complete = 0, FIRST, False
        self.missing: dict[bytes, None] = {}
        self.added = 0  # rows since what is gone was last swept out
        self.epoch = 0  # purges up to this one are known here
        self.counted = 0  # bytes, as its owner last counted them
        self.read = 0  # rows of the store that were looked at
        self._flat: FlatIndex | None = None
        self._graph: GraphIndex | None = None
        self._wordings, self._holdings = Wordings(), Holdings()
        self._fed: dict[bytes, float] = {}  # on their way to the store, and since when
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Vectors held."""
        return sum(map(len, self._indexes()))

    def __contains__(self, digest: bytes) -> bool:
        flat, graph = self._flat, self._graph
        return (flat is not None and digest in flat) or (graph is not None and digest in graph)

    @property
    def nbytes(self) -> int:
        held = sum(index.nbytes for index in self._indexes())
        held += self._wordings.nbytes + self._holdings.nbytes
        return OWN_BYTES + held + MISSING_BYTES * len(self.missing)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (len(self) or self._wordings or self.missing)

    @property
    def is_shared(self) -> bool:
        """Whether members of a group have rows here."""
        return len(self._holdings) > 0

    # -- looking -----------------------------------------------------------------------------

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        """Up to `count` candidates by digest, nearest first. `vector`: of this embedder, length 1.

        Nothing for a vector that is not finite, or of other dimensions.
        """
        if vector.shape != (self.dimensions,) or not np.isfinite(vector).all():
            return []
        # The flat one first: what is moved meanwhile is found twice rather than not at all.
        found = {
            near.name: near for index in self._indexes() for near in index.search(vector, count)
        }
        return sorted(found.values(), key=lambda near: -near.similarity)[:count]

    def alike(self, fingerprint: bytes) -> list[bytes]:
        """The newest entries with this fingerprint, by their digests: one a member."""
        return self._wordings.alike(fingerprint)

    def spread(self, near: Sequence[Near], most: int) -> list[Near]:
        """`near` without what is one member's beyond `most`, in its order."""
        seen, found = Counter[bytes](), []
        for each in near:
            member = self._holdings.member_of(each.name)
            seen[member] += 1
            if seen[member] <= most:
                found.append(each)
        return found

    def of_member(self, near: Sequence[Near], member: bytes) -> list[Near]:
        return [each for each in near if self._holdings.member_of(each.name) == member]

    # -- what comes and goes -----------------------------------------------------------------

    def add(self, digest: bytes, hint: Hint, *, awaited: bool = True) -> None:
        """What this process just put. `awaited`: a row of the store will follow."""
        with self._lock:
            if awaited:
                self._fed[digest] = time.monotonic()
            self.added += 1
            self._wordings.add(hint.fingerprint, digest, hint.member, newer=True)
            self._holdings.add(hint.member, digest, hint.fingerprint, newer=True)
            vector = self._readable(hint.embedder, hint.vector)
            if vector is not None:
                self._put(digest, vector)
            else:
                self._miss(digest)

    def take(self, rows: Sequence[Question], *, forwards: bool) -> None:
        """Rows of the store: those behind `newest`, in order, or those before `oldest`, backwards.

        What is held already is newer than rows read backwards, and is not replaced by them.
        """
        with self._lock:
            new: list[Question] = []
            for row in rows:
                self._fed.pop(row.digest, None)
                self._wordings.add(row.fingerprint, row.digest, row.member, newer=forwards)
                if row.member:
                    self._holdings.add(row.member, row.digest, row.fingerprint, newer=forwards)
                if row.embedder != self.embedder or len(row.vector) != 4 + self.dimensions:
                    self._miss(row.digest)
                elif row.digest not in self:
                    new.append(row)
                elif forwards and (vector := self._readable(row.embedder, row.vector)) is not None:
                    self._put(row.digest, vector)
            if new:
                self._extend(new)
            self.added += len(new) if forwards else 0
            self.read += len(rows)
            numbers = [row.row for row in rows]
            self.newest = max(self.newest, *numbers, 0)
            self.oldest = min(self.oldest, *numbers, FIRST)

    def forget(self, digest: bytes, fingerprint: bytes = b"") -> None:
        """The entry is gone; `fingerprint`: by which `alike` gave it."""
        with self._lock:
            self._drop(digest)
            self._wordings.drop(fingerprint, digest)

    def sweep(self, is_alive: Callable[[bytes], bool]) -> int:
        """Forget what is gone; how many vectors. What may be on its way to the store stays."""
        lately = time.monotonic() - SPARED_SECONDS
        with self._lock:
            fed = {digest: since for digest, since in self._fed.items() if since > lately}
            self._fed = fed
            gone = [name for name in self._names() if name not in fed and not is_alive(name)]
            for digest in gone:
                self._drop(digest)
            self._wordings.keep(lambda digest: digest in fed or is_alive(digest))
            for digest in self._holdings.names():
                if digest not in fed and not is_alive(digest):
                    self._holdings.drop(digest)
            self.added = 0
            return len(gone)

    def shrink(self, share: float) -> None:
        """Forget this share of what is held: of whoever has most, and what came first first."""
        with self._lock:
            names = self._names()
            count = ceil(max(len(names), len(self._holdings)) * share)
            goes = self._holdings.to_go(count)
            for digest in [*goes, *names[: count - len(goes)]]:
                self._drop(digest)
            if not goes:
                self._wordings.shrink(ceil(len(self._wordings) * share))
            for digest in list(self.missing)[: ceil(len(self.missing) * share)]:
                del self.missing[digest]

    # -- vectors made later ------------------------------------------------------------------

    def give(self, digest: bytes, vector: bytes) -> None:
        """A vector, packed, for one that had none."""
        with self._lock:
            self.missing.pop(digest, None)
            self._put(digest, unpack(vector, self.dimensions))

    # -- the graph ---------------------------------------------------------------------------

    @property
    def is_to_be_moved(self) -> bool:
        """Whether there are so many rows that `move` is of use."""
        return len(self._flat or ()) >= (GRAPH_FROM if self._graph is None else MOVE_FROM)

    def move(self) -> bool:
        """Move some rows into the graph, about a millisecond each; False if none were left.

        For one thread at a time.
        """
        flat = self._flat
        names = [] if flat is None else flat.last(MOVED)
        if flat is None or not names:
            return False
        graph = self._graph or GraphIndex(self.dimensions)
        for name in names:
            vector = flat.get(name)
            if vector is not None:
                graph.put(name, vector)
                time.sleep(BREATH_SECONDS)
        with self._lock:
            self._graph = graph
            for name in names:
                if not flat.remove(name):  # forgotten meanwhile
                    graph.remove(name)
        return True

    # -- under the lock ----------------------------------------------------------------------

    def _readable(self, embedder: str, vector: bytes) -> Packed | None:
        """None for another embedder's, for none, and for a damaged one."""
        if not vector or embedder != self.embedder:
            return None
        try:
            return unpack(vector, self.dimensions)
        except ValueError:
            return None

    def _put(self, digest: bytes, vector: Packed) -> None:
        self.missing.pop(digest, None)
        if self._graph is not None:
            self._graph.remove(digest)
        if self._flat is None:
            self._flat = FlatIndex(self.dimensions)
        self._flat.put(digest, vector)

    def _extend(self, new: list[Question]) -> None:
        """Rows with vectors of the right length: together, for a million one by one takes long."""
        rows, scales, sound = unpack_all([row.vector for row in new])
        names = [row.digest for row in new]
        if not sound.all():
            for at in np.flatnonzero(~sound):
                self._miss(names[at])
            names = [names[at] for at in np.flatnonzero(sound)]
            rows, scales = rows[sound], scales[sound]
        if self._flat is None:
            self._flat = FlatIndex(self.dimensions)
        self._flat.extend(names, rows, scales)
        if self.missing:
            for name in names:
                self.missing.pop(name, None)

    def _miss(self, digest: bytes) -> None:
        if self.dimensions and digest not in self and len(self.missing) < MOST_MISSING:
            self.missing[digest] = None

    def _drop(self, digest: bytes) -> None:
        self.missing.pop(digest, None)
        self._fed.pop(digest, None)
        if fingerprint := self._holdings.drop(digest):
            self._wordings.drop(fingerprint, digest)
        for index in self._indexes():
            index.remove(digest)

    def _names(self) -> list[bytes]:
        return [name for index in reversed(self._indexes()) for name in index.names()]

    def _indexes(self) -> list[FlatIndex | GraphIndex]:
        return [index for index in (self._flat, self._graph) if index is not None]
