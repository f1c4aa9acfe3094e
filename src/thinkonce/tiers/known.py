"""What a store may hold, known without asking the disk: a Bloom filter of its digests.

    put ──────────────────────────► bits        rows of the file ──► bits   (learnt piece by piece)
    another process's commit ──► news, mapped ──► bits

"Not there" is certain once all rows are learnt; "there" may be wrong, about once in 400, and then
the file is asked. What was removed stays in the bits. Every process that commits says beforehand
which digests, in the file that all have mapped; who fell behind what that holds learns anew.
(B. H. Bloom, CACM 13 (7), 1970; two hashes make all, Kirsch and Mitzenmacher, ESA 2006.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from struct import Struct
from typing import Any

import apsw

from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.host.mapfile import HostFile

__all__ = ("Known",)

BITS_EACH = 16  # of a filter that is full; it begins at most half full
LEAST_ROOM, MOST_ROOM = 2**16, 2**24  # digests
PIECE = 5000  # rows learnt in one transaction, some 5 ms

LARGEST = "SELECT max(id) FROM answers"
NEXT = "SELECT digest FROM answers WHERE digest > ? ORDER BY digest LIMIT ?"

_hash = Struct("=Q").unpack_from  # digests are BLAKE3: any of their bits are as good as others


class Known:
    """Thread-safe. Of the file with the number `generation`; of another one nothing is known."""

    def __init__(self, host: HostFile) -> None:
        self._host, self._lock = host, threading.Lock()
        self._bits = bytearray()  # empty: nothing is learnt, nor being learnt
        self._mask = self._room = self._held = self._heard = 0
        self._after: bytes | None = b""  # the last digest learnt; None: all are
        self._generation = -1
        on_fork(self._in_child)

    def lacks(self, digest: bytes, generation: int) -> bool:
        """Whether it is certain that neither file nor queue has `digest`. Reads no disk."""
        if self._after is not None or generation != self._generation:
            return False
        if self._heard != self._host.written[0] or self._held > self._room:
            with self._lock:
                if not self._hear():
                    return False
        bits = self._bits
        (number,) = _hash(digest)
        mask, step = len(bits) * 8 - 1, number >> 32 | 1
        for _ in range(4):
            place = number & mask
            if not bits[place >> 3] & 1 << (place & 7):
                return bits is self._bits and self._after is None  # else they were begun anew
            number += step
        return False

    def add(self, digest: bytes) -> None:
        """It is queued to be written."""
        with self._lock:
            if self._bits:
                self._add(*_hash(digest))

    def tell(self, digests: Iterable[bytes]) -> None:
        """The transaction under way will commit these. Only while holding the file's write lock."""
        news, written = self._host.news, self._host.written
        before = at = written[0]
        for digest in digests:
            (news[at % len(news)],) = _hash(digest)
            at += 1
        written[0] = at
        with self._lock:
            if self._heard == before:  # our own: they were added when they were queued
                self._heard = at

    def learn(self, database: apsw.Connection, generation: int, queued: Iterable[bytes]) -> bool:
        """Learn some of the rows; whether there are more. In a transaction that may write.

        `queued`: what waits to be written now.
        """
        with self._lock:
            if generation != self._generation or not self._hear():
                self._begin(database.execute(LARGEST).get or 0, generation)
                for digest in queued:
                    self._add(*_hash(digest))
            if self._after is None:
                return False
            after = self._after
        rows: list[Any] = database.execute(NEXT, (after, PIECE)).fetchall()
        with self._lock:
            for (digest,) in rows:
                self._add(*_hash(digest))
            self._after = rows[-1][0] if len(rows) == PIECE else None
            return self._after is not None

    def _in_child(self) -> None:
        free_after_fork(self._lock)
        self._generation = -1

    def _begin(self, rows: int, generation: int) -> None:
        room = min(max(2 * rows, LEAST_ROOM), MOST_ROOM)
        bits = 1 << (room * BITS_EACH - 1).bit_length()
        self._bits, self._mask = bytearray(bits // 8), bits - 1
        self._room, self._held = bits // BITS_EACH, 0
        self._heard, self._after, self._generation = self._host.written[0], b"", generation

    def _hear(self) -> bool:
        """Take in what was committed since; False if that is no longer known, or too much."""
        written = self._host.written[0]
        if written != self._heard:
            news = self._host.news
            if not 0 < written - self._heard <= len(news) // 2:  # half: some are being written
                return False
            for at in range(self._heard, written):
                self._add(news[at % len(news)])
            self._heard = written
        return self._held <= self._room or self._room >= MOST_ROOM

    def _add(self, number: int) -> None:
        bits, mask, step = self._bits, self._mask, number >> 32 | 1
        self._held += 1
        for _ in range(4):
            place = number & mask
            bits[place >> 3] |= 1 << (place & 7)
            number += step
