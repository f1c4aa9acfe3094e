"""Which block of the prefix tree is forgotten first.

Only leaves may go: a block is of no use without all blocks before it. A policy orders them; the
index keeps them in a heap by `key` and asks again when one comes up, so a key may rise at any
time and costs nothing until then. A new policy is a new file under `policies/` with a class of
this shape, its place in `choice.py`, and its name and a sentence in the setting (`settings/kv.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Protocol, Self

__all__ = ("UNUSED", "LeafLru", "Ranked", "Room", "TreePolicy")

UNUSED = -inf
"""The rank of a block that no request has used yet."""
_GONE = 4  # blocks that are gone and remembered, for each that fits


@dataclass(frozen=True, slots=True)
class Room:
    """What a policy has to do with: `blocks` fit. `within`: tokens that can be read within the
    target that prompts have, asked at each use; 0: they have none.
    """

    blocks: int
    within: Callable[[], float] = lambda: 0.0

    @property
    def remembered(self) -> int:
        """Blocks of whose past a policy may know, those in memory among them."""
        return (1 + _GONE) * self.blocks


class Ranked(Protocol):
    """What a policy sees of a block. `start` is the number of tokens before it, `rank` the policy's
    own number, `UNUSED` before the first `touch`.
    """

    rank: float

    @property
    def id(self) -> bytes: ...

    @property
    def start(self) -> int: ...


class TreePolicy(Protocol):
    """Called under the index's lock."""

    name: ClassVar[str]

    @property
    def turns(self) -> int:
        """Counts up when keys may have fallen: the index then asks for those of all leaves."""
        ...

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        """A request used `path`, from the root on; `now` in seconds of a monotonic clock."""
        ...

    def key(self, block: Ranked) -> tuple[float, ...]:
        """The leaf with the smallest key goes first."""
        ...


class LeafLru:
    """The leaf that nobody used for the longest goes first, of equals the deepest.

    A request uses its whole path, so a parent is never older than its child.
    """

    name: ClassVar[str] = "lru"

    @classmethod
    def of(cls, room: Room) -> Self:
        return cls()

    @property
    def turns(self) -> int:
        return 0

    def touch(self, path: Sequence[Ranked], now: float) -> None:
        for block in path:
            block.rank = now

    def key(self, block: Ranked) -> tuple[float, ...]:
        return (block.rank, -block.start)
