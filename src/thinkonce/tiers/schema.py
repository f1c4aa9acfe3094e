"""The SQLite file: its tables, its settings, and how it is opened or refused.

answers   id, digest, value     what a get reads: one index and one row
entries   id, ...               what purges, expiry and eviction look at; small rows
facets    tenant, namespace,    each combination once; entries name it by number
          model, scope
tags      tag, id               so that a purge by tag reads only what it removes
purges    epoch, selector       what was purged when, for those who held entries then
questions partition, row, ...   what entries are found by in other words (`questions`)
meta      name, value           format and the numbers that processes share
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from thinkonce.errors import ConfigError
from thinkonce.tiers.questions import MAKE_QUESTIONS

__all__ = (
    "APPLICATION_ID",
    "FORMAT",
    "at_once",
    "check_file",
    "connect",
    "connect_to_look",
    "get_number",
    "open_file",
    "set_number",
)

log = logging.getLogger("thinkonce.store")

APPLICATION_ID = 0x54684F6E  # "ThOn": how the file is told from anybody else's database
FORMAT = 1
MAGIC = b"SQLite format 3\x00"
APPLICATION_ID_AT = 68  # in the database header

MMAP_BYTES = 1 << 30
JOURNAL_BYTES = 64 * 2**20  # the write-ahead log is cut back to this after a burst
OPENING_PATIENCE_MS = 5000
MAKING_PATIENCE_S = 1.0  # a store that another process makes is unreadable for milliseconds

TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE facets(
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, namespace TEXT NOT NULL, model TEXT NOT NULL, scope TEXT NOT NULL,
    UNIQUE(tenant, namespace, model, scope)
);
CREATE TABLE answers(id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, value BLOB NOT NULL);
CREATE TABLE entries(
    id INTEGER PRIMARY KEY,
    facet INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL, gone REAL NOT NULL,
    density REAL NOT NULL,
    score REAL NOT NULL
);
CREATE INDEX entries_facet ON entries(facet);
CREATE INDEX entries_gone ON entries(gone) WHERE gone < 9e999;
CREATE INDEX entries_score ON entries(score);
CREATE TABLE tags(tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(tag, id)) WITHOUT ROWID;
CREATE INDEX tags_id ON tags(id);
CREATE TABLE holes(id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE purges(epoch INTEGER PRIMARY KEY, at REAL NOT NULL, selector BLOB NOT NULL);
"""


def open_file(path: Path, floor: int) -> apsw.Connection:
    """A connection that writes to the store at `path`, which is created where there is none.

    `floor` is the purge epoch up to which a new store knows nothing. Raises ConfigError for a
    file that is not ours or of a later format, OSError and apsw.Error for what the disk refuses.
    A store of ours that SQLite cannot read is moved aside.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private(path)
    try:
        return patiently_prepared(path, floor)
    except (apsw.CorruptError, apsw.NotADBError):
        if not is_ours(path):
            raise not_ours(path) from None
        move_aside(path)
        make_private(path)
        return prepared(path, floor)


def make_private(path: Path) -> None:
    """Create the file if there is none; SQLite itself would let everybody read it.

    A file that exists is not opened here, nor anywhere but through SQLite: closing it would take
    away the POSIX locks of every connection that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def patiently_prepared(path: Path, floor: int) -> apsw.Connection:
    """`prepared`, but the switch to a write-ahead log waits too: SQLite does not by itself."""
    give_up_at = time.monotonic() + OPENING_PATIENCE_MS / 1000
    while True:
        try:
            return prepared(path, floor)
        except apsw.BusyError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(0.02)


def prepared(path: Path, floor: int) -> apsw.Connection:
    database = connect(path)
    try:
        database.execute("PRAGMA page_size=16384")  # the first three in this order: the file
        database.execute("PRAGMA auto_vacuum=incremental")  # is laid out by them only while it
        database.execute("PRAGMA journal_mode=wal")  # is empty
        database.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES}")
        database.execute("PRAGMA temp_store=memory")
        database.execute("CREATE TEMP TABLE doomed(id INTEGER PRIMARY KEY)")
        check_owner(database, path)
        if database.pragma("user_version") != FORMAT:
            create(database, path, floor)
        database.execute(MAKE_QUESTIONS)  # stores of earlier releases lack it
    except BaseException:
        database.close()
        raise
    return database


def connect(path: Path) -> apsw.Connection:
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    database.set_busy_timeout(OPENING_PATIENCE_MS)
    database.execute("PRAGMA synchronous=normal")
    database.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
    return database


def connect_to_look(path: Path) -> apsw.Connection:
    """A connection that changes nothing, and makes no file: a read-only copy will do.

    Whoever uses a store has its log beside it. Without one, the file alone is the store; the same
    is taken for the truth where a log cannot be used, and lacks then what only the log has.
    """
    if Path(f"{path}-wal").exists():
        with suppress(apsw.Error):
            return looking(str(path), 0)
    return looking(f"{path.absolute().as_uri()}?immutable=1", apsw.SQLITE_OPEN_URI)


