"""Bringing a store under its key: rows that are plain, or encrypted with an older key, anew.

    plain or older rows ──► 100 a transaction ──► none left ──► VACUUM, log cut to nothing ──► done

Deleted text lives on in free pages, in gaps of pages and in the write-ahead log. So when the last
row is written anew the whole file is, once, and only then the store is marked as under its key. A
process that dies in between leaves a store that the next one goes on with. The device may keep
older copies of what was overwritten (flash does): no file tells.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import apsw

from thinkonce.errors import MISSING, ConfigError, CorruptEntry, TierError
from thinkonce.tiers.aliases import ID_AT, ID_END, Aliases, entries_by_key
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.database import Database
from thinkonce.tiers.keyring import FILE_SETTING, SETTING
from thinkonce.tiers.ledger_table import write_ledger_again
from thinkonce.tiers.rows import Rows
from thinkonce.tiers.savings_table import write_savings_again
from thinkonce.tiers.sqlite_purges import pack_again

__all__ = ("Resealing", "check_keys", "forget_unreadable", "settled")

log = logging.getLogger("thinkonce.store")

BATCH = 100  # rows in one transaction: about 5 ms
EVERY = 2**31 - 1
TRY_AGAIN_SECONDS = 300.0  # after somebody kept the file from being written anew
# A facet's scope begins with the id of the key that its entries are encrypted with.
_OF = f"substr(scope, {ID_AT - 1}, {ID_END})"
_SEALED = "scope LIKE '~________~%'"
STALE = "SELECT id FROM entries WHERE facet IN (SELECT id FROM facets WHERE {which}) LIMIT ?"
ANSWER = "SELECT digest, value FROM answers WHERE id = ?"
PURGES = "SELECT epoch, selector FROM purges"
# The id of the key that the whole file is encrypted with, free pages and all.
SETTLED = "SELECT value FROM meta WHERE name = 'settled'"
SETTLE = "INSERT OR REPLACE INTO meta VALUES('settled', ?)"
UNSETTLE = "DELETE FROM meta WHERE name = 'settled'"


class Resealing:
    """For the one thread that writes at a time. `aliases` has a cipher."""

    def __init__(self, database: Database, codec: Codec, aliases: Aliases) -> None:
        self._database, self._codec, self._aliases = database, codec, aliases
        self._looking = True  # there may be something to do
        self._rewrite_at = inf  # on the machine's monotonic clock

    def step(self, database: apsw.Connection, rows: Rows, *, idle: bool) -> bool:
        """Write some rows anew in the caller's transaction; True if there is more to do."""
        if not self._looking and not idle:
            return False
        query = STALE.format(which=self._stale())
        found: list[Any] = database.execute(query, (BATCH,)).fetchall()
        written = [self._write_again(database, rows, number) for (number,) in found]
        if lost := written.count(False):
            log.warning("%d entries were dropped: their bytes are not ours, or damaged", lost)
        if found:
            database.execute(UNSETTLE)
            self._looking = True
            return True
        self._looking = False
        if database.execute(SETTLED).get != self._settled_as:
            self._write_purges_again(database)
            write_savings_again(database, self._aliases)
            write_ledger_again(database, self._aliases)
            rows.forget_facets(EVERY)
            self._rewrite_at = min(self._rewrite_at, time.monotonic())
        return False

    def finish(self) -> None:
        """Between transactions: write the file anew if that is due. What fails is tried again."""
        if time.monotonic() < self._rewrite_at:
            return
        self._rewrite_at = inf  # no other thread begins it too
        path = self._database.path
        try:
            whole = self._database.rewrite()
            if whole:
                with self._database.writing(1.0) as database:
                    database.execute(SETTLE, (self._settled_as,))
        except TierError as error:
            whole = False
            log.warning("store %s is not written anew yet: %s", path, error.__cause__ or error)
        self._rewrite_at = inf if whole else time.monotonic() + TRY_AGAIN_SECONDS
        if whole:
            how = "encrypted" if self._aliases.key_id else "plain"
            log.info("store %s: all of it is %s now", path, how)

    @property
    def _settled_as(self) -> str:
        return self._aliases.key_id or "plain"

    def _stale(self) -> str:
        """Facets of rows that we can read and would write otherwise."""
        cipher = self._aliases.cipher
        assert cipher is not None
        known = [f"'~{key_id}~'" for key_id in cipher.ids if key_id != self._aliases.key_id]
        sealed_otherwise = f"{_OF} IN ({','.join(known)})"
        return f"NOT {_SEALED} OR {sealed_otherwise}" if cipher.seals else sealed_otherwise

    def _write_again(self, database: apsw.Connection, rows: Rows, number: int) -> bool:
        """False for bytes that cannot be read: then the row is removed."""
        row: Any = database.execute(ANSWER, (number,)).fetchone()  # one by one: some are large
        digest, value = row or (b"", b"")
        try:
            meta, anew = self._codec.again(digest, value)
        except CorruptEntry:
            rows.remove("VALUES (?)", (number,))
            return False
        rows.put_again(number, meta, anew, len(anew) - len(value))
        return True

    def _write_purges_again(self, database: apsw.Connection) -> None:
        purges: list[Any] = database.execute(PURGES).fetchall()
        for epoch, raw in purges:
            anew = pack_again(epoch, raw, self._aliases)
            if anew is not None:
                database.execute("UPDATE purges SET selector = ? WHERE epoch = ?", (anew, epoch))


def check_keys(rows: Callable[[str], Iterable[Any]], aliases: Aliases, place: str) -> None:
    """Raise ConfigError for a store with entries that none of our keys opens."""
    held = entries_by_key(rows)
    cipher = aliases.cipher
    unknown = {key for key in held if key and (cipher is None or key not in cipher.ids)}
    if not unknown:
        return
    shown, count = ", ".join(sorted(unknown)), sum(held[key] for key in unknown)
    what = f"the key {shown}: {place} is encrypted with it (entries: {count:,})"
    lost = "if it is lost, `thinkonce encrypt --forget` removes them"
    if cipher is None:
        raise ConfigError(SETTING, MISSING, f"it, or {FILE_SETTING}, with {what}; {lost}")
    ours = ", ".join(cipher.ids)
    raise ConfigError(SETTING, f"key {ours}", f"{what}; put it behind the new one; {lost}")


def forget_unreadable(database: apsw.Connection, aliases: Aliases) -> int:
    """Remove what none of our keys opens, in the caller's transaction; how many entries."""
    ids = () if aliases.cipher is None else aliases.cipher.ids
    known = ",".join(f"'~{key_id}~'" for key_id in ids)
    which = f"{_SEALED} AND {_OF} NOT IN ({known})"
    chosen = f"SELECT id FROM entries WHERE facet IN (SELECT id FROM facets WHERE {which})"
    return Rows(database).remove(chosen)


def settled(rows: Callable[[str], Iterable[Any]]) -> tuple[str, Counter[str]]:
    """How the whole file is written (a key's id, "plain", "" where nobody has seen to it), and
    how many entries each key encrypted ("": none)."""
    found = [str(value) for (value,) in rows(SETTLED)]
    return (found[0] if found else ""), entries_by_key(rows)
