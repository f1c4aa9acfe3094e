"""What a gateway asks of all its workers, itself included: their numbers, bounds, what they know.

With one worker there is nobody else to ask.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from thinkonce.gateway.counts import Counts
from thinkonce.gateway.numbers import Numbers
from thinkonce.gateway.refusals import Refusal
from thinkonce.gateway.world import GatewayWorld
from thinkonce.shelf import Shelf

__all__ = ("Alone", "Bounds", "Team")

Bounds = dict[str, int | None]  # max_size, max_bytes, store_max_bytes


class Team(Protocol):
    """Belongs to one event loop, but for `refusal`."""

    async def numbers(self) -> Numbers:
        """The sums over all workers; what a store holds counts once."""
        ...

    def bounds(self) -> Bounds:
        """Of all workers together, in entries and bytes; None: no such bound."""
        ...

    async def resize(self, bounds: Bounds) -> None:
        """Change bounds of all together; None leaves one as it is. Raises ConfigError."""
        ...

    def refusal(self, digest: bytes) -> Refusal | None:
        """Why the last answer for a key was not stored, as far as any worker knows.

        May wait for the others: call it in a thread.
        """
        ...


class Alone:
    """The only worker, or what one of several knows by itself."""

    def __init__(self, shelf: Shelf, world: GatewayWorld, metrics: Counts) -> None:
        self._shelf, self._world, self._metrics = shelf, world, metrics

    async def numbers(self) -> Numbers:
        # In a thread: counting the rows of a large store takes a disk's time.
        tiers = await asyncio.to_thread(self._shelf.tier_stats)
        metrics = self._metrics
        metrics.savings.collect()
        held = metrics.connections()
        return Numbers(metrics.counted, tiers, metrics.inflight, self._world.following, held)

    def bounds(self) -> Bounds:
        return self._shelf.bounds()

    async def resize(self, bounds: Bounds) -> None:
        self._shelf.resize(**bounds)

    def refusal(self, digest: bytes) -> Refusal | None:
        return self._world.refusals.of(digest)
