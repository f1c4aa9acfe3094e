"""Purges, numbered and remembered, so that no late write undoes one.

Every request carries the epoch it began under. A purge takes the next epoch and concerns only
entries of an earlier one: whatever was read, called for or queued before it. Whoever holds
entries compares one number, `epoch[0]`, with the one it has caught up with, and asks `since` for
what it missed. Logs are bounded: one that no longer reaches back far enough says None, and the
asker forgets everything that is older than now.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from thinkonce.entry import Entry
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.selector import Purge, Selector

__all__ = ("LocalPurges", "PurgeLog", "PurgeWindow", "concerned")


class PurgeLog(Protocol):
    """Thread-safe. May raise `TierError` where the log lies in a store."""

    @property
    def epoch(self) -> Sequence[int]:
        """One element: the epoch now. The same object for ever, cheap to read at any time."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether `since` would have to read a disk first."""
        ...

    def append(self, selector: Selector) -> tuple[Purge, int]:
        """Record a purge; the second value is how many entries left the log's own store.

        The new epoch is published last: whoever sees it finds the purge in the log.
        """
        ...

    def since(self, epoch: int) -> list[Purge] | None:
        """Purges later than `epoch`, oldest first; None if some of them are forgotten."""
        ...


class PurgeWindow:
    """The latest purges, in memory. Not thread-safe.

    forgotten | known, at most `most`      |
            floor                        latest
    """

    __slots__ = ("_epochs", "_most", "_purges", "floor")

    def __init__(self, floor: int = 0, most: int = 1000) -> None:
        self.floor = floor
        self._most = most
        self._purges: list[Purge] = []
        self._epochs: list[int] = []

    @property
    def latest(self) -> int:
        return self._epochs[-1] if self._epochs else self.floor

    def add(self, purge: Purge) -> None:
        """`purge` is later than all before it."""
        self._purges.append(purge)
        self._epochs.append(purge.epoch)
        if len(self._purges) > 2 * self._most:  # half at a time: amortised constant
            self.floor = self._epochs[-self._most - 1]
            del self._purges[: -self._most], self._epochs[: -self._most]

    def since(self, epoch: int) -> list[Purge] | None:
        if epoch < self.floor:
            return None
        return self._purges[bisect_right(self._epochs, epoch) :]


class LocalPurges:
    """The log of a process that shares its purges with no other."""

    is_behind = False

    def __init__(self, most: int = 1000, epoch: int = 0) -> None:
        self.epoch: list[int] = [epoch]
        self._most, self._window = most, PurgeWindow(epoch, most)
        self._lock = threading.Lock()
        on_fork(self._in_child)

    def append(self, selector: Selector) -> tuple[Purge, int]:
        with self._lock:
            purge = Purge(self.epoch[0] + 1, selector)
            self._window.add(purge)
            self.epoch[0] = purge.epoch
            return purge, 0

    def since(self, epoch: int) -> list[Purge] | None:
        with self._lock:
            return self._window.since(epoch)

    def _in_child(self) -> None:
        """After a fork. Another thread may have been adding a purge: then none is known."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return
        free_after_fork(self._lock)
        self._window = PurgeWindow(self.epoch[0], self._most)


def concerned(entry: Entry, purges: list[Purge] | None) -> bool:
    """Whether one of `purges` (None: unknown ones) means `entry`."""
    return purges is None or any(purge.concerns(entry) for purge in purges)
