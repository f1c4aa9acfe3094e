"""What every eviction policy promises, and how they are found by name.

A policy sees only unpinned entries. The memory tier calls it under its lock, except that a hit
answered inline notes itself, by the policy's `note`, without any lock:

    Note.COUNT    entry.hits += 1; entry.floor = policy.floor      (cost)
    Note.BIT      entry.hits = 1, or up to 3                        (sieve, s3fifo)
    Note.BUFFER   the entry joins a bounded buffer, drained into `hit` at the next write (lru, arc)

Races may lose a note: harmless, by design.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Protocol

from thinkonce.entry import Entry
from thinkonce.errors import ConfigError

__all__ = ("POLICIES", "Limits", "Note", "Policy", "make_policy", "register")


class Note(Enum):
    """How a hit tells the policy about itself."""

    COUNT = "count"
    BIT = "bit"
    BUFFER = "buffer"


class Limits:
    """Bounds a policy works under; shared with the tier, which may change them while running.

    None means no bound of that kind; at least one is set. Policies that divide their space
    (s3fifo, arc) count bytes where `max_bytes` binds and entries otherwise.
    """

    __slots__ = ("max_bytes", "max_entries")

    def __init__(self, max_entries: int | None, max_bytes: int | None) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes


class Policy(Protocol):
    """Orders entries by how little would be lost without them.

    `insert` is told of every new unpinned entry, and `remove` of every one that leaves for
    another reason than `evict`. After a replacement the old entry is removed, then the new one
    inserted. Amortised O(1), or O(log n) where the paper says so.
    """

    name: ClassVar[str]
    note: ClassVar[Note]
    floor: float  # only the cost policy moves it

    def __init__(self, limits: Limits) -> None: ...

    def __len__(self) -> int:
        """Entries held; ghosts do not count."""
        ...

    def insert(self, entry: Entry) -> None: ...

    def hit(self, entry: Entry) -> None:
        """Note a hit under the lock. An entry no longer held is ignored."""
        ...

    def remove(self, entry: Entry) -> None: ...

    def evict(self) -> Entry | None:
        """Choose the next victim, forget it (a ghost may stay) and return it; None when empty.

        The newest entry may be the victim: that is how admission is refused.
        """
        ...

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        ...


POLICIES: dict[str, Callable[[Limits], Policy]] = {}


def register(policy: type[Policy]) -> type[Policy]:
    """Class decorator: makes a policy available under its name."""
    POLICIES[policy.name] = policy
    return policy


def make_policy(name: str, limits: Limits) -> Policy:
    """The policy called `name`. Raises ConfigError for an unknown one."""
    try:
        return POLICIES[name](limits)
    except KeyError:
        raise ConfigError("policy", name, " | ".join(sorted(POLICIES))) from None
