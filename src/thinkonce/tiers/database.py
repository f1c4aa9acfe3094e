"""One SQLite file as this process uses it: a connection a thread to read, one to write.

Readers never wait for the writer: they see the last commit. Before a fork every connection is
closed, and parent and child open their own again when they next need one, because SQLite's locks
belong to a process. A file that was replaced or found corrupt is opened anew by whoever writes.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw

from thinkonce.errors import ConfigError, TierError
from thinkonce.host.mapfile import HostFile
from thinkonce.tiers.schema import at_once, connect, move_aside, open_file

__all__ = ("LONGEST_TURN", "Database")

log = logging.getLogger("thinkonce.store")

READING_PATIENCE_MS = 100  # readers of a write-ahead log wait only for recovery and the like
LONGEST_TURN = 30.0  # seconds; a thread that waits for another one of ours is not stuck
DAMAGED = (apsw.CorruptError, apsw.NotADBError)


class Reader:
    """One thread's connection. The lock is for closing it from elsewhere, before a fork."""

    __slots__ = ("__weakref__", "connection", "cursor", "generation", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: apsw.Connection | None = None
        self.cursor: apsw.Cursor | None = None
        self.generation = -1

    def open(self, path: Path, generation: int) -> apsw.Cursor:
        self.close()
        self.connection = connect(path)
        self.connection.set_busy_timeout(READING_PATIENCE_MS)
        self.connection.execute("PRAGMA query_only=1")
        self.cursor = self.connection.cursor()
        self.generation = generation
        return self.cursor

    def close(self, checkpoint: bool = True) -> None:
        connection, self.connection, self.cursor = self.connection, None, None
        self.generation = -1
        if connection is not None:
            close(connection, checkpoint)


class Database:
    """Thread-safe. Reading and writing raise TierError; opening raises what `open_file` does.

    `host` stays its owner's to close.
    """

    def __init__(self, path: Path, name: str, host: HostFile) -> None:
        self.path, self.name, self.host = path, name, host
        # Called when a file that somebody removed was begun anew: what lay beside it is gone too.
        self.when_gone: Callable[[], None] | None = None
        self.closed = False
        self._connection: apsw.Connection | None = open_file(path, host.epoch[0])
        self._identity = identity(path)
        self._generation = 0
        self._damaged = False
        self._writing = threading.Lock()
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._registry = threading.Lock()
        self._mine = threading.local()
        _databases.add(self)

    # -- reading -----------------------------------------------------------------------

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The value of the only row and column that `statement` gives, or None."""
        try:
            with (reader := self._reader()).lock:
                return self._cursor(reader).execute(statement, values).get
        except (apsw.Error, OSError) as error:
            raise self.failure("reading", error) from error

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            with (reader := self._reader()).lock:
                return self._cursor(reader).execute(statement, values).fetchall()
        except (apsw.Error, OSError) as error:
            raise self.failure("reading", error) from error

    def _reader(self) -> Reader:
        try:
            return self._mine.reader  # type: ignore[no-any-return]
        except AttributeError:
            return self._new_reader()

    def _cursor(self, reader: Reader) -> apsw.Cursor:
        cursor = reader.cursor
        if cursor is None or reader.generation != self._generation:
            if self.closed:
                raise TierError(self.name, "reading a store that was closed")
            return reader.open(self.path, self._generation)
        return cursor

    def _new_reader(self) -> Reader:
        reader = Reader()
        with self._registry:
            self._readers.add(reader)
        self._mine.reader = reader
        return reader

    # -- writing -----------------------------------------------------------------------

    @contextmanager
    def writing(self, patience: float, turn: float = LONGEST_TURN) -> Iterator[apsw.Connection]:
        """A transaction that holds the write lock; committed at the end of the block.

        Waits up to `turn` seconds for other threads, then up to `patience` for other processes.
        """
        if not self._writing.acquire(timeout=turn):
            raise TierError(self.name, f"waiting {turn:.2f} s for another thread's write")
        try:
            connection = self._writable()
            connection.set_busy_timeout(int(patience * 1000))
            with at_once(connection):
                yield connection
        except (apsw.Error, OSError) as error:
            raise self.failure("writing", error) from error
        finally:
            self._writing.release()

    def rewrite(self) -> bool:
        """Write the whole file anew, without free pages, and cut its log to nothing.

        False if a reader kept the log. Other processes cannot write meanwhile. Raises TierError.
        """
        if not self._writing.acquire(timeout=LONGEST_TURN):
            raise TierError(self.name, "waiting for another thread's write")
        try:
            self._writable()
            # A connection of its own: its temporary file lies on the disk, not in memory.
            connection = connect(self.path)
            try:
                connection.execute("VACUUM")
                busy, _, _ = (
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() or (1,) * 3
                )
                return not busy
            finally:
                close(connection, checkpoint=False)
        except (apsw.Error, OSError) as error:
            raise self.failure("rewriting", error) from error
        finally:
            self._writing.release()

    def _writable(self) -> apsw.Connection:
        if self.closed:
            raise TierError(self.name, "writing to a store that was closed")
        if self._damaged:
            self._replace()
        elif self._connection is None or identity(self.path) != self._identity:
            self._reopen()
        assert self._connection is not None
        return self._connection

    def _replace(self) -> None:
        """Move the corrupt file aside, unless another process has done so."""
        self._drop_connection()
        with self.host.lock:
            if self.path.exists() and identity(self.path) == self._identity:
                move_aside(self.path)
        self._reopen()

    def _reopen(self) -> None:
        self._drop_connection()
        gone = not self.path.exists() and not self._damaged
        # What was purged before a new file began is not in its log.
        try:
            self._connection = open_file(self.path, self.host.epoch[0])
        except ConfigError as error:
            raise TierError(self.name, "opening the file that took its place") from error
        self._identity = identity(self.path)
        self._damaged = False
        self._generation += 1
        if gone:
            log.warning("store %s was gone; a new one is begun", self.path)
            if self.when_gone is not None:
                self.when_gone()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection, checkpoint=False)

    def failure(self, doing: str, error: BaseException) -> TierError:
        if isinstance(error, DAMAGED):
            self._damaged = True
        return TierError(self.name, f"{doing} {self.path.name}: {error}")

    @property
    def generation(self) -> int:
        """Another number for each file that this was."""
        return self._generation

    @property
    def damaged(self) -> bool:
        """Whether the next write will begin a new file."""
        return self._damaged

    # -- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection; later calls raise TierError. Safe to call twice."""
        with self._writing, self._registry:
            if self.closed:
                return
            self.closed = True
            _databases.discard(self)
            for reader in list(self._readers):
                with reader.lock:
                    reader.close()
            if self._connection is not None:
                close(self._connection, checkpoint=True)
                self._connection = None

    def hold(self, stack: ExitStack) -> None:
        """Close all connections and keep them closed until `stack` is left: a fork is near."""
        stack.enter_context(self._writing)
        stack.enter_context(self._registry)
        for reader in list(self._readers):
            stack.enter_context(reader.lock)
            reader.close(checkpoint=False)
        self._drop_connection()


def identity(path: Path) -> tuple[int, int]:
    """What tells this file from another under the same name; (0, 0) where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


def close(connection: apsw.Connection, checkpoint: bool) -> None:
    """Close, and where asked let the last one out bring the log into the file."""
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not checkpoint))
        connection.close(force=True)
    except apsw.Error:
        pass  # nothing of value is in a connection


# -- forks ---------------------------------------------------------------------------------

_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[ExitStack] = []  # one a fork under way


def _before_fork() -> None:
    stack = ExitStack()
    for database in list(_databases):
        database.hold(stack)
    _held.append(stack)


def _after_fork() -> None:
    _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
