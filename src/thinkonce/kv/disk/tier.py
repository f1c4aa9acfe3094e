"""The disk tier: blocks are offered, written in the background, and found after a restart.

    offer ──► queue (bounded) ──► thread: records, sync, rows, sync ──► found by known and load
                                    └──► over budget: the oldest go

Several processes may have one folder: each writes files of its own and follows the others' rows.
A folder that fails is left alone for a while; what is asked meanwhile is not there.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Place
from thinkonce.kv.disk.holdings import Holdings, Offered
from thinkonce.kv.disk.record import block_in, state_in
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.tier import TierStats

__all__ = ("DiskTier",)

_logger = logging.getLogger("thinkonce.kv")

QUEUE_BYTES = 256 * 1024 * 1024  # of state that waits to be written
TRY_AGAIN = 30.0  # seconds after the system refused


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
        try:
            self._files = Holdings(folder, fingerprint.hex(), max_bytes, clock)
        except OSError as error:
            accepts = f"a folder that this user may write ({error.strerror or error})"
            raise ConfigError("[kv] store", str(folder), accepts) from None
        self._queue: deque[Offered] = deque()
        self._queued: dict[bytes, int] = {}
        self._gone: list[bytes] = []  # damaged, to be said in the rows
        self._dropped = self._damaged = self._failures = 0
        self._broken_until = -TRY_AGAIN
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="thinkonce-kv-disk", daemon=True)
        self._thread.start()

    # -- what requests ask -------------------------------------------------------------------

    def known(self, blocks: Sequence[Block]) -> int:
        with self._files.lock:
            found = self._known(blocks)
            if found < len(blocks):
                self._files.follow()
                found = self._known(blocks)
            ordered, self._files.ordered = self._files.ordered, []
        if ordered:
            with self._wake:
                self._gone.extend(ordered)
                self._wake.notify_all()
        return found

    def following(self, parent: bytes, most: int) -> list[Block]:
        with self._files.lock:
            ids = self._files.catalogue.following(parent, most)
            found = [self._files.beginning(id) for id in ids]
        return [block for block in map(block_in, filter(None, found)) if block is not None]

    def load(self, block: Block) -> memoryview | None:
        with self._files.lock:
            place = self._files.catalogue.place(block.id)
            if place is None:
                return None
            try:
                place, record = self._files.read(block.id, place)
            except OSError as error:
                self._failures += 1
                self._files.catalogue.forget(block.id)
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
            with self._files.lock:
                if block.id in self._files.catalogue:
                    return True
            self._queue.append(Offered(block, state))
            self._queued[block.id] = size
            self._wake.notify_all()
            return True

    def used(self, blocks: Sequence[Block]) -> None:
        with self._files.lock:
            self._files.catalogue.use(block.id for block in blocks)

    def forget(self, ids: Iterable[bytes] | None = None) -> int:
        with self._wake:
            with self._files.lock:
                self._files.follow()
                named = set(self._files.catalogue.ids() if ids is None else ids)
                gone = [id for id in named if id in self._files.catalogue]
                for id in gone:
                    self._files.catalogue.forget(id)
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
        with self._files.lock:
            return TierStats(
                blocks=len(self._files.catalogue),
                bytes=self._files.catalogue.bytes,
                max_bytes=self._max_bytes,
                written=self._files.written,
                evicted=self._files.evicted,
                dropped=self._dropped,
                damaged=self._damaged,
                failures=self._failures + self._files.failures,
            )

    def flush(self, timeout: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: not (self._queued or self._gone), timeout)

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        with self._files.lock:
            self._files.close()
            self._files.catalogue.clear()

    # -- finding, under the lock ---------------------------------------------------------------

    def _known(self, blocks: Sequence[Block]) -> int:
        for count, block in enumerate(blocks):
            if block.id not in self._files.catalogue:
                return count
        return len(blocks)

    def _disown(self, block: Block, place: Place) -> None:
        """What is in the file is not what was written."""
        with self._files.lock:
            self._damaged += 1
            self._files.catalogue.forget(block.id)
        if place.writer == self._files.writer:
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

    def _do(self, offered: Sequence[Offered], gone: Sequence[bytes]) -> None:
        try:
            self._files.remove(gone)
            if gone:
                self._files.remove_left(set(gone))
            if offered:
                self._files.write(offered)
            self._files.keep_to_budget()
        except Exception as error:  # whatever it is: without this thread the queue stays full
            self._failed(error, len(offered))

    def _failed(self, error: Exception, offered: int) -> None:
        self._files.segments.give_up()
        with self._files.lock:
            self._failures += 1
            self._dropped += offered
        self._broken_until = self._clock.monotonic() + TRY_AGAIN
        _logger.warning("attention state is not written for %.0f s: %s", TRY_AGAIN, error)
        with suppress(OSError):
            self._files.remove_empty()  # a full disk gets back what was written of these
