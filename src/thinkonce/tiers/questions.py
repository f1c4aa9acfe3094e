"""What stored entries answer, for questions in other words: a table beside the answers.

    questions   partition, row, id, digest, value    one row an entry that has a `Hint`

Rows of a partition lie together, so that its index is loaded by reading on. `row` numbers never
come twice: whoever has seen a partition up to one reads on behind it and misses nothing that any
process wrote. `id` is the answer's; what removes the answer removes the row in the same transaction
(`rows`). Texts are not here but in the answer's value, which whoever finds a row reads anyway.

    0         1               2+n
    | version | n | embedder | m | fingerprint | vector |        plain
    | version | sealed: the same from 1                 |        encrypted, under the digest
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from thinkonce.errors import CorruptEntry
from thinkonce.likeness import Hint
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.tier import Question

if TYPE_CHECKING:
    from thinkonce.tiers.database import Database

__all__ = ("MAKE_QUESTIONS", "QuestionsTable", "put_question", "seal_question_again")

MAKE_QUESTIONS = """
CREATE TABLE IF NOT EXISTS questions(
    partition BLOB NOT NULL, row INTEGER NOT NULL, id INTEGER NOT NULL UNIQUE,
    digest BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(partition, row)
) WITHOUT ROWID;
"""
# What stood there for the same answer goes with it: `id` is unique.
PUT = "INSERT OR REPLACE INTO questions VALUES(?, ?, ?, ?, ?)"
NUMBER = """
INSERT INTO meta VALUES('questions', 1)
ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value
"""
OF_ENTRY = "SELECT digest, value FROM questions WHERE id = ?"
UPDATE = "UPDATE questions SET value = ? WHERE id = ?"
REMOVE = "DELETE FROM questions WHERE id = ?"
NEWER = """
SELECT row, digest, value FROM questions WHERE partition = ? AND row > ? ORDER BY row LIMIT ?
"""
OLDER = """
SELECT row, digest, value FROM questions WHERE partition = ? AND row < ? ORDER BY row DESC LIMIT ?
"""
DIGESTS = "SELECT digest FROM questions WHERE partition = ?"
BY_DIGEST = """
SELECT partition, id, value FROM questions
WHERE id = (SELECT id FROM answers WHERE digest = ?) AND digest = ?
"""
PLAIN, SEALED = b"\x01", b"\x02"
PURPOSE = "question"
LONGEST = 255  # bytes of an embedder's name, and of a fingerprint
PATIENCE = 0.5  # seconds for another process's write; vectors made anew can be made once more


class QuestionsTable:
    """See `tier.Questions`. Thread-safe."""

    def __init__(self, database: Database, aliases: Aliases) -> None:
        self._database, self._aliases = database, aliases

    def newer(self, partition: bytes, row: int, limit: int) -> list[Question]:
        return self._read(self._database.rows(NEWER, (partition, row, limit)))

    def older(self, partition: bytes, row: int, limit: int) -> list[Question]:
        return self._read(self._database.rows(OLDER, (partition, row, limit)))

    def digests(self, partition: bytes) -> set[bytes]:
        return {digest for (digest,) in self._database.rows(DIGESTS, (partition,))}

    def of(self, digest: bytes) -> Question | None:
        found = self._database.rows(BY_DIGEST, (digest, digest))
        return _opened(0, digest, found[0][2], self._aliases) if found else None

    def renew(self, embedder: str, vectors: Iterable[tuple[bytes, bytes]]) -> int:
        with self._database.writing(PATIENCE, PATIENCE) as connection:
            return sum(
                _renew(connection, digest, embedder, vector, self._aliases)
                for digest, vector in vectors
            )

    def _read(self, rows: Sequence[Any]) -> list[Question]:
        aliases = self._aliases
        return [
            _opened(row, digest, value, aliases) or Question(row, digest, "", b"", b"")
            for row, digest, value in rows
        ]


def put_question(
    connection: apsw.Connection, number: int, digest: bytes, hint: Hint, aliases: Aliases
) -> None:
    """Write the row of the answer `number`, in the caller's transaction."""
    value = _sealed(digest, hint.embedder, hint.fingerprint, hint.vector, aliases)
    _put(connection, (hint.partition, number, digest, value))


def seal_question_again(connection: apsw.Connection, number: int, aliases: Aliases) -> None:
    """Write the row of the answer `number`, if it has one, as it is written now."""
    rows: list[Any] = connection.execute(OF_ENTRY, (number,)).fetchall()
    for digest, value in rows:
        held = _opened(0, digest, value, aliases)
        if held is not None:
            anew = _sealed(digest, held.embedder, held.fingerprint, held.vector, aliases)
            connection.execute(UPDATE, (anew, number))
        else:
            connection.execute(REMOVE, (number,))


def _renew(
    connection: apsw.Connection, digest: bytes, embedder: str, vector: bytes, aliases: Aliases
) -> bool:
    """False where the entry has gone meanwhile. A new number tells the other processes."""
    rows: list[Any] = connection.execute(BY_DIGEST, (digest, digest)).fetchall()
    for partition, number, value in rows:
        held = _opened(0, digest, value, aliases)
        anew = _sealed(digest, embedder, held.fingerprint if held else b"", vector, aliases)
        _put(connection, (partition, number, digest, anew))
        return True
    return False


def _put(connection: apsw.Connection, found: tuple[bytes, int, bytes, bytes]) -> None:
    row: int = connection.execute(NUMBER).get
    partition, number, digest, value = found
    connection.execute(PUT, (partition, row, number, digest, value))


def _sealed(
    digest: bytes, embedder: str, fingerprint: bytes, vector: bytes, aliases: Aliases
) -> bytes:
    name = embedder.encode("utf-8", "replace")
    if len(name) > LONGEST or len(fingerprint) > LONGEST:  # a vector nobody would find again
        name, vector, fingerprint = b"", b"", fingerprint[:LONGEST]
    parts = (bytes([len(name)]), name, bytes([len(fingerprint)]), fingerprint, vector)
    plain, cipher = b"".join(parts), aliases.cipher
    if cipher is None or not cipher.seals:
        return PLAIN + plain
    return SEALED + cipher.seal(PURPOSE, digest, plain)


def _opened(row: int, digest: bytes, value: bytes, aliases: Aliases) -> Question | None:
    """None for what another key sealed, and for what is damaged."""
    try:
        if value[:1] == SEALED and aliases.cipher is not None:
            value = PLAIN + aliases.cipher.open(PURPOSE, digest, value[1:])
        if value[:1] == PLAIN:
            name_end = 2 + value[1]
            marks_end = name_end + 1 + value[name_end]
            embedder = value[2:name_end].decode()
            marks = value[name_end + 1 : marks_end]
            return Question(row, digest, embedder, value[marks_end:], marks)
    except (CorruptEntry, IndexError, UnicodeDecodeError):
        pass
    return None
