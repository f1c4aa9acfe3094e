"""The disk tier: blocks are offered, written in the background, and found after a restart.

    offer ──► queue (bounded) ──► thread: records, sync, rows, sync ──► found by known and load
                                    └──► the expired go, and over budget the oldest

Several processes may have one folder: each writes files of its own and follows the others' rows.
A folder that fails is left alone for a while; what is asked meanwhile is not there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import ConfigError
from thinkonce.kv.disk.catalogue import Place
from thinkonce.kv.disk.holdings import Holdings
from thinkonce.kv.disk.listing import listed
from thinkonce.kv.disk.names import Names, Word
from thinkonce.kv.disk.record import Form, Plain
from thinkonce.kv.disk.sayings import Gone, Offered
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.branches import Listed
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.purges import PurgeRule
from thinkonce.kv.prefix.stay import Stay, stay_on
from thinkonce.kv.prefix.terms import USUAL, Terms
from thinkonce.kv.prefix.tier import Purged, TierStats

__all__ = ("DiskTier",)

_logger = logging.getLogger("thinkonce.kv")

QUEUE_BYTES = 256 * 1024 * 1024  # of state that waits to be written
TRY_AGAIN = 30.0  # seconds after the system refused
SWEEP = 60.0  # seconds after which what has expired goes, and longer lives are written down
PURGE_PATIENCE = 10.0  # seconds that a purge waits for its bytes to be erased


class DiskTier:
    """See `prefix.tier.BlockTier`. Raises ConfigError, at the start alone, for a folder that
    cannot be used.

    `secret`: of the folder, under which owners are marked in the rows.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: bytes,
        max_bytes: int,
        *,
        secret: bytes = b"",
        form: Form | None = None,
        clock: Clock = SYSTEM,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._clock, self._max_bytes, self._queue_bytes = clock, max_bytes, queue_bytes
        self._names, self._form = Names(secret), form or Plain()
        try:
            self._files = Holdings(
                folder, fingerprint.hex(), max_bytes, clock, self._names, self._form
            )
        except OSError as error:
            accepts = f"a folder that this user may write ({error.strerror or error})"
            raise ConfigError("[kv] store", str(folder), accepts) from None
        self._queue: dict[bytes, Offered] = {}
        self._writing: dict[bytes, Offered] = {}
        self._gone: dict[bytes, Gone] = {}  # to be said in the rows
        self._unsaid: dict[bytes, Gone] = {}  # of these what the system refused
        self._dropped = self._damaged = self._failures = self._purged = 0
        self._broken_until = -TRY_AGAIN
        self._closing = self._hurried = self._busy = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="thinkonce-kv-disk", daemon=True)
        self._thread.start()

    # -- what requests ask -------------------------------------------------------------------

    def known(self, blocks: Sequence[Block]) -> int:
        names = [self._form.name(block.id) for block in blocks]
        with self._files.lock:
            found = self._known(names)
            if found < len(names):
                self._files.follow()
                found = self._known(names)
            ordered, self._files.ordered = self._files.ordered, {}
        if ordered:
            with self._wake:
                self._gone.update(ordered)
                self._wake.notify_all()
        return found

    def following(self, parent: bytes, most: int) -> list[Block]:
        with self._files.lock:
            names = self._files.catalogue.following(self._form.name(parent), most)
            found = [self._files.beginning(name) for name in names]
        each = map(self._form.block_in, filter(None, found))
        return [block for block in each if block is not None]

    def listed(self) -> list[Listed]:
        """All blocks that are there, by the names that they have in files: see `name`."""
        with self._files.lock:
            self._files.follow()
            return list(listed(self._files.catalogue, self._clock))

    def name(self, id: bytes) -> bytes:
        """What a block of that id is called here."""
        return self._form.name(id)

    def block(self, name: bytes) -> Block | None:
        """The block of that name, read from its file; None where that cannot be."""
        with self._files.lock:
            beginning = self._files.beginning(name)
        return None if beginning is None else self._form.block_in(beginning)

    def load(self, block: Block) -> memoryview | None:
        name = self._form.name(block.id)
        with self._files.lock:
            if name not in self._files.catalogue:
                return None
            place = self._files.catalogue.place(name)
            assert place is not None
            try:
                place, record = self._files.read(name, place)
            except OSError as error:
                self._failures += 1
                self._files.catalogue.forget(name)
                _logger.info("attention state is read again, a file was not: %s", error)
                return None
        state = self._form.state_in(record, block)
        if state is None:
            self._disown(name, place)
        return state

    def is_marked(self, block: Block, owner: Owner) -> bool:
        name = self._form.name(block.id)
        with self._files.lock:
            if name not in self._files.catalogue:
                return False
            return self._names.is_marked(self._files.catalogue.words_of(name), owner)

    def offer(
        self, block: Block, state: memoryview, owner: Owner = NOBODY, terms: Terms = USUAL
    ) -> bool:
        size, name, stay = state.nbytes, self._form.name(block.id), self._stay(terms)
        with self._wake:
            if self._closing or self._is_queued(name, stay, owner):
                return self._is_queued(name, stay, owner)
            more: tuple[Word, ...] = ()
            with self._files.lock:
                if name in self._files.catalogue:
                    lacking = self._names.unmarked(owner, self._files.catalogue.words_of(name))
                    if lacking is None:
                        self._files.renew(name, stay)
                        return True
                    # Written anew, with the marks of both.
                    more, stay = lacking, stay.or_longer(self._files.catalogue.stay(name))
                    self._gone.update(self._files.forget([name]))
            full = self._queued_bytes + size > self._queue_bytes
            if full or size > self._max_bytes or self._is_broken:
                self._dropped += 1
                return False
            if (earlier := self._writing.get(name)) is not None:
                owner = owner.with_documents(earlier.owner.documents)
            self._queue[name] = Offered(block, state, owner, stay, more)
            self._wake.notify_all()
            return True

    def used(self, blocks: Sequence[Block], terms: Terms = USUAL) -> None:
        names, stay = [self._form.name(block.id) for block in blocks], self._stay(terms)
        with self._files.lock:
            self._files.catalogue.use(names)
            for name in names:
                self._files.renew(name, stay)

    def forget(self, ids: Iterable[bytes] | None = None) -> int:
        with self._wake:
            with self._files.lock:
                self._files.follow()
                asked = None if ids is None else [self._form.name(id) for id in ids]
                named = self._files.catalogue.ids() if asked is None else asked
                there = sum(name in self._files.catalogue for name in set(named))
                gone = self._files.forget(named, purged=True)
            waited = self._withdraw(self._queue if asked is None else asked)
            # What is being written at this moment goes as soon as it is.
            late = self._writing if asked is None else asked
            self._gone.update({name: Gone(purged=True) for name in late})
            self._gone.update(gone)
            self._wake.notify_all()
        return there + waited

    def purge(self, rule: PurgeRule) -> Purged:
        with self._wake:
            with self._files.lock:
                self._files.follow()
                catalogue, size = self._files.catalogue, 0
                found = catalogue.owned(lambda o: self._names.falls(rule, catalogue.words, o))
                size = catalogue.size(found)
                gone = self._files.forget(found, purged=True)
            waited = self._withdraw([n for n, o in self._queue.items() if rule.holds(o.owner)])
            late = [n for n, each in self._writing.items() if rule.holds(each.owner)]
            self._gone.update({name: Gone(purged=True) for name in late})
            self._gone.update(gone)
            self._purged += len(gone) + waited
            self._wake.notify_all()
        self.flush(PURGE_PATIENCE)
        places = [was.place for was in gone.values() if was.place is not None]
        return Purged(len(gone) + waited, size, self._files.reader.left(places))

    def resize(self, max_bytes: int) -> None:
        """Change the budget. What is beyond it is pushed out at once, in the background."""
        with self._wake:
            self._max_bytes = max_bytes
            with self._files.lock:
                self._files.max_bytes = self._files.catalogue.max_bytes = max_bytes
            self._hurried = True
            self._wake.notify_all()

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
                expired=self._files.expired,
                purged=self._purged,
            )

    def flush(self, timeout: float) -> bool:
        with self._wake:
            self._hurried |= bool(self._files.renewed)
            self._wake.notify_all()
            return self._wake.wait_for(lambda: not (self._has_work or self._busy), timeout)

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        with self._files.lock:
            self._files.close()
            self._files.catalogue.clear()

    # -- finding, under the lock ---------------------------------------------------------------

    def _known(self, names: Sequence[bytes]) -> int:
        for count, name in enumerate(names):
            if name not in self._files.catalogue:
                return count
        return len(names)

    def _disown(self, name: bytes, place: Place) -> None:
        """What is in the file is not what was written: damaged, unless its owner gave it up."""
        with self._files.lock:
            self._files.follow()
            if self._files.catalogue.place(name) != place:
                return
            self._damaged += 1
            gone = self._files.forget([name])
        if place.writer == self._files.writer:
            with self._wake:
                self._gone.update(gone)
                self._wake.notify_all()
        _logger.warning("attention state on disk is damaged and is read again")

    def _stay(self, terms: Terms) -> Stay:
        return stay_on(terms, self._clock.monotonic())

    # -- the queue, under `_wake` ----------------------------------------------------------------

    def _is_queued(self, name: bytes, stay: Stay, owner: Owner) -> bool:
        """Whether it will be written; then on these terms at least, and with this owner's marks."""
        each = self._queue.get(name)
        if each is not None:
            each.owner = each.owner.with_documents(owner.documents)
        elif (each := self._writing.get(name)) is None or owner.with_documents(
            each.owner.documents
        ).documents != each.owner.documents:
            return False
        each.stay = each.stay.or_longer(stay)
        return True

    def _withdraw(self, names: Iterable[bytes]) -> int:
        """Of those that wait these do not any more; how many there were."""
        return sum(self._queue.pop(name, None) is not None for name in list(names))

    @property
    def _queued_bytes(self) -> int:
        waiting = (*self._queue.values(), *self._writing.values())
        return sum(each.state.nbytes for each in waiting)

    @property
    def _has_work(self) -> bool:
        return bool(self._queue or self._gone or self._hurried)

    @property
    def _is_broken(self) -> bool:
        return self._clock.monotonic() < self._broken_until

    # -- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._has_work or self._closing, SWEEP)
                is_last = self._closing and not (self._queue or self._gone)
                self._writing, self._queue = self._queue, {}
                gone, self._gone, self._unsaid = {**self._unsaid, **self._gone}, {}, {}
                self._hurried, self._busy = False, True
            if self._writing or gone or self._files.renewed or not is_last:
                self._do(list(self._writing.values()), gone)
            with self._wake:
                self._writing, self._busy = {}, False
                self._hurried |= self._files.is_stale and not self._is_broken
                self._wake.notify_all()
            if is_last:
                return

    def _do(self, offered: Sequence[Offered], gone: dict[bytes, Gone]) -> None:
        self._unsaid = gone
        try:
            self._files.remove(gone)
            self._unsaid = {}
            if offered:
                self._files.write(offered)
            self._files.renew_rows()
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
