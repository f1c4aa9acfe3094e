"""Who waits for a server of a pool to have room, in the order of their coming.

take ──► a server with room ──► served ──► give_back ──► the first who waits for that server
  │ none has                                                          │
  └──► wait ◄─────────────────────────────────────────────────────────┘
         │ the line is full, or the time is up
         └──► Overloaded
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from thinkonce.upstream.failure import Overloaded
from thinkonce.upstream.server import Server

__all__ = ("Line",)

# How often who is first in line looks for a place that another process has given back.
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    servers: Sequence[Server]
    served: asyncio.Future[Server]


class Line:
    """Belongs to one event loop. `most` may wait at a time; `pool` is named in errors."""

    def __init__(self, pool: str, most: int) -> None:
        self._pool, self._most = pool, most
        self._waiting: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, servers: Sequence[Server]) -> Server | None:
        """The first of `servers` that has room, with a place taken in it; None where none has."""
        for server in servers:
            # Who waits for it goes first, should there be room: others may have made some.
            if not self._first_for(server) and server.room.take():
                return server
        return None

    async def wait(self, servers: Sequence[Server], seconds: float) -> Server:
        """One of `servers` as soon as it has room. Raises Overloaded."""
        if len(self._waiting) >= self._most:
            raise Overloaded(
                f"upstream {self._pool!r} is busy and {self._most} requests wait already"
            )
        waiter = _Waiter(servers, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await self._served(waiter)
        except BaseException as error:
            # The place may have been handed over in the same moment.
            if waiter.served.done() and not waiter.served.cancelled():
                self.give_back(waiter.served.result())
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"upstream {self._pool!r} is busy; no place came free in {seconds:g} s"
                ) from error
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def give_back(self, server: Server) -> None:
        """A place in `server` is free again: the first who waits for it gets it."""
        for place, waiter in enumerate(self._waiting):
            if server in waiter.servers and not waiter.served.done():
                del self._waiting[place]
                waiter.served.set_result(server)
                return
        server.room.give_back()

    def _first_for(self, server: Server) -> _Waiter | None:
        return next((waiter for waiter in self._waiting if server in waiter.servers), None)

    async def _served(self, waiter: _Waiter) -> Server:
        """A place that is handed on; where rooms are shared, one that others have given back."""
        shared = [server for server in waiter.servers if server.room.is_shared]
        while shared:
            done, _ = await asyncio.wait((waiter.served,), timeout=LOOK_SECONDS)
            if done:
                break
            for server in shared:
                if self._first_for(server) is waiter and server.room.take():
                    return server
        return await waiter.served
