"""What was saved, kept in the store: sums by dimension and name, of all processes together.

    savings   key, value    all sums as MessagePack, sealed where the store is encrypted

There is one row for each key that sealed sums ("" for plain ones). Whoever adds brings what it can
read into the row of the key in use; what it cannot read stays, for whoever has that key. The table
is made when it is first written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import apsw
import msgspec

from thinkonce.errors import CorruptEntry
from thinkonce.sums import Names, SumRow, added, rows_of
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.database import Database
from thinkonce.tiers.tier import Fold

__all__ = ("SavingsTable", "read_savings", "write_savings_again")

MAKE = "CREATE TABLE IF NOT EXISTS savings(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
IS_THERE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'savings'"
ALL = "SELECT key, value FROM savings"
REMOVE = "DELETE FROM savings WHERE key = ?"
WRITE = "INSERT OR REPLACE INTO savings VALUES (?, ?)"
PURPOSE, NAME = "savings", b"savings"
MOST_NAMES = 200  # of one dimension, before small ones are put together
LARGEST = 2**53  # an upstream may claim any number of tokens
PATIENCE = 0.5  # seconds for another process's write; whoever adds tries again later

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Names] = msgspec.msgpack.Decoder(Names).decode


class SavingsTable:
    """See `tier.Sums`. Thread-safe. Raises TierError where the store cannot be read or written."""

    def __init__(self, database: Database, aliases: Aliases) -> None:
        self._database, self._aliases = database, aliases

    def add(self, rows: Iterable[SumRow], fold: Fold) -> None:
        aliases = self._aliases
        with self._database.writing(PATIENCE, PATIENCE) as connection:
            connection.execute(MAKE)
            sums = _taken_out(connection, aliases)
            _add(sums, rows)
            for dimension, names in sums.items():
                if len(names) > MOST_NAMES:
                    fold(names, dimension)
            connection.execute(WRITE, (aliases.key_id, _sealed(sums, aliases)))

    def read(self) -> list[SumRow]:
        return read_savings(self._database.rows, self._aliases)


def write_savings_again(connection: apsw.Connection, aliases: Aliases) -> None:
    """Bring all that can be read into the row of the key in use, in the caller's transaction."""
    if connection.execute(IS_THERE).fetchall():
        sums = _taken_out(connection, aliases)
        connection.execute(WRITE, (aliases.key_id, _sealed(sums, aliases)))


def _taken_out(connection: apsw.Connection, aliases: Aliases) -> Names:
    sums: Names = {}
    held: list[Any] = connection.execute(ALL).fetchall()
    for key, value in held:
        if (read := _opened(key, value, aliases)) is not None:
            _add(sums, rows_of(read))
            connection.execute(REMOVE, (key,))
    return sums


def read_savings(rows: Callable[[str], list[Any]], aliases: Aliases) -> list[SumRow]:
    """What can be read of all sums. Raises what `rows` raises."""
    sums: Names = {}
    for key, value in rows(ALL) if rows(IS_THERE) else ():
        _add(sums, rows_of(_opened(key, value, aliases) or {}))
    return list(rows_of(sums))


def _add(sums: Names, rows: Iterable[SumRow]) -> None:
    for dimension, name, numbers in rows:
        names = sums.setdefault(dimension, {})
        names[name] = [min(each, LARGEST) for each in added(names.get(name, ()), numbers)]


def _sealed(sums: Names, aliases: Aliases) -> bytes:
    cipher, plain = aliases.cipher, _encode(sums)
    return plain if cipher is None or not aliases.key_id else cipher.seal(PURPOSE, NAME, plain)


def _opened(key: str, value: bytes, aliases: Aliases) -> Names | None:
    """None for what another key sealed, and for what is damaged."""
    try:
        if key:
            if aliases.cipher is None:
                return None
            value = aliases.cipher.open(PURPOSE, NAME, value)
        return _decode(value)
    except (CorruptEntry, msgspec.DecodeError, UnicodeDecodeError):
        return None
