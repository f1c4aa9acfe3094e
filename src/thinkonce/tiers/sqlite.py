"""The tier that outlives the process: one SQLite file, shared by the processes of a host.

A get is one query on the calling thread's own connection and never waits for a writer; a put
goes into the queue of `writer` and is found by gets at once. Frequencies are those of the reads
that reached the store; what is hot in memory counts here when it leaves memory and comes back.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import msgspec

from thinkonce.clock import SYSTEM, Clock
from thinkonce.entry import Entry, localise
from thinkonce.errors import ConfigError, CorruptEntry, TierError, UnknownKey
from thinkonce.host.fork import on_fork
from thinkonce.host.mapfile import HostFile
from thinkonce.outcome import Reason
from thinkonce.selector import Purge, Selector
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.database import Database
from thinkonce.tiers.ledger_table import LedgerTable
from thinkonce.tiers.purges import concerned
from thinkonce.tiers.questions import QuestionsTable
from thinkonce.tiers.resealing import Resealing, check_keys, forget_unreadable, settled
from thinkonce.tiers.rows import Rows, condition, marks_for
from thinkonce.tiers.savings_table import SavingsTable
from thinkonce.tiers.sqlite_purges import PURGING_PATIENCE, Forget, SqlitePurges
from thinkonce.tiers.tier import Key, TierStats
from thinkonce.tiers.writer import COMMIT_WITHIN, WriteBehind

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("SqliteTier",)

log = logging.getLogger("thinkonce.store")

NAME = "sqlite"
FLUSHING_SECONDS = 5.0  # at close; after that, what is left is dropped and counted

GET = "SELECT value FROM answers WHERE digest = ?"
HERE = "SELECT id FROM answers WHERE digest = ?"
UNCHANGED = "SELECT id FROM answers WHERE digest = ? AND value = ?"
STILL_GONE = "SELECT a.id FROM answers a JOIN entries e USING (id) WHERE digest = ? AND gone <= ?"
PAGE = """
SELECT a.digest, a.value FROM answers a JOIN entries e USING (id)
WHERE a.digest > ? AND e.gone > ? AND {where} ORDER BY a.digest LIMIT ?
"""
TENANT_BYTES = """
SELECT total(bytes) FROM entries WHERE facet IN (SELECT id FROM facets WHERE tenant IN ({marks}))
"""
USED_BYTES = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""


class SqliteTier:
    """Thread-safe; a forked child opens the store again by itself. Raises TierError.

    `host` is the mapped file beside the store and stays its owner's. `when_gone` is called, in the
    thread that writes, when a file that somebody removed was begun anew. Raises ConfigError.
    """

    name = NAME
    persistent = True

    def __init__(
        self,
        path: Path,
        *,
        secret: bytes,
        host: HostFile,
        clock: Clock = SYSTEM,
        max_bytes: int = 2**30,
        commit_within: float = COMMIT_WITHIN,
        when_gone: Callable[[], None] | None = None,
        cipher: Cipher | None = None,
        check_key: bool = True,
    ) -> None:
        aliases = self._aliases = Aliases(cipher)
        self._database, self.purges = opened(path, host, clock, self._forget, aliases, check_key)
        self._database.when_gone = when_gone
        self._codec = Codec(secret, NAME, cipher)
        self._clock, self._epoch = clock, host.epoch
        self._corrupt = 0
        self._writer = self._new_writer(max_bytes, commit_within)
        on_fork(self._after_fork)
        if cipher is not None and settled(self._database.rows)[0] != aliases.key_id:
            self._writer.wake()

    @property
    def savings(self) -> SavingsTable:
        """What lies in the file besides answers: what they saved."""
        return SavingsTable(self._database, self._aliases)

    @property
    def questions(self) -> QuestionsTable:
        """What its entries are found by in other words."""
        return QuestionsTable(self._database, self._aliases)

    @property
    def ledger(self) -> LedgerTable:
        """What is learned of answers while they are served."""
        return LedgerTable(self._database, self._aliases, self._clock)

    @property
    def path(self) -> Path:
        return self._database.path

    # -- reading -----------------------------------------------------------------------

    def get(self, key: Key) -> Entry | None:
        entry = self.peek(key)
        if entry is not None:
            self._writer.note_use(key.digest)
        return entry

    def lacks(self, key: Key) -> bool:
        if self._database.damaged or self._database.closed:
            return False  # a look says so
        return self._writer.known.lacks(key.digest, self._database.generation)

    def peek(self, key: Key) -> Entry | None:
        digest, epoch, writer = key.digest, self._epoch[0], self._writer
        if digest in writer.doomed:  # since it was put last
            return None
        queued = writer.queue.get(digest)
        if queued is None:
            stored = self._stored(digest)
        elif queued.entry.epoch < epoch and self._is_purged(queued.entry):
            return None
        else:
            stored = queued.value
        return None if stored is None else self._read(key, stored, epoch)

    def _stored(self, digest: bytes) -> bytes | None:
        try:
            stored: bytes | None = self._database.one(GET, (digest,))
        except TierError:
            if self._database.damaged:
                self._writer.wake()  # who writes next begins a new file
            raise
        return stored

    def _read(self, key: Key, stored: bytes, epoch: int) -> Entry | None:
        """The entry in `stored`, read after `epoch` was; None, and a removal, if it is no good."""
        try:
            entry = self._codec.decode(key, stored)
        except CorruptEntry as error:
            self._corrupt += 1
            if isinstance(error, UnknownKey):  # another process's, which can read it
                return None
            log.warning("an entry was dropped: %s", error)
            self._writer.doom(key.digest, UNCHANGED, (key.digest, stored))
            return None
        if entry.gone_at <= (now := self._clock.wall()):
            self._writer.doom(key.digest, STILL_GONE, (key.digest, now))
            return None
        if entry.epoch < epoch:  # it is still here, so no purge up to then concerned it
            entry.epoch = epoch
        localise(entry, self._clock)
        return entry

    def _forget(self, database: apsw.Connection, purge: Purge) -> int:
        return self._writer.forget(database, purge)

    def _is_purged(self, entry: Entry) -> bool:
        return concerned(entry, self.purges.since(entry.epoch))

    def entries(self, selector: Selector, limit: int, after: bytes = b"") -> Iterator[Entry]:
        self._writer.flush(1.0)  # best effort: a listing without the last second is one too
        where, values = condition(selector, self._aliases)
        while limit > 0:
            page = min(limit, 100)
            now, epoch = self._clock.wall(), self._epoch[0]
            query = PAGE.format(where=where)
            rows = self._database.rows(query, (after, now, *values, page))
            for digest, stored in rows:
                after = digest
                entry = self._listed(Key(digest, digest), stored, epoch)
                if entry is not None:
                    limit -= 1
                    yield entry
            if len(rows) < page:
                return

    def _listed(self, key: Key, stored: bytes, epoch: int) -> Entry | None:
        """Looking changes nothing: what cannot be read is passed over, for a get to remove."""
        try:
            entry = self._codec.decode(key, stored, rebuild=False)
        except CorruptEntry:
            return None
        entry.epoch = max(entry.epoch, epoch)
        localise(entry, self._clock)
        return entry

    def bytes_of(self, tenant: str) -> int:
        """What the entries of `tenant` take; what is queued is not counted. Raises TierError."""
        names = self._aliases.sought("tenant", tenant)
        return int(self._database.one(TENANT_BYTES.format(marks=marks_for(names)), names))

    def stats(self) -> TierStats:
        """Never raises: a store that cannot be read holds nothing for now."""
        try:
            entries = self._database.one("SELECT count(*) FROM entries")
            size = self._database.one(USED_BYTES)
        except TierError:
            entries = size = 0
        return msgspec.structs.replace(self.counted(), entries=entries, bytes=size)

    def counted(self) -> TierStats:
        return TierStats(
            evictions=dict(+self._writer.removed),
            dropped_writes=self._writer.dropped,
            errors=self._writer.errors + self._corrupt,
        )

    # -- writing -----------------------------------------------------------------------

    def put(self, key: Key, entry: Entry) -> None:
        """Queue the entry. Raises TypeError, naming the type, for what only memory can hold."""
        digest = key.digest
        entry.digest = digest
        if entry.epoch < self._epoch[0] and self._is_purged(entry):
            self._writer.removed[Reason.PURGED] += 1
            return
        try:
            value = self._codec.encode(digest, entry)
        except (OverflowError, UnicodeEncodeError) as error:  # in a label or a tag, say
            raise TierError(NAME, f"encoding an entry: {error}") from error
        self._writer.put(digest, entry, value)

    def delete(self, key: Key) -> bool:
        digest = key.digest
        with self._database.writing(PURGING_PATIENCE) as database:
            queued = self._writer.take_back(digest)
            return Rows(database).remove(HERE, (digest,)) > 0 or queued is not None

    def doom(self, key: Key) -> None:
        self._writer.doom(key.digest, HERE, (key.digest,))

    def purge(self, purge: Purge) -> int:
        return self.purges.apply(purge)

    @property
    def max_bytes(self) -> int:
        return self._writer.max_bytes

    def resize(self, max_bytes: int) -> None:
        """Change the bound while running; what is too much leaves in the background."""
        self._writer.max_bytes = max_bytes
        self._writer.wake()

    def tidy(self) -> None:
        """Remove now what is past its life or beyond the bound."""
        self._writer.tidy()

    def forget_unreadable(self) -> int:
        """Remove the entries that none of our keys opens. Raises TierError."""
        with self._database.writing(PURGING_PATIENCE) as database:
            return forget_unreadable(database, self._aliases)

    def settled(self) -> tuple[str, dict[str, int]]:
        """See `resealing.settled`. Raises TierError."""
        return settled(self._database.rows)

    def flush(self, timeout: float) -> bool:
        return self._writer.flush(timeout)

    def close(self) -> None:
        """Finish what is queued, end the thread, close the file. Safe to call twice."""
        _open.discard(self)
        if not self._database.closed:
            self._writer.flush(FLUSHING_SECONDS)
            self._writer.stop()
            self._database.close()

    def _after_fork(self) -> None:
        """In a child: the parent writes what it had queued, and its threads are not here."""
        self._writer = self._new_writer(self._writer.max_bytes, self._writer.commit_within)
        self.purges.after_fork()

    def _new_writer(self, max_bytes: int, commit_within: float) -> WriteBehind:
        aliases = self._aliases
        resealing = (
            None if aliases.cipher is None else Resealing(self._database, self._codec, aliases)
        )
        return WriteBehind(
            self._database,
            self._clock,
            max_bytes,
            commit_within,
            lambda: close_at_exit(self),
            aliases,
            resealing,
        )


def opened(
    path: Path, host: HostFile, clock: Clock, forget: Forget, aliases: Aliases, checked: bool
) -> tuple[Database, SqlitePurges]:
    """`checked`: only with keys that open all of it.

    Raises ConfigError with one line that names the store and what would work.
    """
    try:
        database = Database(path, NAME, host)
        try:
            purges = purge_log(database, clock, forget, aliases)
            if checked:
                check_keys(database.rows, aliases, str(path))
            return database, purges
        except BaseException:
            database.close()
            raise
    except apsw.BusyError:
        wants = "a store that no other process has locked; close the one that holds it"
        raise ConfigError("store", str(path), wants) from None
    except (apsw.ReadOnlyError, PermissionError) as error:
        wants = f"a file that this user may write in a folder that this user may write ({error})"
        raise ConfigError("store", str(path), wants) from None
    except apsw.FullError as error:
        raise ConfigError("store", str(path), f"a disk with room left ({error})") from None
    except (apsw.Error, OSError, TierError) as error:
        wants = f"a path where a database can be made ({error}), or memory://"
        raise ConfigError("store", str(path), wants) from None


def purge_log(database: Database, clock: Clock, forget: Forget, aliases: Aliases) -> SqlitePurges:
    """The first thing read; a file found damaged by it is moved aside, and a new one begun."""
    try:
        return SqlitePurges(database, clock, forget, aliases)
    except TierError:
        if not database.damaged:
            raise
        with database.writing(PURGING_PATIENCE):
            pass
        return SqlitePurges(database, clock, forget, aliases)


# -- the end of a process --------------------------------------------------------------------

_open: set[SqliteTier] = set()  # strong: what is queued is written though nobody holds the tier


def close_at_exit(tier: SqliteTier) -> None:
    """Called in each process that writes, when it first does."""
    _open.add(tier)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:  # its children leave without running atexit
        util.Finalize(None, close_all, exitpriority=0)


@atexit.register
def close_all() -> None:
    for tier in list(_open):
        tier.close()
