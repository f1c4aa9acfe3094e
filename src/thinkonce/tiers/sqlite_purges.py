"""The purge log of a store: a table that every process reads, an epoch that all have mapped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from thinkonce.clock import Clock
from thinkonce.errors import CorruptEntry
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.database import Database
from thinkonce.tiers.purges import PurgeWindow
from thinkonce.tiers.rows import Rows
from thinkonce.tiers.schema import get_number, set_number

__all__ = ("PURGING_PATIENCE", "Forget", "SqlitePurges", "caught_up", "pack_again")

MOST_PURGES = 1000
PURGING_PATIENCE = 10.0  # seconds; whoever purges wants it done, and waits longer than a write

LATER = "SELECT epoch, selector FROM purges WHERE epoch > ? ORDER BY epoch"
FLOOR = "SELECT value FROM meta WHERE name = 'purge_floor'"
LATEST = "SELECT max(epoch) FROM purges"
RECORD = "INSERT OR IGNORE INTO purges VALUES(?, ?, ?)"
OLDEST_KEPT = "SELECT epoch FROM purges ORDER BY epoch DESC LIMIT 1 OFFSET ?"

Forget = Callable[[apsw.Connection, Purge], int]

_decode: Callable[[bytes], Selector] = msgspec.msgpack.Decoder(Selector).decode
_encode = msgspec.msgpack.Encoder().encode
PURPOSE = "purge"
NAME = "sqlite"
SEALED = b"\x02"  # in front; a plain selector begins as a map does, 0x80 to 0x8f


class SqlitePurges:
    """A `PurgeLog`. `forget` removes what a purge concerns from writes not yet carried out."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        forget: Forget,
        aliases: Aliases,
    ) -> None:
        self.epoch: Sequence[int] = database.host.epoch
        self._database, self._clock, self._forget = database, clock, forget
        self._aliases = aliases
        self._lock = threading.Lock()
        self._window = caught_up(PurgeWindow(most=MOST_PURGES), database.rows, aliases)
        # The mapped file may be younger than the store.
        database.host.raise_epoch(self._window.latest)

    @property
    def is_behind(self) -> bool:
        return self._window.latest < self.epoch[0]

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._window = PurgeWindow(most=MOST_PURGES)

    def append(self, selector: Selector) -> tuple[Purge, int]:
        """Raises TierError if the purge could not be done; nothing is removed then."""
        with self._database.writing(PURGING_PATIENCE) as database:
            purge = Purge(self._next_epoch(database), selector)
            count = self._carry_out(database, purge)
        self._database.host.raise_epoch(purge.epoch)
        return purge, count

    def apply(self, purge: Purge) -> int:
        """Carry out a purge that was numbered elsewhere; one done already removes nothing."""
        with self._database.writing(PURGING_PATIENCE) as database:
            if self._known(database, purge):
                return 0
            count = self._carry_out(database, purge)
        self._database.host.raise_epoch(purge.epoch)
        return count

    def since(self, epoch: int) -> list[Purge] | None:
        with self._lock:
            if self.is_behind:
                self._window = caught_up(self._window, self._database.rows, self._aliases)
                if self.is_behind:  # purged in a file that is no more
                    self._window = PurgeWindow(self.epoch[0], MOST_PURGES)
            return self._window.since(epoch)

    def _next_epoch(self, database: apsw.Connection) -> int:
        latest = database.execute(LATEST).get or int(get_number(database, "purge_floor"))
        published = self.epoch[0]
        if published > latest:  # the file is younger than the epoch: it lacks those purges
            set_number(database, "purge_floor", published)
        return max(latest, published) + 1

    def _known(self, database: apsw.Connection, purge: Purge) -> bool:
        same = "SELECT selector FROM purges WHERE epoch = ?"
        raw = database.execute(same, (purge.epoch,)).get
        return raw is not None and _unpacked(purge.epoch, raw, self._aliases) == purge.selector

    def _carry_out(self, database: apsw.Connection, purge: Purge) -> int:
        raw = _packed(purge.epoch, _encode(purge.selector), self._aliases)
        database.execute(RECORD, (purge.epoch, self._clock.wall(), raw))
        oldest = database.execute(OLDEST_KEPT, (MOST_PURGES,)).get
        if oldest is not None:
            set_number(database, "purge_floor", oldest)
            database.execute("DELETE FROM purges WHERE epoch <= ?", (oldest,))
        queued = self._forget(database, purge)
        return queued + Rows(database, self._aliases).purge(purge)


def caught_up(
    window: PurgeWindow, rows: Callable[[str, Sequence[Any]], list[Any]], aliases: Aliases
) -> PurgeWindow:
    """`window` with what was purged since, or a new one where the log no longer reaches it."""
    ((floor,),) = rows(FLOOR, ())
    if floor > window.latest:
        window = PurgeWindow(int(floor), MOST_PURGES)
    for epoch, raw in rows(LATER, (window.latest,)):
        window.add(Purge(epoch, _unpacked(epoch, raw, aliases)))
    return window


# -- a selector names tags, namespaces and models: with encryption it is sealed ------------------


def pack_again(epoch: int, raw: bytes, aliases: Aliases) -> bytes | None:
    """The row of a purge as it is written now; None if it is so already, or cannot be read."""
    cipher = aliases.cipher
    sealed = raw[:1] == SEALED
    if cipher is None or (not sealed and not cipher.seals):
        return None
    if sealed and cipher.seals and cipher.is_first(raw[1:]):
        return None
    try:
        return _packed(epoch, _opened(epoch, raw, aliases), aliases)
    except CorruptEntry:
        return None


def _packed(epoch: int, selector: bytes, aliases: Aliases) -> bytes:
    cipher = aliases.cipher
    if cipher is None or not cipher.seals:
        return selector
    return SEALED + cipher.seal(PURPOSE, b"%d" % epoch, selector)


def _opened(epoch: int, raw: bytes, aliases: Aliases) -> bytes:
    if raw[:1] != SEALED:
        return raw
    if aliases.cipher is None:
        raise CorruptEntry(NAME, "reading a purge that is encrypted, without a key")
    return aliases.cipher.open(PURPOSE, b"%d" % epoch, raw[1:])


def _unpacked(epoch: int, raw: bytes, aliases: Aliases) -> Selector:
    """What we cannot read may have meant anything: then it means everything."""
    try:
        return _decode(_opened(epoch, raw, aliases))
    except (CorruptEntry, msgspec.MsgspecError):
        return Selector()
