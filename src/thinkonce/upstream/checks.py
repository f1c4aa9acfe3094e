"""Asks servers now and then whether they are well, apart from requests.

One task for each server whose pool names a `health_path`. A check that fails takes the server out
of the turn at once; the next that succeeds puts it back. They go to the server's root, because
health pages lie outside the API, and without any credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from thinkonce.upstream.pools import Pool
from thinkonce.upstream.server import Server

__all__ = ("Checks", "Pause")

# Whether `server` of `pool` is well; never raises but when cancelled.
Ask = Callable[[Pool, Server], Awaitable[bool]]
Pause = Callable[[float], Awaitable[object]]


class Checks:
    """Belongs to one event loop. `pause` waits some seconds."""

    def __init__(self, ask: Ask, pause: Pause = asyncio.sleep) -> None:
        self._ask, self._pause = ask, pause
        self._tasks: dict[Server, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def watch(self, pools: Iterable[Pool]) -> None:
        """Check the servers of `pools` from now on, and no others. Needs a running loop."""
        wanted = {
            server: pool for pool in pools if pool.declared.health_path for server in pool.servers
        }
        for server in self._tasks.keys() - wanted.keys():
            self._tasks.pop(server).cancel()
        for server in wanted.keys() - self._tasks.keys():
            task = asyncio.get_running_loop().create_task(self._check(wanted[server], server))
            self._tasks[server] = task

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self, pool: Pool, server: Server) -> None:
        while True:
            server.checked(await self._ask(pool, server))
            await self._pause(pool.declared.health_interval)
