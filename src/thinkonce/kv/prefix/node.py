"""One block of the prefix tree, in memory."""

from __future__ import annotations

from typing import Generic, TypeVar

from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.eviction import UNUSED
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.stay import NOT_ASKED

__all__ = ("Node",)

State = TypeVar("State")


class Node(Generic[State]):
    """One block in memory. `children` and `pins` count; a node with either of them stays.

    A node that is `doomed` was purged while it was pinned: it is not found any more and goes with
    its last pin. `hits`: times that it was found, the last at `used`.
    """

    __slots__ = (
        *("added", "block", "children", "doomed", "hits", "owner", "parent", "pins"),
        *("rank", "size", "start", "state", "stay", "used"),
    )

    def __init__(
        self,
        block: Block,
        parent: Node[State] | None,
        start: int,
        state: State,
        size: int,
        owner: Owner = NOBODY,
    ) -> None:
        """`start`: tokens before this block; `size`: bytes that it takes."""
        self.block, self.parent, self.start = block, parent, start
        self.state, self.size, self.owner = state, size, owner
        self.children = self.pins = 0
        self.rank, self.stay = UNUSED, NOT_ASKED
        self.added, self.used, self.hits = 0.0, 0.0, 0
        self.doomed = False

    @property
    def id(self) -> bytes:
        return self.block.id

    def raised(self) -> tuple[str, int]:
        """Whose it is and its bytes, for `Raised`."""
        return self.owner.tenant, self.size

    @property
    def evictable(self) -> bool:
        return not self.children and not self.pins
