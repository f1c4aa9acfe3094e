"""What was saved, kept in the store: sums by dimension and name, of all processes together.

    savings   dimension, name, one number per column

The table is made when it is first written to. A name is what a namespace, a tag, a model or a
keyed hash of a credential is called; never a prompt, never a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import apsw

from thinkonce.tiers.database import Database

__all__ = ("SavingsTable", "read_savings")

Row = list[int]
Fold = Callable[[dict[str, Row], str], list[str]]  # see `insight.savings.fold`

MAKE = """
CREATE TABLE IF NOT EXISTS savings(
    dimension TEXT NOT NULL, name TEXT NOT NULL,
    calls INTEGER NOT NULL, items INTEGER NOT NULL, tokens INTEGER NOT NULL,
    nanos INTEGER NOT NULL, micros INTEGER NOT NULL,
    priced INTEGER NOT NULL, unpriced INTEGER NOT NULL, estimated INTEGER NOT NULL,
    PRIMARY KEY(dimension, name)
) WITHOUT ROWID
"""
ADD = """
INSERT INTO savings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(dimension, name) DO UPDATE SET
    calls = calls + excluded.calls, items = items + excluded.items,
    tokens = tokens + excluded.tokens, nanos = nanos + excluded.nanos,
    micros = micros + excluded.micros, priced = priced + excluded.priced,
    unpriced = unpriced + excluded.unpriced, estimated = estimated + excluded.estimated
"""
IS_THERE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'savings'"
ALL = "SELECT * FROM savings"
COUNTS = "SELECT dimension, count(*) FROM savings GROUP BY dimension"
OF_ONE = "SELECT * FROM savings WHERE dimension = ?"
REMOVE = "DELETE FROM savings WHERE dimension = ?"
PATIENCE = 2.0  # seconds for another process's write; whoever adds tries again later


class SavingsTable:
    """Thread-safe. Raises TierError where the store cannot be read or written.

    `fold` puts small names together once there are more than `most` of one dimension.
    """

    def __init__(self, database: Database, fold: Fold, most: int) -> None:
        self._database, self._fold, self._most = database, fold, most

    def add(self, rows: Iterable[tuple[str, str, Row]]) -> None:
        """All of it or, if it raises, none."""
        with self._database.writing(PATIENCE, PATIENCE) as connection:
            connection.execute(MAKE)
            connection.executemany(ADD, [(dimension, name, *row) for dimension, name, row in rows])
            for dimension, count in connection.execute(COUNTS).fetchall():
                if count > self._most:
                    self._trim(connection, dimension)

    def read(self) -> list[tuple[str, str, Row]]:
        if not self._database.one(IS_THERE):
            return []
        return [_parted(row) for row in self._database.rows(ALL)]

    def _trim(self, connection: apsw.Connection, dimension: str) -> None:
        rows = map(_parted, connection.execute(OF_ONE, (dimension,)).fetchall())
        names = {name: row for _, name, row in rows}
        self._fold(names, dimension)
        connection.execute(REMOVE, (dimension,))
        connection.executemany(ADD, [(dimension, name, *row) for name, row in names.items()])


def read_savings(connection: apsw.Connection) -> list[tuple[str, str, Row]]:
    """For those who only look. Raises apsw.Error."""
    if not connection.execute(IS_THERE).get:
        return []
    return [_parted(row) for row in connection.execute(ALL).fetchall()]


def _parted(row: tuple[object, ...]) -> tuple[str, str, Row]:
    dimension, name, *numbers = row
    return str(dimension), str(name), [int(str(number)) for number in numbers]
