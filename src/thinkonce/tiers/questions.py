"""What stored entries answer, for questions in other words: a table beside the answers.

    questions   partition, row, id, digest, value    one row an entry that has a `Hint`

Rows of a partition lie together, so that its index is loaded by reading on. `row` numbers never
come twice: whoever has seen a partition up to one reads on behind it and misses nothing that any
process wrote. `id` is the answer's; what removes the answer removes the row in the same transaction
(`rows`). Texts are not here but in the answer's value, which whoever finds a row reads anyway.

    0         1               2+n
    | version | n | embedder | m | fingerprint | vector |                 plain
    | version | n | embedder | m | fingerprint | k | member | vector |    plain, of a group
    | version | sealed: the same from 1 |                                 under the digest
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
PLAIN_OF_MEMBER, SEALED_OF_MEMBER = b"\x03", b"\x04"
PURPOSE = "question"
LONGEST = 255  # bytes of an embedder's name, of a fingerprint, and of a member
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
    found = Question(0, digest, hint.embedder, hint.vector, hint.fingerprint, hint.member)
    value = _sealed(found, aliases)
    _put(connection, (hint.partition, number, digest, value))


def seal_question_again(connection: apsw.Connection, number: int, aliases: Aliases) -> None:
    """Write the row of the answer `number`, if it has one, as it is written now."""
    rows: list[Any] = connection.execute(OF_ENTRY, (number,)).fetchall()
    for digest, value in rows:
        held = _opened(0, digest, value, aliases)
        if held is not None:
            connection.execute(UPDATE, (_sealed(held, aliases), number))
        else:
            connection.execute(REMOVE, (number,))


def _renew(
    connection: apsw.Connection, digest: bytes, embedder: str, vector: bytes, aliases: Aliases
) -> bool:
    """False where the entry has gone meanwhile. A new number tells the other processes."""
    rows: list[Any] = connection.execute(BY_DIGEST, (digest, digest)).fetchall()
    for partition, number, value in rows:
        held = _opened(0, digest, value, aliases) or Question(0, digest, "", b"", b"")
        anew = held._replace(embedder=embedder, vector=vector)
        _put(connection, (partition, number, digest, _sealed(anew, aliases)))
        return True
    return False


def _put(connection: apsw.Connection, found: tuple[bytes, int, bytes, bytes]) -> None:
    row: int = connection.execute(NUMBER).get
    partition, number, digest, value = found
    connection.execute(PUT, (partition, row, number, digest, value))


def _sealed(found: Question, aliases: Aliases) -> bytes:
    name, fingerprint = found.embedder.encode("utf-8", "replace"), found.fingerprint
    vector, member = found.vector, found.member[:LONGEST]
    if len(name) > LONGEST or len(fingerprint) > LONGEST:  # a vector nobody would find again
        name, vector, fingerprint = b"", b"", fingerprint[:LONGEST]
    named = (name, fingerprint, member) if member else (name, fingerprint)
    plain = b"".join((*(bytes([len(part)]) + part for part in named), vector))
    cipher = aliases.cipher
    if cipher is None or not cipher.seals:
        return (PLAIN_OF_MEMBER if member else PLAIN) + plain
    sealed = cipher.seal(PURPOSE, found.digest, plain)
    return (SEALED_OF_MEMBER if member else SEALED) + sealed


def _opened(row: int, digest: bytes, value: bytes, aliases: Aliases) -> Question | None:
    """None for what another key sealed, and for what is damaged."""
    try:
        version = value[:1]
        if version in (SEALED, SEALED_OF_MEMBER) and aliases.cipher is not None:
            value = version + aliases.cipher.open(PURPOSE, digest, value[1:])
            version = PLAIN if version == SEALED else PLAIN_OF_MEMBER
        if version in (PLAIN, PLAIN_OF_MEMBER):
            name, at = _part(value, 1)
            marks, at = _part(value, at)
            member, at = _part(value, at) if version == PLAIN_OF_MEMBER else (b"", at)
            return Question(row, digest, name.decode(), value[at:], marks, member)
    except (CorruptEntry, IndexError, UnicodeDecodeError):
        pass
    return None


def _part(value: bytes, at: int) -> tuple[bytes, int]:
    """What its length stands before at `at`, and where it ends."""
    end = at + 1 + value[at]
    return value[at + 1 : end], end
