"""Keeps what was saved: in the store where there is one, so that restarts and workers add up.

Counting is the savings' own affair; here they are collected every few seconds, written in one
transaction off the loop, and read again by whoever asks for the sums.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from thinkonce.errors import TierError
from thinkonce.insight.savings import MOST_HOURS, Book, Savings, fold
from thinkonce.tiers.database import Database
from thinkonce.tiers.savings_table import SavingsTable

__all__ = ("Keeper",)

log = logging.getLogger("thinkonce")

EVERY_SECONDS = 5.0


class Keeper:
    """Belongs to one event loop. `database` None: the sums live as long as this process."""

    def __init__(self, savings: Savings, database: Database | None) -> None:
        self.savings = savings
        savings.wake = self._wake
        self._table = None if database is None else SavingsTable(database, fold, MOST_HOURS)
        self._stored = Book()  # the last that was read
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def sums(self) -> Book:
        """Everything that was ever saved, here and in every process that shares the store.

        While the store cannot be reached: what was read last, and what waits here.
        """
        if self._table is None:
            return self.savings.collect()
        await self.settle()
        with suppress(TierError):
            self._stored = Book(await asyncio.to_thread(self._table.read))
        waiting = self.savings.collect()
        if not waiting:
            return self._stored
        both = Book(self._stored)
        both.merge(waiting)
        return both

    async def settle(self) -> None:
        """Collect, and write what waits; what could not be written waits on."""
        task = asyncio.get_running_loop().create_task(self._settle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)  # a client that leaves takes nothing from the sums

    async def _settle(self) -> None:
        if self._table is None:
            self.savings.collect()
            return
        async with self._turn:
            taken = self.savings.take()
            if not taken:
                return
            try:
                await asyncio.to_thread(self._table.add, list(taken))
            except TierError as error:
                log.info("what was saved waits for the store: %s", error)
                self.savings.book.merge(taken)
                self._wake()

    async def close(self) -> None:
        """Write what waits, once."""
        if self._timer is not None:
            self._timer.cancel()
        await self.settle()
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(EVERY_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self._settle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
