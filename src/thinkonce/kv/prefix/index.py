"""The tree of prefixes whose attention state is in memory: found, pinned, bounded, forgotten.

    (first parent) ── A ── B ── C        a request whose chunks are A B X finds A B, pins them,
                           └─── D        computes X and adds it below B: A and B lie here once

Blocks are of one size, so the tree is a dictionary from id to node; a node knows its parent.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from types import TracebackType
from typing import Generic, TypeVar

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.eviction import LeafLru, TreePolicy

__all__ = ("Hold", "IndexStats", "Node", "PrefixIndex")

State = TypeVar("State")

# Rows of the heap that nobody needs any more are swept out beyond this many, and 4 a node.
_SPARE_ROWS = 1000


class Node(Generic[State]):
    """One block in memory. `children` and `pins` count; a node with either of them stays."""

    __slots__ = ("block", "children", "parent", "pins", "rank", "size", "start", "state")

    def __init__(
        self, block: Block, parent: Node[State] | None, start: int, state: State, size: int
    ) -> None:
        """`start`: tokens before this block; `size`: bytes that it takes."""
        self.block, self.parent, self.start = block, parent, start
        self.state, self.size = state, size
        self.children = self.pins = 0
        self.rank = 0.0

    @property
    def id(self) -> bytes:
        return self.block.id

    @property
    def evictable(self) -> bool:
        return not self.children and not self.pins


@dataclass(frozen=True, slots=True)
class IndexStats:
    """`bytes` of `max_bytes` are taken by `blocks`; the rest counts since the beginning.

    `collisions`: blocks found by their hash whose tokens were other ones. `refused`: blocks that
    found no room, because requests under way hold it.
    """

    blocks: int
    bytes: int
    max_bytes: int
    added: int
    evicted: int
    refused: int
    collisions: int


class PrefixIndex(Generic[State]):
    """Holds the state of prefixes within `max_bytes`. All methods are thread-safe."""

    def __init__(
        self, max_bytes: int, policy: TreePolicy | None = None, clock: Clock = SYSTEM
    ) -> None:
        self._max_bytes, self._clock = max_bytes, clock
        self._policy = policy or LeafLru()
        self._nodes: dict[bytes, Node[State]] = {}
        self._rows: list[tuple[tuple[float, ...], int, Node[State]]] = []
        self._serials = count()  # of equal keys the first row decides; nodes have no order
        self._bytes = self._pinned_bytes = 0
        self._added = self._evicted = self._refused = self._collisions = 0
        self._lock = threading.Lock()

    def hold(self, blocks: Iterable[Block]) -> Hold[State]:
        """Find the longest known beginning of `blocks` and pin it until the hold is released."""
        hold = Hold(self)
        with self._lock:
            for block in blocks:
                node = self._nodes.get(block.id)
                if node is None or not self._is(node, block):
                    break
                self._pin(node)
                hold.nodes.append(node)
        return hold

    def known(self, blocks: Iterable[Block]) -> int:
        """How many of `blocks`, from the first on, are here now. Pins and counts nothing."""
        found = 0
        with self._lock:
            for block in blocks:
                node = self._nodes.get(block.id)
                if node is None or node.block != block:
                    break
                found += 1
        return found

    def resize(self, max_bytes: int, *, at_once: bool = False) -> bool:
        """Change the budget, and forget what is beyond it. Where requests under way hold more:
        False, and nothing is done, or with `at_once` all that they do not hold is forgotten.
        """
        with self._lock:
            fits = self._pinned_bytes <= max_bytes
            if fits or at_once:
                self._max_bytes = max_bytes
                while self._bytes > max(max_bytes, self._pinned_bytes):
                    self._forget(self._next_leaf())
            return fits

    def stats(self) -> IndexStats:
        with self._lock:
            return IndexStats(
                blocks=len(self._nodes),
                bytes=self._bytes,
                max_bytes=self._max_bytes,
                added=self._added,
                evicted=self._evicted,
                refused=self._refused,
                collisions=self._collisions,
            )

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        with self._lock:
            nodes = self._nodes.values()
            assert sum(node.size for node in nodes) == self._bytes <= self._max_bytes
            assert sum(node.size for node in nodes if node.pins) == self._pinned_bytes
            below = Counter(id(node.parent) for node in nodes)
            for node in nodes:
                assert below[id(node)] == node.children, "a child that is not counted"
                parent = node.parent
                assert parent is None or self._nodes[parent.block.id] is parent, "an orphan"
                assert parent is None or parent.pins >= bool(node.pins), "pinned below unpinned"
            listed = {id(node) for _, _, node in self._rows}
            assert {id(node) for node in nodes if node.evictable} <= listed, "a leaf nobody finds"

    # -- for `Hold` ----------------------------------------------------------------------------

    def _extend(self, hold: Hold[State], block: Block, state: State, size: int) -> bool:
        with self._lock:
            parent = hold.nodes[-1] if hold.nodes else None
            if (node := self._nodes.get(block.id)) is not None:
                if not self._is(node, block):
                    return False
            elif not self._make_room(size):
                self._refused += 1
                return False
            else:
                node = self._add(block, parent, state, size)
            self._pin(node)
            hold.nodes.append(node)
            return True

    def _release(self, hold: Hold[State]) -> None:
        with self._lock:
            # Here and not when they are found: until now they were pinned, whatever their rank.
            self._policy.touch(hold.nodes, self._clock.monotonic())
            while hold.nodes:
                node = hold.nodes.pop()
                node.pins -= 1
                if not node.pins:
                    self._pinned_bytes -= node.size
                self._list_leaf(node)

    # -- under the lock ------------------------------------------------------------------------

    def _is(self, node: Node[State], block: Block) -> bool:
        same = node.block.tokens == block.tokens and node.block.parent == block.parent
        self._collisions += not same
        return same

    def _pin(self, node: Node[State]) -> None:
        if not node.pins:
            self._pinned_bytes += node.size
        node.pins += 1

    def _add(
        self, block: Block, parent: Node[State] | None, state: State, size: int
    ) -> Node[State]:
        start = 0 if parent is None else parent.start + len(parent.block.tokens) // 4
        node = Node(block, parent, start, state, size)
        if parent is not None:
            parent.children += 1
        self._nodes[block.id] = node
        self._bytes += size
        self._added += 1
        return node

    def _make_room(self, size: int) -> bool:
        """Forget leaves until `size` bytes are free; False, and nothing forgotten, if it cannot
        be. What is pinned has pinned parents alone, so all that is not pinned can go.
        """
        if self._pinned_bytes + size > self._max_bytes:
            return False
        while self._bytes + size > self._max_bytes:
            self._forget(self._next_leaf())
        return True

    def _next_leaf(self) -> Node[State]:
        while True:
            key, _, node = heappop(self._rows)
            if self._nodes.get(node.block.id) is not node or not node.evictable:
                continue  # it gets a new row when it becomes a leaf again
            if self._policy.key(node) == key:
                return node
            self._list_leaf(node)

    def _forget(self, node: Node[State]) -> None:
        del self._nodes[node.block.id]
        self._bytes -= node.size
        self._evicted += 1
        if (parent := node.parent) is not None:
            parent.children -= 1
            self._list_leaf(parent)

    def _list_leaf(self, node: Node[State]) -> None:
        if not node.evictable:
            return
        heappush(self._rows, (self._policy.key(node), next(self._serials), node))
        if len(self._rows) > 4 * len(self._nodes) + _SPARE_ROWS:
            leaves = [node for node in self._nodes.values() if node.evictable]
            self._rows = [(self._policy.key(n), next(self._serials), n) for n in leaves]
            heapify(self._rows)


class Hold(Generic[State]):
    """A path that stays while a request needs it. Not thread-safe; a context manager.

    `nodes` are the blocks found, then those added, from the prompt's beginning on.
    """

    def __init__(self, index: PrefixIndex[State]) -> None:
        self._index = index
        self.nodes: list[Node[State]] = []

    def extend(self, block: Block, state: State, size: int) -> bool:
        """Keep the block that follows, and hold it too. False where it found no room: then
        nothing that follows can be kept either. A block known by now is not kept twice.
        """
        return self._index._extend(self, block, state, size)

    def release(self) -> None:
        """Idempotent. From now on these blocks may be forgotten."""
        self._index._release(self)

    def __enter__(self) -> Hold[State]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
