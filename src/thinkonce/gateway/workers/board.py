"""A few numbers that all workers of a gateway read and change: what is left of an allowance.

    | name, 16 bytes | first | second |      CELLS of them; a name's place is found by its hash

The memory has no name in the file system: workers inherit it from their parent, and it goes with
the last of them. A cell is changed under a lock of its own, which the system takes back from a
process that dies. Whoever holds it has a few instructions to go, so nobody waits for it longer
than a moment: a process that was stopped just then costs a miscount, not a hang.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

__all__ = ("Board", "Cell")

NAME_BYTES = 16
CELL = struct.Struct(f"={NAME_BYTES}sdd")
NUMBERS = struct.Struct("=dd")
CELLS = 1 << 16
SIZE = CELLS * CELL.size  # untouched pages take no memory
PATIENCE = 200  # attempts at a lock, some 100 us
LONGEST_LOOK = 0.1  # seconds for a place of a new name: taken at the start and at a reload


class Cell:
    """Two numbers at a place of a board. Belongs to one event loop of each process."""

    __slots__ = ("_at", "_fd", "_map", "_place")

    def __init__(self, fd: int, mapped: mmap.mmap, place: int) -> None:
        self._fd, self._map, self._place = fd, mapped, place
        self._at = place * CELL.size + NAME_BYTES

    def read(self) -> tuple[float, float]:
        first, second = NUMBERS.unpack_from(self._map, self._at)
        return first, second

    def write(self, first: float, second: float) -> None:
        NUMBERS.pack_into(self._map, self._at, first, second)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other process changes the cell meanwhile."""
        locked = _lock(self._fd, self._place)
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._place)


class Board:
    """Made by the parent, opened by each worker from the descriptor it inherits."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, SIZE)

    @classmethod
    def new(cls) -> Board:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("thinkonce")
        else:  # macOS
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def cell(self, name: str, first: float = 0.0, second: float = 0.0) -> Cell | None:
        """The cell of `name`, with these numbers if it is new.

        None where the board is full, and where a process that was stopped keeps others from it.
        """
        digest = blake2b(name.encode(), digest_size=NAME_BYTES).digest()
        place, is_there = self._place_of(digest)
        if is_there:  # a cell never goes, so no lock is needed to find one
            return Cell(self.fd, self._map, place)
        if not _lock_soon(self.fd, CELLS):  # one lock for all that take a place
            return None
        try:
            place, is_there = self._place_of(digest)
            if place < 0:
                return None
            if not is_there:
                CELL.pack_into(self._map, place * CELL.size, digest, first, second)
            return Cell(self.fd, self._map, place)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, CELLS)

    def _place_of(self, digest: bytes) -> tuple[int, bool]:
        """Where its cell is, or could be; -1 where there is no place left."""
        begin = int.from_bytes(digest[:4]) % CELLS
        for step in range(CELLS):
            place = (begin + step) % CELLS
            found = bytes(self._map[place * CELL.size : place * CELL.size + NAME_BYTES])
            if found == digest or not any(found):
                return place, found == digest
        return -1, False

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


def _lock_soon(fd: int, place: int) -> bool:
    """As `_lock`, with patience for a process that had to wait for its turn to run."""
    give_up_at = time.monotonic() + LONGEST_LOOK
    while not _lock(fd, place):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.001)
    return True


def _lock(fd: int, place: int) -> bool:
    for _ in range(PATIENCE):
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            continue
        return True
    return False
