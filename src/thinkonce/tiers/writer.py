"""Writes that do not make an answer wait: a bounded queue, emptied by one thread in batches.

    put -> queue (dict, read by gets) -> at most 100 rows or 50 ms -> one transaction -> gone
             full, or not committed within a second: dropped and counted

Every transaction first learns which purges were made, and leaves out entries whose request began
before one that concerns them. It also removes what is past its life or beyond the byte bound, a
bounded number of rows at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import apsw
import msgspec

from thinkonce.circuit import Circuit
from thinkonce.clock import Clock
from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.outcome import Reason
from thinkonce.selector import Purge
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.database import LONGEST_TURN, Database
from thinkonce.tiers.known import Known
from thinkonce.tiers.purges import PurgeWindow, concerned
from thinkonce.tiers.resealing import Resealing
from thinkonce.tiers.rows import Rows
from thinkonce.tiers.sqlite_purges import caught_up
from thinkonce.tiers.trimming import give_back_pages, trim

__all__ = ("COMMIT_WITHIN", "WriteBehind")

log = logging.getLogger("thinkonce.store")

BATCH_ROWS = 100
BATCH_SECONDS = 0.05  # a transaction itself costs what several rows do
COMMIT_WITHIN = 1.0  # seconds after put; what could not be written by then is dropped
MOST_ROWS = 10_000
MOST_BYTES = 64 * 2**20
MOST_NOTES = 10_000  # digests whose uses wait to be written
NOTES_A_BATCH = 200
LONGEST_WAIT = 0.5  # seconds for another process's write, at a time
PAUSE_AFTER_FAILURE = 0.05
IDLE_SECONDS = 30.0  # between looks for entries past their life while nothing is written

# The row that a write was to replace: when the write is purged, the older answer must not return.
REPLACED = "SELECT a.id FROM answers a JOIN entries e USING (id) WHERE digest = ? AND epoch <= ?"


class Queued(msgspec.Struct, gc=False):
    """`number` orders writes for `flush`; `since` is on the machine's monotonic clock."""

    entry: Entry
    value: bytes
    number: int
    since: float


