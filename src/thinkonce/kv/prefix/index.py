"""The tree of prefixes whose attention state is in memory: found, pinned, bounded, forgotten.

    (first parent) ── A ── B ── C        a request whose chunks are A B X finds A B, pins them,
                           └─── D        computes X and adds it below B: A and B lie here once

Blocks are cut at the same places for all, so the tree is a dictionary from id to node; a node
knows its parent. A chunk's chain is a tree of its own, whose last block may be short.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from types import TracebackType
from typing import Generic, TypeVar

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.causes import GoneBy
from thinkonce.kv.prefix.eviction import LeafLru, TreePolicy
from thinkonce.kv.prefix.ghosts import Ghosts
from thinkonce.kv.prefix.node import Node
from thinkonce.kv.prefix.owner import NOBODY, Owner
from thinkonce.kv.prefix.stay import Raised, Stay, stay_on
from thinkonce.kv.prefix.terms import USUAL, Terms

__all__ = ("Hold", "IndexStats", "PrefixIndex")

State = TypeVar("State")

# Rows of the heap that nobody needs any more are swept out beyond this many, and 4 a node.
_SPARE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class IndexStats:
    """`bytes` of `max_bytes` are taken by `blocks`, of `tokens` together; the rest counts since the
    beginning.

    `collisions`: blocks found by their hash whose tokens were other ones. `refused`: blocks that
    found no room, because requests under way hold it. `expired` and `purged` ones are not among
    the `evicted`.
    """

    blocks: int
    tokens: int
    bytes: int
    max_bytes: int
    added: int
    evicted: int
    refused: int
    collisions: int
    expired: int
    purged: int


class PrefixIndex(Generic[State]):
    """Holds the state of prefixes within `max_bytes`. All methods are thread-safe.

    `ghosts` is told of every block that comes and leaves.
    """

    def __init__(
        self,
        max_bytes: int,
        policy: TreePolicy | None = None,
        clock: Clock = SYSTEM,
        ghosts: Ghosts | None = None,
    ) -> None:
        self._max_bytes, self._clock, self.ghosts = max_bytes, clock, ghosts
        self._policy = policy or LeafLru()
        self._nodes: dict[bytes, Node[State]] = {}
        self._rows: list[tuple[tuple[float, ...], int, Node[State]]] = []
        self._serials = count()  # of equal keys the first row decides; nodes have no order
        self._turns = self._policy.turns
        self._bytes = self._pinned_bytes = self._tokens = 0
        self._added = self._evicted = self._refused = self._collisions = 0
        self._expired = self._purged = 0
        self._expiries: list[tuple[float, int, int, Node[State]]] = []
        self._raised: Raised[str] = Raised()
        self._lock = threading.Lock()

    def hold(
        self,
        blocks: Iterable[Block],
        owner: Owner = NOBODY,
        terms: Terms = USUAL,
        owners: Sequence[Owner] = (),
    ) -> Hold[State]:
        """Find the longest known beginning of `blocks` and pin it until the hold is released.

        What is found and what is added is `owner`'s, and stays on these `terms` at least. What is
        found bears the marks of `owners` from now on, which are as many as blocks, or none.
        """
        hold = Hold(self, owner, terms)
        with self._lock:
            self._expire()
            for place, block in enumerate(blocks):
                node = self._nodes.get(block.id)
                if node is None or node.doomed or not self._is(node, block):
                    break
                self._pin(node)
                node.hits += 1
                if owners:
                    node.owner = node.owner.with_documents(owners[place].documents)
                hold.nodes.append(node)
        return hold

    def known(self, blocks: Iterable[Block]) -> int:
        """How many of `blocks`, from the first on, are here now. Pins and counts nothing."""
        found = 0
        with self._lock:
            self._expire()
            for block in blocks:
                node = self._nodes.get(block.id)
                if node is None or node.doomed or node.block != block:
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
                    self._evicted += 1
                    self._forget(self._next_leaf(), "evicted")
            return fits

    def purge(self, gone: Callable[[Owner], bool]) -> list[bytes]:
        """Forget what belongs to those owners; the names of those blocks. What requests under way
        stand on is not found any more, and goes with them.
        """
        with self._lock:
            chosen = [n for n in self._nodes.values() if not n.doomed and gone(n.owner)]
            for node in sorted(chosen, key=lambda node: -node.start):
                node.doomed = True
                self._purged += 1
                if node.evictable:
                    self._forget(node, "purged")
            if self.ghosts is not None:
                self.ghosts.purge(gone)
            return [node.id for node in chosen]

    def nodes(self) -> list[Node[State]]:
        """All that are here now, to be looked at only."""
        with self._lock:
            self._expire()
            return [node for node in self._nodes.values() if not node.doomed]

    def stats(self) -> IndexStats:
        with self._lock:
            self._expire()
            return IndexStats(
                blocks=len(self._nodes),
                tokens=self._tokens,
                bytes=self._bytes,
                max_bytes=self._max_bytes,
                added=self._added,
                evicted=self._evicted,
                refused=self._refused,
                collisions=self._collisions,
                expired=self._expired,
                purged=self._purged,
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

    def _extend(
        self, hold: Hold[State], block: Block, state: State, size: int, owner: Owner
    ) -> bool:
        with self._lock:
            parent = hold.nodes[-1] if hold.nodes else None
            if parent is not None and parent.doomed:
                return False
            if (node := self._nodes.get(block.id)) is not None:
                if node.doomed or not self._is(node, block):
                    return False
                node.owner = node.owner.with_documents(owner.documents)
            elif not self._make_room(size):
                self._refused += 1
                until = stay_on(hold.terms, self._clock.monotonic()).expires
                self._tell_gone(block, owner, "no_room", until)
                return False
            else:
                node = self._add(block, parent, state, size, owner)
            self._pin(node)
            hold.nodes.append(node)
            return True

    def _release(self, hold: Hold[State]) -> None:
        with self._lock:
            # Here and not when they are found: until now they were pinned, whatever their rank.
            now = self._clock.monotonic()
            self._policy.touch(hold.nodes, now)
            stay = stay_on(hold.terms, now)
            for node in hold.nodes:
                node.used = now
                self._agree(node, stay)
            while hold.nodes:
                node = hold.nodes.pop()
                node.pins -= 1
                if not node.pins:
                    self._pinned_bytes -= node.size
                if node.doomed and node.evictable:
                    self._forget(node, "purged")
                else:
                    self._list_leaf(node)
            if self._policy.turns != self._turns:
                self._turns = self._policy.turns
                self._list_anew()

    # -- under the lock ------------------------------------------------------------------------

    def _is(self, node: Node[State], block: Block) -> bool:
        same = node.block.tokens == block.tokens and node.block.parent == block.parent
        self._collisions += not same
        return same

    def _pin(self, node: Node[State]) -> None:
        if not node.pins:
            self._pinned_bytes += node.size
        node.pins += 1

    def _agree(self, node: Node[State], asked: Stay) -> None:
        """It stays as long as anybody asked for."""
        before = node.stay
        if before.covers(asked):
            return
        block = node.raised
        weight = self._raised.allowed(before.weight, asked.weight, block, self._max_bytes)
        node.stay = after = before.or_longer(Stay(asked.expires, weight))
        self._raised.changed(before.weight, after.weight, block)
        if before.expires < after.expires != inf:
            self._expire_later(node)

    def _expire(self) -> None:
        """Forget what nobody used for as long as it was to live. A request uses its whole path,
        so a parent never expires before its child.
        """
        now = self._clock.monotonic()
        while self._expiries and self._expiries[0][0] <= now:
            at, _, _, node = heappop(self._expiries)
            is_there = self._nodes.get(node.block.id) is node
            # What is pinned or has children is listed anew when it is released, or outlived.
            if is_there and node.stay.expires == at and node.evictable:
                self._expired += 1
                self._forget(node, "expired")

    def _expire_later(self, node: Node[State]) -> None:
        heappush(self._expiries, (node.stay.expires, -node.start, next(self._serials), node))
        if len(self._expiries) > 4 * len(self._nodes) + _SPARE_ROWS:
            living = [n for n in self._nodes.values() if -inf < n.stay.expires < inf]
            self._expiries = [(n.stay.expires, -n.start, next(self._serials), n) for n in living]
            heapify(self._expiries)

    def _add(
        self,
        block: Block,
        parent: Node[State] | None,
        state: State,
        size: int,
        owner: Owner,
    ) -> Node[State]:
        start = 0 if parent is None else parent.start + parent.block.length
        node = Node(block, parent, start, state, size, owner)
        node.added = node.used = self._clock.monotonic()
        if parent is not None:
            parent.children += 1
        self._nodes[block.id] = node
        self._bytes += size
        self._tokens += block.length
        self._added += 1
        if self.ghosts is not None:
            is_first = parent is None or parent.owner.tenant != owner.tenant
            self.ghosts.here(block, owner, is_first=is_first)
        return node

    def _make_room(self, size: int) -> bool:
        """Forget leaves until `size` bytes are free; False, and nothing forgotten, if it cannot
        be. What is pinned has pinned parents alone, so all that is not pinned can go.
        """
        if self._pinned_bytes + size > self._max_bytes:
            return False
        while self._bytes + size > self._max_bytes:
            self._evicted += 1
            self._forget(self._next_leaf(), "evicted")
        return True

    def _next_leaf(self) -> Node[State]:
        while True:
            key, _, node = heappop(self._rows)
            if self._nodes.get(node.block.id) is not node or not node.evictable:
                continue  # it gets a new row when it becomes a leaf again
            if self._key(node) == key:
                return node
            self._list_leaf(node)

    def _key(self, node: Node[State]) -> tuple[float, ...]:
        return (node.stay.weight, *self._policy.key(node))

    def _forget(self, node: Node[State], cause: GoneBy) -> None:
        del self._nodes[node.block.id]
        del node.state  # rows in the heaps may hold the node for long
        self._tell_gone(node.block, node.owner, cause, node.stay.expires)
        self._bytes -= node.size
        self._tokens -= node.block.length
        self._raised.changed(node.stay.weight, 0, node.raised)
        if (parent := node.parent) is not None:
            parent.children -= 1
            self._list_leaf(parent)

    def _tell_gone(self, block: Block, owner: Owner, cause: GoneBy, until: float) -> None:
        if self.ghosts is not None:
            policy = self._policy.name if cause == "evicted" else ""
            self.ghosts.gone(block, owner, cause, policy, until=until)

    def _list_leaf(self, node: Node[State]) -> None:
        if not node.evictable:
            return
        heappush(self._rows, (self._key(node), next(self._serials), node))
        if len(self._rows) > 4 * len(self._nodes) + _SPARE_ROWS:
            self._list_anew()

    def _list_anew(self) -> None:
        leaves = [node for node in self._nodes.values() if node.evictable]
        self._rows = [(self._key(n), next(self._serials), n) for n in leaves]
        heapify(self._rows)


class Hold(Generic[State]):
    """A path that stays while a request needs it. Not thread-safe; a context manager.

    `nodes` are the blocks found, then those added, from the prompt's beginning on.
    """

    def __init__(
        self, index: PrefixIndex[State], owner: Owner = NOBODY, terms: Terms = USUAL
    ) -> None:
        self._index, self.owner, self.terms = index, owner, terms
        self.nodes: list[Node[State]] = []

    def extend(self, block: Block, state: State, size: int, owner: Owner | None = None) -> bool:
        """Keep the block that follows, and hold it too. False where it found no room: then
        nothing that follows can be kept either. A block known by now is not kept twice. `owner`:
        where it is not the hold's.
        """
        return self._index._extend(self, block, state, size, owner or self.owner)

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
