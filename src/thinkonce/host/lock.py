"""An exclusive lock between the processes of one host, on an open file.

    Linux, macOS   flock: belongs to the open file, so two opens of one path exclude each other
                   even inside one process; the kernel frees it when its owner dies
    Windows        one byte far behind the data, locked through the C runtime

Waiting is bounded: a stopped process that holds the lock costs its peers a delay, not their life.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

from thinkonce.errors import TierError

__all__ = ("FileLock",)

PATIENCE_SECONDS = 2.0  # critical sections take microseconds; longer means a stopped process
FIRST_PAUSE_SECONDS = 0.00002
LONGEST_PAUSE_SECONDS = 0.005

if sys.platform == "win32":
    import msvcrt

    LOCK_BYTE = 1 << 30  # behind all data: a locked range cannot be read by others

    def try_lock(fd: int) -> bool:
        os.lseek(fd, LOCK_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        os.lseek(fd, LOCK_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


class FileLock:
    """Excludes threads of this process and other processes; not re-entrant.

    `with lock:` raises TierError after `patience` seconds without the lock. The file descriptor
    stays the caller's. After a fork the child must make a new one on a descriptor of its own:
    parent and child share the lock of an inherited one.
    """

    __slots__ = ("_fd", "_patience", "_threads")

    def __init__(self, fd: int, patience: float = PATIENCE_SECONDS) -> None:
        self._fd, self._patience = fd, patience
        self._threads = threading.Lock()

    def within(self, patience: float) -> FileLock:
        """The same lock, for those who would rather fail after `patience` seconds."""
        hasty = FileLock(self._fd, patience)
        hasty._threads = self._threads
        return hasty

    def retire(self) -> None:
        """Refuse from now on: the caller is about to close the descriptor.

        Its number may soon be another file's, which nobody must lock by mistake.
        """
        with self._threads:
            self._fd = -1

    def __enter__(self) -> Self:
        if not self._threads.acquire(timeout=self._patience):
            raise TierError("host", f"waiting {self._patience} s for another thread's lock")
        try:
            if self._fd < 0 or not try_lock(self._fd):
                self._wait()
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            unlock(self._fd)
        finally:
            self._threads.release()

    def _wait(self) -> None:
        if self._fd < 0:
            raise TierError("host", "locking a file that has been closed")
        give_up_at = time.monotonic() + self._patience
        pause = FIRST_PAUSE_SECONDS
        while not try_lock(self._fd):
            if time.monotonic() >= give_up_at:
                raise TierError("host", f"waiting {self._patience} s for another process's lock")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
