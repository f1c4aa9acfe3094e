"""The disk tier: blocks are offered, written in the background, and found after a restart.

    offer ──► queue (bounded) ──► thread: records, sync, rows, sync ──► found by known and load
                                    └──► over budget: rows that say GONE, half-empty segments
                                         written anew, empty ones removed

Several processes may have one folder: each writes files of its own and follows the others' rows.
A folder that fails is left alone for a while; what is asked meanwhile is not there.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Catalogue, Place
from thinkonce.kv.disk.folder import Folder, made_folder
from thinkonce.kv.disk.manifest import Followed, Manifest
from thinkonce.kv.disk.record import encoded_head, record_bytes, state_in
from thinkonce.kv.disk.rows import Kind, Rows, row_of
from thinkonce.kv.disk.segment import SegmentReader, SegmentWriter
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.tier import TierStats

__all__ = ("DiskTier",)

_logger = logging.getLogger("thinkonce.kv")

QUEUE_BYTES = 256 * 1024 * 1024  # of state that waits to be written
TRY_AGAIN = 30.0  # seconds after the system refused
LOOK_AGAIN = 5.0  # seconds between two looks for other processes' files
KEPT_SHARE = 0.95  # of the budget, once it was exceeded: not each write evicts
DEAD_SHARE = 0.1  # of the budget, beyond what moving records costs
HALF = 0.5  # live share of a segment below which it is written anew


class _Offered(NamedTuple):
    block: Block
    state: memoryview


class DiskTier:
    """See `prefix.tier.BlockTier`. Raises ConfigError, at the start alone, for a folder that
    cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: bytes,
        max_bytes: int,
        *,
        clock: Clock = SYSTEM,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._clock, self._max_bytes, self._queue_bytes = clock, max_bytes, queue_bytes
        self._looked_at: float = -LOOK_AGAIN
        self._ordered: list[bytes] = []  # said to be gone by others, of blocks in our files
        self._root, self._model = folder, fingerprint.hex()
        try:
            self._open()
        except OSError as error:
            accepts = f"a folder that this user may write ({error.strerror or error})"
            raise ConfigError("[kv] store", str(folder), accepts) from None
        self._queue: deque[_Offered] = deque()
        self._queued: dict[bytes, int] = {}
        self._gone: list[bytes] = []  # damaged, to be said in the rows
        self._written = self._evicted = self._dropped = self._damaged = self._failures = 0
        self._broken_until = -TRY_AGAIN
        self._closing = False
        self._lock = threading.Lock()  # of catalogue, reader and counts
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="thinkonce-kv-disk", daemon=True)
        self._thread.start()

    # -- what requests ask -------------------------------------------------------------------

    def known(self, blocks: Sequence[Block]) -> int:
        with self._lock:
            found = self._known(blocks)
            if found < len(blocks):
                self._follow()
                found = self._known(blocks)
            ordered, self._ordered = self._ordered, []
        if ordered:
            with self._wake:
                self._gone.extend(ordered)
                self._wake.notify_all()
        return found

    def load(self, block: Block) -> bytearray | None:
        with self._lock:
            place = self._catalogue.place(block.id)
            if place is None:
                return None
            try:
                place, record = self._read(block.id, place)
            except OSError as error:
                self._failures += 1
                self._catalogue.forget(block.id)
                _logger.info("attention state is read again, a file was not: %s", error)
                return None
        state = state_in(record, block)
        if state is None:
            self._disown(block, place)
        return state

    def offer(self, block: Block, state: memoryview) -> bool:
        size = state.nbytes
        with self._wake:
            if self._closing or block.id in self._queued:
                return block.id in self._queued
            full = sum(self._queued.values()) + size > self._queue_bytes
            if full or size > self._max_bytes or self._is_broken:
                self._dropped += 1
                return False
            with self._lock:
                if block.id in self._catalogue:
                    return True
            self._queue.append(_Offered(block, state))
            self._queued[block.id] = size
            self._wake.notify_all()
            return True

    def used(self, blocks: Sequence[Block]) -> None:
        with self._lock:
            self._catalogue.use(block.id for block in blocks)

    def forget(self, ids: Iterable[bytes] | None = None) -> int:
        with self._wake:
            with self._lock:
                self._follow()
                named = set(self._catalogue.ids() if ids is None else ids)
                gone = [id for id in named if id in self._catalogue]
                for id in gone:
                    self._catalogue.forget(id)
            kept = [each for each in self._queue if ids is not None and each.block.id not in named]
            waited = len(self._queue) - len(kept)
            for each in self._queue:
                if each not in kept:
                    del self._queued[each.block.id]
            self._queue = deque(kept)
            # What is being written at this moment goes as soon as it is.
            self._gone.extend({*gone, *(self._queued if ids is None else named)})
            self._wake.notify_all()
        return len(gone) + waited

    def stats(self) -> TierStats:
        with self._lock:
            return TierStats(
                blocks=len(self._catalogue),
                bytes=self._catalogue.bytes,
                max_bytes=self._max_bytes,
                written=self._written,
                evicted=self._evicted,
                dropped=self._dropped,
                damaged=self._damaged,
                failures=self._failures,
            )

    def flush(self, timeout: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: not (self._queued or self._gone), timeout)

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        with self._lock:
            self._let_go()
            self._catalogue = Catalogue()

    # -- finding, under the lock ---------------------------------------------------------------

    def _known(self, blocks: Sequence[Block]) -> int:
        for count, block in enumerate(blocks):
            if block.id not in self._catalogue:
                return count
        return len(blocks)

    def _read(self, id: bytes, place: Place) -> tuple[Place, bytearray]:
        """And where it was found: another process may have moved it. Raises OSError."""
        try:
            return place, self._reader.read(place)
        except FileNotFoundError:
            self._follow()
            moved = self._catalogue.place(id)
            if moved is None or moved == place:
                raise
            return moved, self._reader.read(moved)

    def _follow(self) -> None:
        """Take in what other processes have written since."""
        with suppress(OSError):
            if self._looked_at + LOOK_AGAIN <= self._clock.monotonic():
                self._looked_at = self._clock.monotonic()
                for writer in self._folder.writers():
                    if writer != self._writer and writer not in self._followed:
                        self._followed[writer] = Followed(self._folder.rows(writer))
        for writer, followed in list(self._followed.items()):
            is_first = not followed.end
            try:
                is_void, rows = followed.news()
            except OSError:
                is_void, rows = True, None
                self._followed.pop(writer).close()
            if is_void:
                self._catalogue.forget_writer(writer)
            if rows is not None and len(rows):
                self._catalogue.add(writer, rows)
                if not is_first:
                    self._obey(rows)

    def _obey(self, rows: Rows) -> None:
        """What another process says is gone is so here too. Of what it said before we looked
        first, those who had the blocks have taken care.
        """
        for id in rows["id"][rows["kind"] == Kind.GONE].tolist():
            place = self._catalogue.place(id)
            if place is not None:
                self._catalogue.forget(id)
                if place.writer == self._writer:
                    self._ordered.append(id)

    def _disown(self, block: Block, place: Place) -> None:
        """What is in the file is not what was written."""
        with self._lock:
            self._damaged += 1
            self._catalogue.forget(block.id)
        if place.writer == self._writer:
            with self._wake:
                self._gone.append(block.id)
                self._wake.notify_all()
        _logger.warning("attention state on disk is damaged and is read again")

    @property
    def _is_broken(self) -> bool:
        return self._clock.monotonic() < self._broken_until

    # -- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._gone or self._closing)
                offered, gone = list(self._queue), list(self._gone)
                self._queue.clear()
                self._gone.clear()
            if not offered and not gone:
                return
            self._do(offered, gone)
            with self._wake:
                for each in offered:
                    self._queued.pop(each.block.id, None)
                self._wake.notify_all()

    def _do(self, offered: Sequence[_Offered], gone: Sequence[bytes]) -> None:
        try:
            self._remove(gone)
            if gone:
                self._remove_left(set(gone))
            if offered:
                self._write(offered)
            self._keep_to_budget()
        except Exception as error:  # whatever it is: without this thread the queue stays full
            self._failed(error, len(offered))

    def _failed(self, error: Exception, offered: int) -> None:
        self._segments.give_up()
        with self._lock:
            self._failures += 1
            self._dropped += offered
        self._broken_until = self._clock.monotonic() + TRY_AGAIN
        _logger.warning("attention state is not written for %.0f s: %s", TRY_AGAIN, error)
        with suppress(OSError):
            self._remove_empty()  # a full disk gets back what was written of these

    def _write(self, offered: Sequence[_Offered]) -> None:
        if not self._manifest.is_there():
            self._open_again()
        rows = np.concatenate([self._appended(each) for each in offered])
        self._segments.sync()
        self._manifest.append(rows)
        with self._lock:
            self._catalogue.add(self._writer, rows)
            self._written += len(rows)

    def _remove(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._manifest.append(_gone_rows(ids))
            with self._lock:
                for id in ids:
                    self._catalogue.forget(id)

    def _remove_left(self, ids: set[bytes]) -> None:
        """Say it in the files of processes that have ended too."""
        for writer in self._folder.writers():
            lock = None if writer == self._writer else self._folder.lock(writer)
            if lock is None:
                continue
            try:
                manifest = Manifest(self._folder.rows(writer))
                found = ids.intersection(manifest.rows["id"].tolist())
                if found:
                    manifest.append(_gone_rows(found))
                manifest.close()
            finally:
                lock.release()

    def _appended(self, offered: _Offered) -> Rows:
        block = offered.block
        head = encoded_head(block, offered.state)
        place = self._segments.append(head, offered.state)
        assert place.length == record_bytes(block, offered.state.nbytes)
        return _live_row(block.id, block.parent, place)

    def _keep_to_budget(self) -> None:
        with self._lock:
            over = self._catalogue.bytes - self._max_bytes
        if over > 0:
            self._remove_abandoned()
            self._evict()
        if emptied := self._emptied():
            self._move_out_of(emptied)
        self._remove_empty()
        with self._lock:
            live = self._catalogue.live(self._writer)
            self._catalogue.compact()
        if self._manifest.count > 4 * len(live) + 1024:
            self._manifest.replace(live)
            self._folder.sync()

    def _remove_abandoned(self) -> None:
        """Files of processes that have ended, if another one took no more care of them."""
        for writer in self._folder.writers():
            lock = None if writer == self._writer else self._folder.lock(writer)
            if lock is None:
                continue
            with self._lock:
                self._catalogue.forget_writer(writer)
                if writer in self._followed:
                    self._followed.pop(writer).close()
                for number in self._folder.segments(writer):
                    self._reader.forget(writer, number)
            self._folder.remove(writer)
            lock.release()

    def _evict(self) -> None:
        with self._lock:
            size = self._catalogue.bytes - int(KEPT_SHARE * self._max_bytes)
            gone = self._catalogue.oldest(self._writer, size) if size > 0 else []
            for id in gone:
                self._catalogue.forget(id)
            self._evicted += len(gone)
        self._remove(gone)

    def _emptied(self) -> list[int]:
        """Segments of which less than half is live, and that are not empty; and the emptiest of
        the others while what is dead in all of them takes more than a share of the budget.
        """
        with self._lock:
            live = self._catalogue.segments(self._writer)
        live.pop(self._segments.current, None)
        sizes = {
            number: self._folder.segment(self._writer, number).stat().st_size for number in live
        }
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
        with self._lock:
            live = self._catalogue.rows_in(self._writer, segments)
        rows = [moved for row in live for moved in self._moved(row)]
        if not rows:
            return
        self._segments.sync()
        moved = np.concatenate(rows)
        self._manifest.append(moved)
        with self._lock:
            self._catalogue.moved(self._writer, moved)

    def _moved(self, row: np.void) -> Iterator[Rows]:
        """The row of a record written anew; none for one that cannot be read."""
        id, parent = row["id"].tobytes(), row["parent"].tobytes()
        try:
            with self._lock:
                record = self._reader.read(_place(self._writer, row))
        except OSError:
            with self._lock:
                self._failures += 1
                self._catalogue.forget(id)
            return
        yield _live_row(id, parent, self._segments.append(record))

    def _remove_empty(self) -> None:
        with self._lock:
            live = {*self._catalogue.segments(self._writer), self._segments.current}
        for number in list(self._folder.segments(self._writer)):
            if number not in live:
                self._folder.segment(self._writer, number).unlink()
                with self._lock:
                    self._reader.forget(self._writer, number)

    def _open(self) -> None:
        """Take in what was left behind; segments are begun anew, behind all that are known."""
        made_folder(self._root, "[kv] store")
        self._folder = Folder(made_folder(self._root / self._model, "[kv] store"))
        self._writer, self._lock_file = self._folder.lock_one()
        try:
            self._manifest = Manifest(self._folder.rows(self._writer))
        except BaseException:
            self._lock_file.release()
            raise
        self._catalogue, self._reader = Catalogue(), SegmentReader(self._folder)
        self._followed: dict[int, Followed] = {}
        self._looked_at = -LOOK_AGAIN
        rows = self._manifest.rows
        self._catalogue.add(self._writer, rows)
        numbers = [*self._folder.segments(self._writer), *rows["segment"].tolist(), 0]
        self._segments = SegmentWriter(self._folder, self._writer, int(max(numbers)) + 1)

    def _open_again(self) -> None:
        """The files went away under us: begin with what is there now, which may be nothing."""
        _logger.warning("the folder of attention state went away, and is made anew")
        with self._lock:
            self._let_go()
            self._open()

    def _let_go(self) -> None:
        self._segments.give_up()
        self._reader.close()
        for followed in self._followed.values():
            followed.close()
        self._manifest.close()
        self._lock_file.release()


def _gone_rows(ids: Iterable[bytes]) -> Rows:
    nobody = bytes(16)
    return np.concatenate([row_of(id, nobody, Kind.GONE) for id in ids])


def _live_row(id: bytes, parent: bytes, place: Place) -> Rows:
    return row_of(id, parent, Kind.LIVE, place.segment, place.offset, place.length)


def _place(writer: int, row: np.void) -> Place:
    return Place(writer, int(row["segment"]), int(row["offset"]), int(row["length"]))
