"""What a gateway asks of all its workers, itself included: their numbers, bounds, what they know.

With one worker there is nobody else to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from thinkonce.clock import Clock
from thinkonce.engine.refusals import Refusal
from thinkonce.engine.world import GatewayWorld
from thinkonce.gateway.counts import Counts
from thinkonce.gateway.numbers import Numbers
from thinkonce.gateway.quota import Quota
from thinkonce.meaning.compared import Compared, Promises
from thinkonce.shelf import Shelf
from thinkonce.tiers.tier import TierStats
from thinkonce.upstream.room import Room
from thinkonce.web.allowance import Allowance

__all__ = ("Alone", "Bounds", "Limiters", "OwnLimiters", "Place", "Team")

Bounds = dict[str, int | None]  # max_size, max_bytes, store_max_bytes


class Limiters(Protocol):
    """Makes what holds a client, or a server, to a limit."""

    def allowance(self, client: str, per_minute: int, clock: Clock) -> Allowance: ...

    def quota(self, tenant: str, most: int, measure: Callable[[], int], clock: Clock) -> Quota: ...

    def room(self, pool: str, url: str, most: int) -> Room: ...


class OwnLimiters:
    """Nobody else counts in them."""

    def allowance(self, client: str, per_minute: int, clock: Clock) -> Allowance:
        return Allowance(per_minute, clock)

    def quota(self, tenant: str, most: int, measure: Callable[[], int], clock: Clock) -> Quota:
        return Quota(most, measure, clock)

    def room(self, pool: str, url: str, most: int) -> Room:
        return Room(most)


class Place(Limiters, Protocol):
    """What makes a gateway one of several workers; all of them count in its limiters.

    `run` names the gateway, the same in all of them; `serial` this worker's start.
    """

    run: str
    serial: int

    def join(self, alone: Alone) -> Team:
        """Called once, with what the worker knows by itself."""
        ...


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
        self.shelf, self._world, self._metrics = shelf, world, metrics

    async def numbers(self) -> Numbers:
        # In a thread: counting the rows of a large store takes a disk's time.
        return self._with(await asyncio.to_thread(self.shelf.tier_stats))

    def counts(self) -> Numbers:
        """As `numbers`, at once: what the store holds is left out."""
        return self._with(self.shelf.tier_counts())

    def _with(self, tiers: dict[str, TierStats]) -> Numbers:
        metrics = self._metrics
        metrics.savings.collect()
        return Numbers(
            metrics.counted,
            tiers,
            metrics.inflight,
            self._world.following,
            metrics.connections(),
            metrics.servers(),
            *self._meaning(),
            body_bytes=metrics.bodies.held,
        )

    def _meaning(self) -> tuple[Compared, Promises]:
        meaning = self.shelf.meaning
        if meaning is None:
            return Compared(), {}
        return meaning.counts.told(), meaning.promises()

    def bounds(self) -> Bounds:
        return self.shelf.bounds()

    async def resize(self, bounds: Bounds) -> None:
        self.shelf.resize(**bounds)

    def refusal(self, digest: bytes) -> Refusal | None:
        return self._world.refusals.of(digest)
