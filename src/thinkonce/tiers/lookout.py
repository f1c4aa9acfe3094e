"""A store's file as those see it who only look: nothing is written, made or locked.

It needs no more than a file that can be read: a copy, a folder that is read-only, a disk that is
full. Of a store in use it sees the last commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thinkonce.clock import Clock
from thinkonce.entry import Entry, localise
from thinkonce.errors import CorruptEntry, TierError
from thinkonce.selector import Selector
from thinkonce.sums import SumRow
from thinkonce.tiers.aliases import Aliases
from thinkonce.tiers.codec import Codec
from thinkonce.tiers.resealing import check_keys, settled
from thinkonce.tiers.rows import condition
from thinkonce.tiers.savings_table import read_savings
from thinkonce.tiers.schema import FORMAT, connect_to_look, get_number
from thinkonce.tiers.sqlite import USED_BYTES
from thinkonce.tiers.store import check_store_file
from thinkonce.tiers.tier import Key

if TYPE_CHECKING:
    from thinkonce.tiers.cipher import Cipher

__all__ = ("Lookout",)

NAME = "sqlite"
COUNT = "SELECT count(*) FROM entries"
LATEST = "SELECT max(epoch) FROM purges"
OLDEST = "SELECT digest, value FROM answers ORDER BY id LIMIT 1"
# Numbers first: sorted together with the answers, these would all be in memory.
NEWEST_FIRST = "SELECT e.id FROM entries e WHERE e.gone > ? AND {where} ORDER BY e.created DESC"
ANSWER = "SELECT digest, value FROM answers WHERE id = ?"


class Lookout:
    """For one thread. `secret` None: there is none, and no entry can be read; without a `cipher`
    none that is encrypted.

    Raises ConfigError for a file that is no store, TierError where it cannot be read.
    """

    def __init__(
        self, path: Path, secret: bytes | None, clock: Clock, cipher: Cipher | None = None
    ) -> None:
        check_store_file(path)
        self.path, self._clock = path, clock
        self._codec = None if secret is None else Codec(secret, NAME, cipher)
        self._aliases = Aliases(cipher)
        try:
            self._database = connect_to_look(path)
            self.empty = self._database.pragma("user_version") != FORMAT
        except apsw.Error as error:
            raise self._failure(error) from error

    def count(self) -> int:
        """Entries, those of another secret too."""
        return 0 if self.empty else int(self._one(COUNT))

    def used_bytes(self) -> int:
        return int(self._one(USED_BYTES))

    def purge_epoch(self) -> int:
        """Of the last purge that is written down here."""
        if self.empty:
            return 0
        try:
            return int(self._one(LATEST) or get_number(self._database, "purge_floor"))
        except apsw.Error as error:
            raise self._failure(error) from error

    def savings(self) -> list[SumRow]:
        """What was saved, as `Sums.read` gives it."""
        try:
            return [] if self.empty else read_savings(self._rows, self._aliases)
        except apsw.Error as error:
            raise self._failure(error) from error

    def verdict(self) -> str:
        """`ok`, or the first thing that SQLite finds wrong with the file, in one line."""
        return " ".join(str(self._one("PRAGMA quick_check(1)")).split())

    def settled(self) -> tuple[str, dict[str, int]]:
        """See `resealing.settled`."""
        if self.empty:
            return "", {}
        try:
            return settled(self._rows)
        except apsw.Error as error:
            raise self._failure(error) from error

    def _rows(self, statement: str) -> list[Any]:
        return self._database.execute(statement).fetchall()

    def is_readable(self) -> bool:
        """Whether the oldest entry was made with our secret and key; True where there is none."""
        if self.empty:
            return True
        try:
            oldest = self._database.execute(OLDEST).fetchone()
        except apsw.Error as error:
            raise self._failure(error) from error
        return oldest is None or self._entry(*oldest) is not None

    def entries(self, selector: Selector, limit: int) -> Iterator[Entry]:
        """The newest first; what is damaged or of another secret is passed over.

        Raises ConfigError where some are encrypted with a key that is not ours.
        """
        if self.empty:
            return
        try:
            check_keys(self._rows, self._aliases, str(self.path))
        except apsw.Error as error:
            raise self._failure(error) from error
        where, values = condition(selector, self._aliases)
        query = NEWEST_FIRST.format(where=where)
        try:
            for (number,) in self._database.execute(
                query, (self._clock.wall(), *values)
            ).fetchall():
                found = self._database.execute(ANSWER, (number,)).fetchone()
                if found is not None and (entry := self._entry(*found)) is not None:
                    yield entry
                    limit -= 1
                if limit <= 0:
                    return
        except apsw.Error as error:
            raise self._failure(error) from error

    def _entry(self, digest: bytes, stored: bytes) -> Entry | None:
        if self._codec is None:
            return None
        try:
            entry = self._codec.decode(Key(digest, digest), stored, rebuild=False)
        except CorruptEntry:
            return None
        localise(entry, self._clock)
        return entry

    def _one(self, statement: str) -> int | str:
        try:
            value: int | str = self._database.execute(statement).get
        except apsw.Error as error:
            raise self._failure(error) from error
        return value

    def _failure(self, error: BaseException) -> TierError:
        return TierError(NAME, f"reading {self.path.name}: {error}")

    def close(self) -> None:
        self._database.close()