def looking(name: str, flags: int) -> apsw.Connection:
    database = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | flags)
    try:
        database.set_busy_timeout(OPENING_PATIENCE_MS)
        database.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opening reads nothing
    except BaseException:
        database.close()
        raise
    return database


def check_file(path: Path) -> None:
    """Raise ConfigError for a file that is somebody else's, before anything is put beside it.

    What is ours, damaged or not, passes; so does an empty file, and none. Raises OSError and
    apsw.Error for a file that cannot be read.
    """
    give_up_at = time.monotonic() + MAKING_PATIENCE_S
    while path.exists() and path.stat().st_size and not is_ours(path):
        try:
            # A store whose making was interrupted: its header says nothing yet.
            check_unmarked(path)
            return
        except (apsw.CorruptError, apsw.NotADBError):
            # Or one that another process makes just now: it is looked at without its locks.
            if not may_be_in_the_making(path) or time.monotonic() >= give_up_at:
                raise not_ours(path) from None
        except ConfigError:
            if not is_ours(path):
                raise
        time.sleep(0.02)


def check_unmarked(path: Path) -> None:
    database = looking(f"{path.absolute().as_uri()}?immutable=1", apsw.SQLITE_OPEN_URI)
    try:
        check_owner(database, path)
    finally:
        database.close()


def not_ours(path: Path) -> ConfigError:
    wants = "a path of its own; this file is not a database of thinkonce"
    return ConfigError("store", str(path), wants)


def check_owner(database: apsw.Connection, path: Path) -> None:
    """Raise ConfigError unless the database is ours, of a format we know, or empty."""
    with database:  # one transaction: between two, another process may make the tables
        mark, written = database.pragma("application_id"), database.pragma("user_version")
        filled = database.execute("SELECT count(*) FROM sqlite_master").get
    if mark == APPLICATION_ID:
        if written > FORMAT:
            raise ConfigError(
                "store",
                str(path),
                f"stores of format {FORMAT} or earlier, and this one has format {written}: "
                "use the release that wrote it, or name another file",
            )
    elif filled:
        raise ConfigError(
            "store", str(path), "a file of its own; this is a database of another program"
        )


def create(database: apsw.Connection, path: Path, floor: int) -> None:
    """Make the tables; an older format is read as empty, because answers can be had again."""
    with at_once(database):
        tables = "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'"
        old = [name for (name,) in database.execute(tables).fetchall()]
        if database.pragma("user_version") == FORMAT:
            return  # another process was first
        if old:
            log.warning("store %s has an older format and is read as empty", path)
        for name in old:
            database.execute(f'DROP TABLE "{name}"')
        database.execute(TABLES)
        set_number(database, "purge_floor", floor)
        set_number(database, "score_floor", 0.0)
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={FORMAT}")
    # The header in the file itself says whose it is, also if the log beside it is lost.
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def at_once(database: apsw.Connection) -> Iterator[None]:
    """A transaction that takes the write lock first, so that it never has to start over."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself rolls back after some failures
            database.execute("ROLLBACK")
        raise


def is_ours(path: Path) -> bool:
    """Whether the header says so: a file without it may be anybody's, and is not touched."""
    header = header_of(path)
    mark = header[APPLICATION_ID_AT : APPLICATION_ID_AT + 4]
    return header.startswith(MAGIC) and mark == APPLICATION_ID.to_bytes(4, "big")


def may_be_in_the_making(path: Path) -> bool:
    header = header_of(path)
    return header.startswith(MAGIC) or not any(header)  # what was not written yet reads as zeros


def header_of(path: Path) -> bytes:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB
    file = apsw.VFSFile("", str(path), [flags, 0])  # SQLite's way, see `make_private`
    try:
        return file.xRead(100, 0)
    finally:
        file.xClose()


def move_aside(path: Path) -> None:
    """Rename a store that cannot be read, so that somebody may look at it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = Path(f"{path}.corrupt-{stamp}")
    serial = 0
    while aside.exists():
        serial += 1
        aside = Path(f"{path}.corrupt-{stamp}-{serial}")
    path.rename(aside)
    for ending in ("-wal", "-shm"):
        companion = Path(f"{path}{ending}")
        if companion.exists():
            companion.rename(f"{aside}{ending}")
    log.error("store %s is corrupt; it was moved to %s and a new one begun", path, aside)


def get_number(database: apsw.Connection, name: str) -> float:
    value: float = database.execute("SELECT value FROM meta WHERE name=?", (name,)).get
    return value


def set_number(database: apsw.Connection, name: str, value: float) -> None:
    database.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, value))
