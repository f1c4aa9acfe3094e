"""What is remembered of blocks that are gone, and which blocks follow which: for explaining.

    names     the last `most` blocks that left, with what took them
    tokens    of blocks in memory (theirs anyway), and within `max_bytes` of those that made room,
              and of the last, shorter pieces of prompts

Tokens are as sensitive as the text. They are in memory alone and never written; a purge takes
them; those of blocks that were to live for a time are not kept beyond it.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from math import inf
from typing import TypeVar

from thinkonce.clock import SYSTEM, Clock
from thinkonce.kv.prefix.blocks import Block
from thinkonce.kv.prefix.causes import Gone, GoneBy
from thinkonce.kv.prefix.owner import Owner

__all__ = ("MOST_BYTES", "MOST_GHOSTS", "MOST_OWNERS", "Ghosts", "Known")

MOST_GHOSTS = 65_536
"""Blocks that are gone and remembered, and owners of those that were purged, at most."""
MOST_BYTES = 16 * 1024 * 1024
"""Of tokens of blocks that are gone. Of whoever has most the oldest go first."""
MOST_OWNERS = 8
"""Of a tenant's and of all others', whose names are tried for a text: the latest that had its
beginning.
"""

_EACH = 256  # bytes that one takes besides its tokens, about

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Known:
    """A block, or the end of a prompt: less than a block, of which no state is kept."""

    block: Block
    owner: Owner
    is_tail: bool = False

    @property
    def size(self) -> int:
        return len(self.block.tokens) + _EACH


class Ghosts:
    """Thread-safe. Whoever asks names the owner: of another one's tokens nothing is given."""

    def __init__(
        self, most: int = MOST_GHOSTS, clock: Clock = SYSTEM, max_bytes: int = MOST_BYTES
    ) -> None:
        self._most, self._clock, self._max_bytes = most, clock, max_bytes
        self._gone: OrderedDict[bytes, Gone] = OrderedDict()
        self._eras: OrderedDict[Owner, str] = OrderedDict()
        self._began: OrderedDict[tuple[bytes, Owner], None] = OrderedDict()
        self._owners: dict[bytes, dict[Owner, None]] = {}  # by digest of a first block's tokens
        self._here: set[bytes] = set()
        self._below: dict[bytes, dict[bytes, Known]] = {}  # by parent, in the order they came
        self._kept: dict[str, OrderedDict[bytes, Known]] = {}  # those not in memory, by tenant
        self._bytes: Counter[str] = Counter()
        self._total = 0
        self._lock = threading.Lock()

    # -- what happens ----------------------------------------------------------------------------

    def here(self, block: Block, owner: Owner, *, is_first: bool = False) -> None:
        """That block is in memory from now on; `is_first`: prompts begin with it,
        or what of them is its owner's.
        """
        with self._lock:
            self._drop(block.id, owner.tenant)
            self._here.add(block.id)
            self._list(Known(block, owner))
            if is_first:
                self._begin(_digest(block.tokens), owner)

    def gone(
        self, block: Block, owner: Owner, cause: GoneBy, policy: str = "", *, until: float = inf
    ) -> None:
        """That block left memory just now, or found no room; `until`: what its life was to be,
        in seconds of the clock.
        """
        now = self._clock.monotonic()
        with self._lock:
            at = min(until, now) if cause == "expired" else now
            _put(self._gone, block.id, Gone(cause, at, policy), self._most)
            self._here.discard(block.id)
            self._unlist(block)
            if cause == "purged":
                _put(self._eras, replace(owner, era=""), owner.era, self._most)
            elif until == inf:
                self._keep(Known(block, owner))

    def ended(self, tail: Block, owner: Owner) -> None:
        """A prompt ended with these tokens, less than a block."""
        with self._lock:
            self._drop(tail.id, owner.tenant)
            self._keep(Known(tail, owner, is_tail=True))

    def purge(self, holds: Callable[[Owner], bool]) -> None:
        """Forget the tokens of those owners, and that they were here."""
        with self._lock:
            for tenant in list(self._kept):
                found = [known for known in self._kept[tenant].values() if holds(known.owner)]
                for known in found:
                    self._drop(known.block.id, tenant)
            for place in [place for place in self._began if holds(place[1])]:
                self._end(*place)

    # -- what is asked ---------------------------------------------------------------------------

    def find(self, block: bytes) -> tuple[Gone, float] | None:
        """What took a block, and how many seconds ago."""
        with self._lock:
            gone = self._gone.get(block)
        return None if gone is None else (gone, self._clock.monotonic() - gone.at)

    def is_here(self, block: bytes) -> bool:
        with self._lock:
            return block in self._here

    def following(self, parent: bytes, owner: Owner, most: int) -> list[Known]:
        """What is remembered to have followed that block, the latest first."""
        with self._lock:
            found = self._below.get(parent, {})
            latest = [known for known in reversed(found.values()) if known.owner == owner]
        return latest[:most]

    def owners(self, beginning: bytes, tenant: str) -> tuple[list[Owner], list[Owner]]:
        """Whose prompts, or what of them is not public, began with these packed tokens, the latest
        first: of that tenant, and of others.
        """
        with self._lock:
            found = list(reversed(self._owners.get(_digest(beginning), {})))
        own = (owner for owner in found if owner.tenant == tenant)
        others = (owner for owner in found if owner.tenant != tenant)
        return list(islice(own, MOST_OWNERS)), list(islice(others, MOST_OWNERS))

    def before_purge(self, owner: Owner) -> Owner | None:
        """What `owner` was called before the last purge that took a block of it."""
        with self._lock:
            era = self._eras.get(replace(owner, era=""))
        return None if era is None or era == owner.era else replace(owner, era=era)

    @property
    def kept_bytes(self) -> int:
        """Of tokens of what is not in memory."""
        return self._total

    # -- under the lock --------------------------------------------------------------------------

    def _keep(self, known: Known) -> None:
        if known.size > self._max_bytes:
            return
        tenant = known.owner.tenant
        self._kept.setdefault(tenant, OrderedDict())[known.block.id] = known
        self._bytes[tenant] += known.size
        self._total += known.size
        self._list(known)
        while self._total > self._max_bytes:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(next(iter(self._kept[most])), most)

    def _drop(self, id: bytes, tenant: str) -> None:
        kept = self._kept.get(tenant)
        known = kept.pop(id, None) if kept is not None else None
        if kept is None or known is None:
            return
        self._unlist(known.block)
        self._bytes[tenant] -= known.size
        self._total -= known.size
        if not kept:
            del self._kept[tenant], self._bytes[tenant]

    def _begin(self, digest: bytes, owner: Owner) -> None:
        if (digest, owner) in self._began:
            self._end(digest, owner)
        self._began[digest, owner] = None
        self._owners.setdefault(digest, {})[owner] = None
        if len(self._began) > self._most:
            self._end(*next(iter(self._began)))

    def _end(self, digest: bytes, owner: Owner) -> None:
        del self._began[digest, owner]
        owners = self._owners[digest]
        del owners[owner]
        if not owners:
            del self._owners[digest]

    def _list(self, known: Known) -> None:
        self._below.setdefault(known.block.parent, {})[known.block.id] = known

    def _unlist(self, block: Block) -> None:
        siblings = self._below.get(block.parent)
        if siblings is not None:
            siblings.pop(block.id, None)
            if not siblings:
                del self._below[block.parent]


def _digest(tokens: bytes) -> bytes:
    return blake2b(tokens, digest_size=16).digest()


def _put(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
