"""What is learned of answers while they are served, kept in the store beside them.

    ledger   grp, name -> seen, value     value: [group, bytes] as MessagePack, sealed where the
                                          store is encrypted; grp is then a keyed mark

A group is what was learned together (audits of a namespace, on one basis), a name what in it (an
entry, or b""). Who writes reads first, in the same transaction: several processes add to one
account and none undoes what another wrote. The table is made when it is first written to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import apsw
import msgspec

from thinkonce.clock import Clock
from thinkonce.errors import CorruptEntry
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.database import Database

__all__ = ("MOST_NAMES", "LedgerTable", "write_ledger_again")

MAKE = """
CREATE TABLE IF NOT EXISTS ledger(
  grp TEXT NOT NULL, name BLOB NOT NULL, seen INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(grp, name)) WITHOUT ROWID
"""
IS_THERE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'ledger'"
OF_GROUP = "SELECT name, value FROM ledger WHERE grp IN ({marks})"
NAMED = OF_GROUP + " AND name = ?"
REMOVE = "DELETE FROM ledger WHERE grp IN ({marks}) AND name = ?"
WRITE = "INSERT INTO ledger VALUES (?, ?, ?, ?)"
# The least recently written of a group; b"" is its head and stays.
TRIM = """
DELETE FROM ledger WHERE grp = ?1 AND name IN (
  SELECT name FROM ledger WHERE grp = ?1 AND name <> x''
  ORDER BY seen DESC, name LIMIT -1 OFFSET ?2)
"""
TOO_OLD = "DELETE FROM ledger WHERE seen < ?"
HEADS = "SELECT value FROM ledger WHERE name = x''"
ALL = "SELECT grp, name, seen, value FROM ledger"
KIND, PURPOSE = "ledger", "ledger"
MOST_NAMES = 4000  # of one group
KEPT_SECONDS = 90 * 86400.0  # what nobody wrote to for so long is of no use any more
PATIENCE = 0.5  # seconds for another process's write; whoever adds tries again later

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], tuple[str, bytes]] = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


class LedgerTable:
    """See `tier.Ledger`. Thread-safe. Raises TierError where the store fails."""

    def __init__(self, database: Database, aliases: Aliases, clock: Clock) -> None:
        self._database, self._aliases, self._clock = database, aliases, clock

    def read(self, group: str, name: bytes | None = None) -> dict[bytes, bytes]:
        if not self._database.rows(IS_THERE):
            return {}
        which = self._aliases.sought(KIND, group)
        asked = _marked(OF_GROUP if name is None else NAMED, which)
        values = which if name is None else (*which, name)
        return _opened(group, self._database.rows(asked, values), self._aliases)

    def groups(self) -> list[str]:
        if not self._database.rows(IS_THERE):
            return []
        heads = (_open(b"", value, self._aliases) for (value,) in self._database.rows(HEADS))
        return sorted({head[0] for head in heads if head is not None})

    def update(
        self,
        group: str,
        names: Collection[bytes],
        change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]],
    ) -> None:
        which = self._aliases.sought(KIND, group)
        written, now = self._aliases.written(KIND, group), int(self._clock.wall())
        with self._database.writing(PATIENCE, PATIENCE) as connection:
            connection.execute(MAKE)
            rows: list[Any] = []
            for name in names:
                rows += connection.execute(_marked(NAMED, which), (*which, name)).fetchall()
            if not rows:  # perhaps a new group: then one may be of no use any more
                connection.execute(TOO_OLD, (now - int(KEPT_SECONDS),))
            for name, data in change(_opened(group, rows, self._aliases)).items():
                connection.execute(_marked(REMOVE, which), (*which, name))
                value = _sealed(group, name, data, self._aliases)
                connection.execute(WRITE, (written, name, now, value))
            connection.execute(TRIM, (written, MOST_NAMES))


def write_ledger_again(connection: apsw.Connection, aliases: Aliases) -> None:
    """Bring all that can be read under the key in use, in the caller's transaction.

    What cannot be read stays, for whoever has that key.
    """
    if not connection.execute(IS_THERE).fetchall():
        return
    rows: list[Any] = connection.execute(ALL).fetchall()
    for mark, name, seen, value in rows:
        read = _open(name, value, aliases)
        if read is None:
            continue
        connection.execute("DELETE FROM ledger WHERE grp = ? AND name = ?", (mark, name))
        anew = _sealed(read[0], name, read[1], aliases)
        place = (aliases.written(KIND, read[0]), name, seen, anew)
        connection.execute(WRITE.replace("INSERT", "INSERT OR REPLACE"), place)


def _marked(statement: str, values: Collection[str]) -> str:
    return statement.format(marks=",".join("?" * len(values)))


def _opened(
    group: str, rows: Iterable[tuple[bytes, bytes]], aliases: Aliases
) -> dict[bytes, bytes]:
    found = {}
    for name, value in rows:
        read = _open(name, value, aliases)
        if read is not None and read[0] == group:
            found[name] = read[1]
    return found


def _sealed(group: str, name: bytes, data: bytes, aliases: Aliases) -> bytes:
    cipher, plain = aliases.cipher, _encode((group, data))
    return plain if cipher is None or not aliases.key_id else cipher.seal(PURPOSE, name, plain)


def _open(name: bytes, value: bytes, aliases: Aliases) -> tuple[str, bytes] | None:
    """None for what another key sealed, and for what is damaged."""
    for read in (_plainly, _by_key):
        found = read(name, value, aliases)
        if found is not None:
            return found
    return None


def _plainly(name: bytes, value: bytes, aliases: Aliases) -> tuple[str, bytes] | None:
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _by_key(name: bytes, value: bytes, aliases: Aliases) -> tuple[str, bytes] | None:
    if aliases.cipher is None:
        return None
    try:
        return _decode(aliases.cipher.open(PURPOSE, name, value))
    except (CorruptEntry, msgspec.DecodeError, UnicodeDecodeError):
        return None
