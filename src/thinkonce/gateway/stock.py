"""All tiers of a gateway as one: counted, listed, purged, bounded."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import Any

import msgspec

from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.selector import Selector
from thinkonce.tiers.memory import MemoryTier
from thinkonce.tiers.purges import concerned
from thinkonce.tiers.tier import Key, Tier, TierStats

__all__ = ("Stock",)


class Stock:
    """Belongs to one event loop; what a disk may delay runs in a thread.

    `fingerprint` tells which secret the keys were made with, and nothing of the secret.
    """

    def __init__(
        self, memory: MemoryTier, store: Tier | None, where: str, fingerprint: str = ""
    ) -> None:
        self.memory, self.store = memory, store
        self._where, self._fingerprint = where, fingerprint

    @property
    def tiers(self) -> Sequence[Tier]:
        return [self.memory] if self.store is None else [self.memory, self.store]

    def tier_stats(self) -> dict[str, TierStats]:
        return {tier.name: _stats_of(tier) for tier in self.tiers}

    async def stats(self) -> dict[str, Any]:
        # In a thread: counting the rows of a large store takes a disk's time.
        tiers = await asyncio.to_thread(self.tier_stats)
        limits = self.memory.limits
        return {
            "store": self._where,
            "tiers": {name: msgspec.structs.asdict(stats) for name, stats in tiers.items()},
            "max_size": limits.max_entries,
            "max_bytes": limits.max_bytes,
            "epoch": self.memory.purges.epoch[0],
            "secret": self._fingerprint,
        }

    async def entries(self, selector: Selector, limit: int, after: bytes) -> list[Entry]:
        """Of all tiers, in order of their keys, each once."""
        rows = await asyncio.to_thread(
            lambda: [list(tier.entries(selector, limit, after)) for tier in self.tiers]
        )
        found: dict[bytes, Entry] = {}
        for entry in heapq.merge(*rows, key=lambda entry: entry.digest):
            found.setdefault(entry.digest, entry)
        return list(found.values())[:limit]

    async def purge(self, selector: Selector) -> int:
        """At once in every process of the host. An entry in two tiers counts once."""
        purge, stored = await asyncio.to_thread(self.memory.purges.append, selector)
        held = self.memory.purge(purge)
        self.memory.catch_up()
        return max(held, stored)

    async def discard(self, digest: bytes) -> int:
        """Remove the entry under `digest`, in every process of the host; how many went: 0 or 1."""
        selector = Selector(key=digest)
        purge, stored = await asyncio.to_thread(self.memory.purges.append, selector)
        if digest in self.memory.map:
            held = int(self.memory.forget(Key(digest, digest), purge))
        else:  # gone, or a short request, which memory holds under another name
            held = self.memory.purge(purge)
        self.memory.catch_up()
        return max(held, stored)

    def is_purged(self, entry: Entry) -> bool:
        """Whether a purge since the request for `entry` began means it."""
        return concerned(entry, self.memory.purges.since(entry.epoch))

    def resize(self, max_size: int | None, max_bytes: int | None) -> dict[str, int | None]:
        """Change the memory tier's bounds; what is None stays. Raises ConfigError."""
        limits = self.memory.limits
        self.memory.resize(
            limits.max_entries if max_size is None else max_size,
            limits.max_bytes if max_bytes is None else max_bytes,
        )
        return {"max_size": limits.max_entries, "max_bytes": limits.max_bytes}


def _stats_of(tier: Tier) -> TierStats:
    try:
        return tier.stats()
    except TierError:
        return TierStats()