class WriteBehind:
    """Thread-safe. `queue` and `doomed` may be read without a lock."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        max_bytes: int,
        commit_within: float,
        on_start: Callable[[], None],
        aliases: Aliases,
        resealing: Resealing | None = None,
    ) -> None:
        self.queue: dict[bytes, Queued] = {}
        self.doomed: dict[bytes, tuple[str, tuple[Any, ...]]] = {}  # digest -> ids to remove
        self.uses: dict[bytes, int] = {}
        self.dropped = self.errors = 0
        self.removed: Counter[str] = Counter()
        self.max_bytes, self.commit_within = max_bytes, commit_within
        self.circuit = Circuit(f"writing to {database.path.name}", clock)
        self._database, self._clock = database, clock
        self._on_start = on_start  # told when the thread begins, once in each process
        self._aliases, self._resealing = aliases, resealing
        self._queued_bytes = self._number = 0
        self._window = PurgeWindow()
        self.known = Known(database.host)
        self._wake = threading.Condition()
        self._finishing = threading.Lock()
        self._stopping = False
        self._unfinished = False  # the last transaction could not remove all there is to remove
        self._thread: threading.Thread | None = None

    # -- what others ask for -----------------------------------------------------------

    def put(self, digest: bytes, entry: Entry, value: bytes) -> None:
        """Queue a write, or drop and count it. Raises TierError after `stop`."""
        if not self.circuit.allows():
            self.dropped += 1
            return
        with self._wake:
            if self._stopping:
                raise TierError(self._database.name, "writing to a store that was closed")
            old = self.queue.get(digest)
            size = self._queued_bytes + len(value) - (len(old.value) if old else 0)
            full = size > MOST_BYTES or (old is None and len(self.queue) >= MOST_ROWS)
            if full or len(value) > self.max_bytes // 8:
                self.dropped += 1
                return
            self._number += 1
            self._queued_bytes = size
            self.queue[digest] = Queued(entry, value, self._number, time.monotonic())
            self.known.add(digest)
            self.doomed.pop(digest, None)
            self._woken(len(self.queue) in (1, BATCH_ROWS))

    def doom(self, digest: bytes, chosen: str, values: tuple[Any, ...]) -> None:
        """Remove the row soon, if the query `chosen` still gives its id; hide it until then."""
        with self._wake:
            if len(self.doomed) < MOST_NOTES and not self._stopping:
                self.doomed[digest] = (chosen, values)
                self._woken(True)

    def note_use(self, digest: bytes) -> None:
        """Remember a read for the score. Without a lock: a lost note does no harm."""
        uses = self.uses
        if digest in uses or len(uses) < MOST_NOTES:
            uses[digest] = uses.get(digest, 0) + 1

    def take_back(self, digest: bytes) -> Queued | None:
        """Remove a write from the queue. Only while holding the database's write lock."""
        with self._wake:
            queued = self.queue.pop(digest, None)
            if queued is not None:
                self._queued_bytes -= len(queued.value)
            return queued

    def forget(self, database: apsw.Connection, purge: Purge) -> int:
        """Take back what `purge` concerns; returns how many.

        Rows that queued writes replace go too where the purge concerns either of the two: they
        count for nothing, and must not return when their replacement is taken back.
        """
        with self._wake:
            queued = list(self.queue.items())
        rows, count = Rows(database, self._aliases), 0
        for digest, item in queued:
            if purge.concerns(item.entry):
                self.take_back(digest)
                rows.remove(REPLACED, (digest, item.entry.epoch))
                count += 1
            else:
                rows.purge_one(purge, digest)
        return count

    def flush(self, timeout: float) -> bool:
        """Carry out what is queued now; False if that took too long or a write was dropped."""
        give_up_at = time.monotonic() + timeout
        last, dropped = self._number, self.dropped
        while self._queued_until(last):
            left = give_up_at - time.monotonic()
            if left <= 0:
                return False
            if not self.commit(min(left, LONGEST_WAIT), left):
                self._pause(min(left, PAUSE_AFTER_FAILURE))
        return self.dropped == dropped

    def _queued_until(self, last: int) -> bool:
        with self._wake:
            return any(item.number <= last for item in self.queue.values())

    def tidy(self) -> None:
        """Remove everything that is past its life or beyond the byte bound."""
        while self.commit(LONGEST_WAIT) and self._unfinished:
            pass
        self._finish()

    def wake(self) -> None:
        """Look for work now."""
        with self._wake:
            self._unfinished = True
            self._woken(True)

    def stop(self) -> None:
        """End the thread; later puts raise TierError. Safe to call twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.dropped += len(self.queue)
        self.queue.clear()

    # -- one transaction ---------------------------------------------------------------

    def commit(self, patience: float, turn: float = LONGEST_TURN) -> bool:
        """Carry out one batch; False if it failed, after which overdue writes are dropped.

        `patience` and `turn` are those of `Database.writing`.
        """
        try:
            with self._database.writing(patience, turn) as database:
                with self._wake:
                    batch = dict(islice(self.queue.items(), BATCH_ROWS))
                    doomed = dict(islice(self.doomed.items(), BATCH_ROWS))
                removed = self._write(database, batch, doomed)
        except Exception as error:  # whatever it is: the thread must live, and waiters return
            self._failed(error)
            return False
        if batch or doomed or removed.total():  # a transaction of nothing proves nothing
            self.circuit.succeeded()
        self.removed.update(removed)
        self._settle(batch, doomed)
        return True

    def _write(
        self,
        database: apsw.Connection,
        batch: dict[bytes, Queued],
        doomed: dict[bytes, tuple[str, tuple[Any, ...]]],
    ) -> Counter[str]:
        rows, removed = Rows(database, self._aliases), Counter[str]()
        window = self._window = caught_up(
            self._window, lambda *query: database.execute(*query).fetchall(), self._aliases
        )
        self.known.tell(batch)
        for digest, item in batch.items():
            if concerned(item.entry, window.since(item.entry.epoch)):
                removed[Reason.PURGED] += 1
                rows.remove(REPLACED, (digest, item.entry.epoch))
            else:
                rows.put(digest, item.entry, item.value, self.max_bytes)
        # Last: what was put after it was doomed is doomed no longer.
        for chosen, values in doomed.values():
            rows.remove(chosen, values)
        for digest in list(self.uses)[:NOTES_A_BATCH]:
            rows.used(digest, self.uses.pop(digest))
        trimmed = trim(database, rows, self._clock.wall(), self.max_bytes)
        removed.update(trimmed.removed)
        if removed.total():
            rows.forget_facets(BATCH_ROWS)
        self._unfinished = trimmed.more | give_back_pages(database)
        self._unfinished |= self.known.learn(database, self._database.generation, self._queued())
        if self._resealing is not None:
            self._unfinished |= self._resealing.step(database, rows, idle=not batch)
        return removed

    def _queued(self) -> list[bytes]:
        with self._wake:
            return list(self.queue)

    def _settle(self, batch: dict[bytes, Queued], doomed: dict[bytes, Any]) -> None:
        # Only now, after the commit: a get finds an answer in the queue or in the file.
        with self._wake:
            for digest, item in batch.items():
                if self.queue.get(digest) is item:
                    del self.queue[digest]
                    self._queued_bytes -= len(item.value)
            for digest in doomed:
                self.doomed.pop(digest, None)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.circuit.failed(error)
        overdue = time.monotonic() - self.commit_within
        with self._wake:
            lost = [digest for digest, item in self.queue.items() if item.since <= overdue]
            for digest in lost:
                self._queued_bytes -= len(self.queue.pop(digest).value)
            self.dropped += len(lost)
            self.doomed.clear()
            self._unfinished = False

    # -- the thread --------------------------------------------------------------------

    def _woken(self, now: bool) -> None:
        """Make sure that somebody carries out what was queued. Under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"thinkonce-writer-{self._database.path.name}", daemon=True
            )
            self._thread.start()
            self._on_start()
        elif now:
            self._wake.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            if not self.commit(self._patience()):
                self._pause(PAUSE_AFTER_FAILURE)
            elif not self._has_work():
                self._finish()  # only here: it takes as long as the file is large

    def _finish(self) -> None:
        """Let the file be written anew where that is due; whoever tidies waits for it."""
        if self._resealing is None:
            return
        try:
            with self._finishing:
                self._resealing.finish()
        except Exception as error:  # as in `commit`
            self._failed(error)

    def _wait_for_work(self) -> bool:
        """Return when there is a batch, or nothing was written for a while; False at the end."""
        with self._wake:
            if not self._has_work():
                self._wake.wait_for(self._has_work, IDLE_SECONDS)
            if self.queue:
                self._wake.wait_for(self._has_batch, BATCH_SECONDS)
            return not self._stopping

    def _has_batch(self) -> bool:
        return self._stopping or len(self.queue) >= BATCH_ROWS

    def _has_work(self) -> bool:
        return bool(self._stopping or self.queue or self.doomed or self._unfinished)

    def _patience(self) -> float:
        """Seconds until the oldest write is overdue, within reason."""
        with self._wake:
            oldest = next(iter(self.queue.values()), None)
        if oldest is None:
            return LONGEST_WAIT
        left = oldest.since + self.commit_within - time.monotonic()
        return min(max(left, 0.01), LONGEST_WAIT)

    def _pause(self, seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, seconds)
