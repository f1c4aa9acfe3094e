"""Keeps what was saved: in the store where there is one, so that restarts and workers add up.

Counting is the savings' own affair; here they are collected every few seconds, written in one
transaction off the loop, and read again by whoever asks for the sums.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from thinkonce.insight.savings import Book, Savings, fold
from thinkonce.sums import Names, rows_of
from thinkonce.tiers.tier import Sums

__all__ = ("Keeper",)

log = logging.getLogger("thinkonce")

EVERY_SECONDS = 5.0


class Keeper:
    """Belongs to one event loop. `table` None: the sums live as long as this process."""

    def __init__(self, savings: Savings, table: Sums | None) -> None:
        self.savings = savings
        savings.wake = self._wake
        self._table = table
        self._stored = Book()  # the last that was read
        self._turn = asyncio.Lock()
        self._has_settled = False  # the first time brings older sums under the key in use
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_alone(self) -> bool:
        """Whether there is no store to add up what processes count."""
        return self._table is None

    async def sums(self, counted: Names) -> Book:
        """Everything that was ever saved, here and in every process that shares the store.

        Without a store it is what was `counted`. While a store cannot be reached: what was read
        last, and what waits here.
        """
        if self._table is None:
            return Book(rows_of(counted))
        await self.settle()
        try:
            self._stored = Book(await asyncio.to_thread(self._table.read))
        except Exception as error:  # nor does a scrape fail for it
            log.info("what was saved cannot be read: %s", error)
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
            if not taken and self._has_settled:
                return
            try:
                await asyncio.to_thread(self._table.add, list(taken), fold)
            except Exception as error:  # whatever it is: what was taken is not lost
                log.info("what was saved waits for the store: %s", error)
                self.savings.book.merge(taken)
                self._wake()
            else:
                self._has_settled = True

    async def close(self) -> None:
        """Write what waits, once."""
        if self._timer is not None:
            self._timer.cancel()
        await self.settle()
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None:
            with suppress(RuntimeError):  # no loop runs: whoever reads the sums collects
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(EVERY_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self._settle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
