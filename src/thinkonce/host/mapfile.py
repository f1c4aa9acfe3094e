"""One small file beside a store, mapped by every process of the host that uses the store.

    0        8         16       24         32        ROSTER_AT  FLIGHTS_AT  NEWS_AT  SIZE
    | magic  | version | epoch  | sequence | written | roster   | flights   | news   |

All numbers are native: the file never leaves its host. Magic and epoch keep their places in
every layout version, so that processes of two versions still see each other's purges. The file
holds nothing that must survive: if it is not what this version writes, it is rewritten in place
(never truncated: a process that has it mapped would be killed by the operating system). Nothing
guards against others of the same user who cut it short, with `cp` over it say: only its owner may.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from pathlib import Path

from thinkonce.errors import TierError
from thinkonce.host.fork import on_fork
from thinkonce.host.lock import FileLock

__all__ = ("FLIGHTS_SIZE", "ROSTER_SIZE", "SIZE", "HostFile", "host_path")

MAGIC = b"1xthink\n"
VERSION = 4  # 1 had counters between head and flights, 2 no news, 3 no roster
HEAD = struct.Struct("=8sQ")  # magic, version
EPOCH_AT, SEQUENCE_AT, WRITTEN_AT = 16, 24, 32
ROSTER_AT = 64
FLIGHTS_AT = 4096
ROSTER_SIZE = FLIGHTS_AT - ROSTER_AT
FLIGHTS_SIZE = 320 * 1024
NEWS_AT = FLIGHTS_AT + FLIGHTS_SIZE
NEWS_SIZE = 64 * 1024
SIZE = NEWS_AT + NEWS_SIZE  # bytes

# What a miss may lose to a stopped process that holds the lock. A purge waits longer.
BRIEF_SECONDS = 0.1

OPEN_FLAGS = (
    os.O_RDWR
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)  # a planted link must not make us overwrite its target
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOINHERIT", 0)
)


def host_path(store: str | os.PathLike[str]) -> Path:
    """Where the processes that share the store at `store` meet."""
    return Path(f"{os.fspath(store)}.host")


class HostFile:
    """The mapped file. Thread-safe; a forked child goes on using it.

    `epoch` is a one-element view of the purge epoch: `host.epoch[0]` is what every inline hit
    compares. It may be read by anyone at any time, also after `close`. It is written only by
    `raise_epoch`. `flights` and `roster` are other parts, for their modules; they are changed only
    under `lock`, unless these say otherwise. `brief_lock` is the same lock for those who can do
    without. `turn` moves when another process joins the roster. `written` and `news` are
    `tiers.known`'s: a count, and a ring of what was counted last.

    Raises TierError where the file cannot be opened or mapped, or is no ordinary file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.closed = False
        try:
            self._fd = os.open(self.path, OPEN_FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            raise TierError("host", f"opening {self.path}") from error
        try:
            self._take_lock()
            with self.lock:
                self._map = prepare(self._fd)
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise TierError("host", f"mapping {self.path}") from error
        except BaseException:
            os.close(self._fd)
            raise
        whole = memoryview(self._map)
        self.epoch = whole[EPOCH_AT : EPOCH_AT + 8].cast("Q")
        self.sequence = whole[SEQUENCE_AT : SEQUENCE_AT + 8].cast("Q")
        self.roster = whole[ROSTER_AT : ROSTER_AT + ROSTER_SIZE]
        self.turn = self.roster[:8].cast("Q")
        self.flights = whole[FLIGHTS_AT : FLIGHTS_AT + FLIGHTS_SIZE]
        self.written = whole[WRITTEN_AT : WRITTEN_AT + 8].cast("Q")
        self.news = whole[NEWS_AT : NEWS_AT + NEWS_SIZE].cast("Q")
        on_fork(self._reopen)

    def raise_epoch(self, epoch: int) -> int:
        """Set the purge epoch to `epoch` unless it is higher already; return what it is now.

        Raises TierError when the lock cannot be had in time: the purge is then not in effect.
        """
        with self.lock:
            if epoch > self.epoch[0]:
                self.epoch[0] = epoch
            return self.epoch[0]

    def next_sequence(self) -> int:
        """A number never given before on this file. Call it with `lock` held."""
        self.sequence[0] += 1
        return self.sequence[0]

    def close(self) -> None:
        """Let go of the file; what uses the lock raises TierError from now on.

        A view of the epoch that was handed out stays readable, and goes on showing the file's.
        The file itself stays: other processes may have it mapped.
        """
        if self.closed:
            return
        self.closed = True
        self.lock.retire()
        self.brief_lock.retire()
        # Dropped, not released: whoever still holds a view must not crash.
        self.epoch = memoryview(self.epoch.tobytes()).cast("Q")
        self.sequence = self.flights = self.roster = memoryview(b"")
        self.written = self.news = self.turn = memoryview(bytearray(8)).cast("Q")
        del self._map
        os.close(self._fd)

    def _reopen(self) -> None:
        """In a forked child: the mapping is shared as before, but the lock must be our own."""
        if self.closed:
            return
        inherited = self._fd
        try:
            self._fd = reopened(inherited, self.path)
        except OSError:
            self._fd = os.dup(inherited)  # no exclusion against the parent, but no crash
        os.close(inherited)
        self._take_lock()

    def _take_lock(self) -> None:
        self.lock = FileLock(self._fd)
        self.brief_lock = self.lock.within(BRIEF_SECONDS)


def prepare(fd: int) -> mmap.mmap:
    """Map the file behind `fd`, rewritten first if it is not ours. Call it under the lock."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not an ordinary file")
    if hasattr(os, "fchmod") and stat.S_IMODE(status.st_mode) != 0o600:
        os.fchmod(fd, 0o600)
    allocate(fd, status.st_size)
    mapped = mmap.mmap(fd, SIZE)
    if status.st_size == 0:
        HEAD.pack_into(mapped, 0, MAGIC, VERSION)  # the rest is zero
    elif HEAD.unpack_from(mapped) != (MAGIC, VERSION) or status.st_size < SIZE:
        rewrite(mapped)
    return mapped


def allocate(fd: int, size: int) -> None:
    """Give the file its place on the disk, all of it. Raises OSError where there is none.

    A hole that is touched through the mapping while the disk is full kills the process (SIGBUS).
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, SIZE)
        return
    os.lseek(fd, size, os.SEEK_SET)
    missing = bytes(max(SIZE - size, 0))
    while missing:
        missing = missing[os.write(fd, missing) :]


def rewrite(mapped: mmap.mmap) -> None:
    """Empty everything but an epoch that one of our versions wrote."""
    magic, _version = HEAD.unpack_from(mapped)
    kept = EPOCH_AT + 8 if magic == MAGIC else 0
    mapped[kept:] = bytes(SIZE - kept)
    HEAD.pack_into(mapped, 0, MAGIC, VERSION)


def reopened(fd: int, path: Path) -> int:
    """Another open file on what `fd` is open on, even if `path` was replaced since."""
    for name in (f"/proc/self/fd/{fd}", path):
        try:
            # /proc/self/fd is all links: following them is the point here.
            again = os.open(name, OPEN_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue
        if os.path.samestat(os.fstat(again), os.fstat(fd)):
            return again
        os.close(again)
    raise FileNotFoundError(f"{path} is no longer the file that was opened")
