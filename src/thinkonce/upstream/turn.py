"""Which server of a pool one request asks next.

    first     a server that is well and has room; else wait for one; nobody is well: the one whose
              rest ends first, unless another pool can be asked instead
    further   another server that is well and has room, at once
    again     after connection errors: the same ones, while attempts are left

Every attempt but the first is paid out of the pool's budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from thinkonce.clock import Clock
from thinkonce.upstream.failure import Resting
from thinkonce.upstream.pools import Pool
from thinkonce.upstream.server import Server

__all__ = ("Turn",)

# Before a server is asked the same thing again, seconds; doubled each time.
FIRST_PAUSE = 0.05


class Turn:
    """One request's way through the servers of `pool`.

    `retries`: attempts after the first that connection errors may cost, where there are fewer
    servers than that. `until`: loop time of its deadline. `spare`: another pool can be asked.
    """

    def __init__(
        self, pool: Pool, clock: Clock, *, retries: int, until: float, spare: bool = False
    ) -> None:
        self._pool, self._clock, self._until = pool, clock, until
        self._order: Sequence[Server] = pool.in_turn()
        self._retries, self._spare = retries, spare
        self._tried: list[Server] = []
        self._attempts = 0
        pool.budget.earn()

    @property
    def seconds_left(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    async def first(self) -> Server:
        """Raises Resting, Overloaded, TimedOut."""
        ready = self._ready(self._order)
        if not ready and self._spare:
            raise Resting(f"upstream {self._pool.name!r} is left alone for now")
        ready = ready or [min(self._order, key=lambda server: (server.down, server.ready_at))]
        server = self._pool.line.take(ready)
        if server is None:
            server = await self._pool.line.wait(ready, max(self.seconds_left, 0.0))
        return self._asked(server)

    async def further(self, *, again: bool) -> Server | None:
        """Whom to ask after a failure; None: nobody else can serve.

        `again`: the request never arrived, so the same server may be asked once more.
        """
        tried = self._tried
        fresh = [server for server in self._order if server not in tried]
        server = self._pool.line.take(self._ready(fresh))
        if server is None and again and self._attempts <= self._retries:
            place = self._attempts % len(tried)
            server = self._pool.line.take([*tried[place:], *tried[:place]])
            if server is not None:
                await self._pause(server, FIRST_PAUSE * 2 ** (self._attempts - len(tried)))
        if server is None:
            return None
        if self.seconds_left <= 0 or not self._pool.budget.spend():
            self._pool.line.give_back(server)
            return None
        return self._asked(server)

    async def _pause(self, server: Server, seconds: float) -> None:
        try:
            await asyncio.sleep(min(seconds, max(self.seconds_left, 0.0)))
        except BaseException:
            self._pool.line.give_back(server)
            raise

    def _ready(self, servers: Sequence[Server]) -> list[Server]:
        now = self._clock.monotonic()
        return [server for server in servers if server.is_ready(now)]

    def _asked(self, server: Server) -> Server:
        server.asked(self._clock.monotonic())
        if server not in self._tried:
            self._tried.append(server)
        self._attempts += 1
        return server
