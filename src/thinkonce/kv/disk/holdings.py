"""The files of one model's blocks: our own, which are written, and the others', which are followed.

write ──► records, sync, rows, sync ──► found
keep_to_budget ──► rows that say GONE, half-empty segments written anew, empty ones removed
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thinkonce.clock import Clock
from thinkonce.kv.disk.catalogue import Catalogue, Place
from thinkonce.kv.disk.folder import Folder, made_folder
from thinkonce.kv.disk.manifest import Followed, Manifest
from thinkonce.kv.disk.record import encoded_head, record_bytes
from thinkonce.kv.disk.rows import Kind, Rows, row_of
from thinkonce.kv.disk.segment import SegmentReader, SegmentWriter
from thinkonce.kv.prefix.blocks import Block

__all__ = ("DEAD_SHARE", "LOOK_AGAIN", "Holdings", "Offered")

_logger = logging.getLogger("thinkonce.kv")

LOOK_AGAIN = 5.0  # seconds between two looks for other processes' files
KEPT_SHARE = 0.95  # of the budget, once it was exceeded: not each write evicts
DEAD_SHARE = 0.1  # of the budget, beyond what moving records costs
_BEGINNING = 12 * 1024  # bytes of a record: its head and the tokens of the longest block
HALF = 0.5  # live share of a segment below which it is written anew


class Offered(NamedTuple):
    """A block that is to be written."""

    block: Block
    state: memoryview


class Holdings:
    """What changes files is for one thread; `lock` guards the catalogue and what only reads.

    All methods raise OSError where the system refuses.
    """

    def __init__(self, root: Path, model: str, max_bytes: int, clock: Clock) -> None:
        self._root, self._model, self._max_bytes, self._clock = root, model, max_bytes, clock
        self._looked_at: float = -LOOK_AGAIN
        self.ordered: list[bytes] = []  # said to be gone by others, of blocks in our files
        self.written = self.evicted = self.failures = 0
        self.lock = threading.Lock()
        self.open()

    def open(self) -> None:
        """Take in what was left behind; segments are begun anew, behind all that are known."""
        made_folder(self._root, "[kv] store")
        self.folder = Folder(made_folder(self._root / self._model, "[kv] store"))
        self.writer, self._lock_file = self.folder.lock_one()
        try:
            self.manifest = Manifest(self.folder.rows(self.writer))
        except BaseException:
            self._lock_file.release()
            raise
        self.catalogue, self.reader = Catalogue(), SegmentReader(self.folder)
        self._followed: dict[int, Followed] = {}
        self._looked_at = -LOOK_AGAIN
        rows = self.manifest.rows
        self.catalogue.add(self.writer, rows)
        numbers = [*self.folder.segments(self.writer), *rows["segment"].tolist(), 0]
        self.segments = SegmentWriter(self.folder, self.writer, int(max(numbers)) + 1)

    def open_again(self) -> None:
        """The files went away under us: begin with what is there now, which may be nothing."""
        _logger.warning("the folder of attention state went away, and is made anew")
        with self.lock:
            self.close()
            self.open()

    def close(self) -> None:
        self.segments.give_up()
        self.reader.close()
        for followed in self._followed.values():
            followed.close()
        self.manifest.close()
        self._lock_file.release()

    # -- under the lock -------------------------------------------------------------------------

    def read(self, id: bytes, place: Place) -> tuple[Place, memoryview]:
        """And where it was found: another process may have moved it. Raises OSError."""
        try:
            return place, self.reader.read(place)
        except FileNotFoundError:
            self.follow()
            moved = self.catalogue.place(id)
            if moved is None or moved == place:
                raise
            return moved, self.reader.read(moved)

    def beginning(self, id: bytes) -> memoryview | None:
        """Of its record, as much as holds the tokens; None where it cannot be read."""
        place = self.catalogue.place(id)
        if place is None:
            return None
        try:
            return self.reader.read(place._replace(length=min(place.length, _BEGINNING)))
        except OSError:
            return None

    def follow(self) -> None:
        """Take in what other processes have written since."""
        with suppress(OSError):
            if self._looked_at + LOOK_AGAIN <= self._clock.monotonic():
                self._looked_at = self._clock.monotonic()
                for writer in self.folder.writers():
                    if writer != self.writer and writer not in self._followed:
                        self._followed[writer] = Followed(self.folder.rows(writer))
        for writer, followed in list(self._followed.items()):
            is_first = not followed.end
            try:
                is_void, rows = followed.news()
            except OSError:
                is_void, rows = True, None
                self._followed.pop(writer).close()
            if is_void:
                self.catalogue.forget_writer(writer)
            if rows is not None and len(rows):
                self.catalogue.add(writer, rows)
                if not is_first:
                    self._obey(rows)

    def _obey(self, rows: Rows) -> None:
        """What another process says is gone is so here too. Of what it said before we looked
        first, those who had the blocks have taken care.
        """
        for id in rows["id"][rows["kind"] == Kind.GONE].tolist():
            place = self.catalogue.place(id)
            if place is not None:
                self.catalogue.forget(id)
                if place.writer == self.writer:
                    self.ordered.append(id)

    # -- by the thread that writes --------------------------------------------------------------

    def write(self, offered: Sequence[Offered]) -> None:
        if not self.manifest.is_there():
            self.open_again()
        rows = np.concatenate([self._appended(each) for each in offered])
        self.segments.sync()
        self.manifest.append(rows)
        with self.lock:
            self.catalogue.add(self.writer, rows)
            self.written += len(rows)

    def remove(self, ids: Sequence[bytes]) -> None:
        if ids:
            self.manifest.append(_gone_rows(ids))
            with self.lock:
                for id in ids:
                    self.catalogue.forget(id)

    def remove_left(self, ids: set[bytes]) -> None:
        """Say it in the files of processes that have ended too."""
        for writer in self.folder.writers():
            lock = None if writer == self.writer else self.folder.lock(writer)
            if lock is None:
                continue
            try:
                manifest = Manifest(self.folder.rows(writer))
                found = ids.intersection(manifest.rows["id"].tolist())
                if found:
                    manifest.append(_gone_rows(found))
                manifest.close()
            finally:
                lock.release()

    def keep_to_budget(self) -> None:
        with self.lock:
            over = self.catalogue.bytes - self._max_bytes
        if over > 0:
            self._remove_abandoned()
            self._evict()
        if emptied := self._emptied():
            self._move_out_of(emptied)
        self.remove_empty()
        with self.lock:
            live = self.catalogue.live(self.writer)
            self.catalogue.compact()
        if self.manifest.count > 4 * len(live) + 1024:
            self.manifest.replace(live)
            self.folder.sync()

    def remove_empty(self) -> None:
        with self.lock:
            live = {*self.catalogue.segments(self.writer), self.segments.current}
        for number in list(self.folder.segments(self.writer)):
            if number not in live:
                self.folder.segment(self.writer, number).unlink()
                with self.lock:
                    self.reader.forget(self.writer, number)

    def _remove_abandoned(self) -> None:
        """Files of processes that have ended, if another one took no more care of them."""
        for writer in self.folder.writers():
            lock = None if writer == self.writer else self.folder.lock(writer)
            if lock is None:
                continue
            with self.lock:
                self.catalogue.forget_writer(writer)
                if writer in self._followed:
                    self._followed.pop(writer).close()
                for number in self.folder.segments(writer):
                    self.reader.forget(writer, number)
            self.folder.remove(writer)
            lock.release()

    def _appended(self, offered: Offered) -> Rows:
        block = offered.block
        head = encoded_head(block, offered.state)
        place = self.segments.append(head, offered.state)
        assert place.length == record_bytes(block, offered.state.nbytes)
        return _live_row(block.id, block.parent, place)

    def _evict(self) -> None:
        with self.lock:
            size = self.catalogue.bytes - int(KEPT_SHARE * self._max_bytes)
            gone = self.catalogue.oldest(self.writer, size) if size > 0 else []
            for id in gone:
                self.catalogue.forget(id)
            self.evicted += len(gone)
        self.remove(gone)

    def _emptied(self) -> list[int]:
        """Segments of which less than half is live, and that are not empty; and the emptiest of
        the others while what is dead in all of them takes more than a share of the budget.
        """
        with self.lock:
            live = self.catalogue.segments(self.writer)
        live.pop(self.segments.current, None)
        sizes = {number: self.folder.segment(self.writer, number).stat().st_size for number in live}
        dead = sum(sizes.values()) - sum(live.values())
        found = []
        for number in sorted(live, key=lambda number: live[number] / sizes[number]):
            if live[number] >= HALF * sizes[number] and dead <= DEAD_SHARE * self._max_bytes:
                break
            dead -= sizes[number] - live[number]
            found.append(number)
        return found

    def _move_out_of(self, segments: Sequence[int]) -> None:
        """Write what is live in them anew; the old records stay until the new rows are there."""
        with self.lock:
            live = self.catalogue.rows_in(self.writer, segments)
        rows = [moved for row in live for moved in self._moved(row)]
        if not rows:
            return
        self.segments.sync()
        moved = np.concatenate(rows)
        self.manifest.append(moved)
        with self.lock:
            self.catalogue.moved(self.writer, moved)

    def _moved(self, row: np.void) -> Iterator[Rows]:
        """The row of a record written anew; none for one that cannot be read."""
        id, parent = row["id"].tobytes(), row["parent"].tobytes()
        try:
            with self.lock:
                record = self.reader.read(_place(self.writer, row))
        except OSError:
            with self.lock:
                self.failures += 1
                self.catalogue.forget(id)
            return
        yield _live_row(id, parent, self.segments.append(record))


def _gone_rows(ids: Iterable[bytes]) -> Rows:
    nobody = bytes(16)
    return np.concatenate([row_of(id, nobody, Kind.GONE) for id in ids])


def _live_row(id: bytes, parent: bytes, place: Place) -> Rows:
    return row_of(id, parent, Kind.LIVE, place.segment, place.offset, place.length)


def _place(writer: int, row: np.void) -> Place:
    return Place(writer, int(row["segment"]), int(row["offset"]), int(row["length"]))
