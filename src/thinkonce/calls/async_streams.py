"""A decorated async generator as the source of a flight: one task runs it, on demand.

    reader ──► want ──► task: generator ──► take ──► publish ──► Flight ──► readers, here and
    reader elsewhere ──► WANT ──┘   at the end ──► ended ──► land           in other processes

The task runs the source from beginning to end, so that timeouts and context variables in it hold
across its items, and cancelling a reader does not cancel it for the others. What holds for
`thinkonce.calls.streams` holds here; readers in one process are on one event loop, others have a
source of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from thinkonce.calls.streams import ENDED, Spring, heard, must_call, rest_of
from thinkonce.flights.landing import ABANDONED, Fate, Landing
from thinkonce.flights.leading import Role, enter, leave, step_out
from thinkonce.flights.seat import Seat
from thinkonce.steps import Answer

__all__ = ("AsyncReader", "SharedAsyncStream")


class SharedAsyncStream:
    """Belongs to the event loop on which it was made; `want` and `deserted` may come from any."""

    def __init__(self, seat: Seat, spring: Spring[AsyncIterator[Any]]) -> None:
        assert seat.flight is not None
        self.flight = seat.flight
        self._seat, self._spring = seat, spring
        self._source: AsyncIterator[Any] | None = None
        self._wanted = 0
        self._demand = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        step_out(self.flight.leader)
        self._context = copy_context()
        self.flight.rests = True
        self.flight.draw_from(self)

    def want(self, count: int) -> None:
        self._soon(lambda: self._want(count))

    def deserted(self) -> None:
        self._soon(lambda: self._abandon())

    async def left(self) -> None:
        """A reader has left; the last one closes the source, if it has not ended."""
        driver = self._abandon()
        if driver is not None:
            await asyncio.wait([driver])

    def _soon(self, job: Callable[[], object]) -> None:
        if asyncio._get_running_loop() is self._loop:
            job()
            return
        with suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(job)

    def _want(self, count: int) -> None:
        if self.flight.landing is not None:
            return
        self._wanted = max(self._wanted, count)
        self._demand.set()
        if self._driver is None:
            self._driver = self._loop.create_task(self._drive(), context=self._context)

    def _abandon(self) -> asyncio.Task[None] | None:
        """End the flight if nobody follows; the task that then ends."""
        flight, driver = self.flight, self._driver
        if flight.landing is not None or not flight.end_if_deserted(ABANDONED):
            return None
        self._seat.abandon()
        if driver is not None:
            driver.cancel()
        return driver

    async def _drive(self) -> None:
        leader = self.flight.leader
        enter(leader)
        try:
            self._source = self._spring.open()
            made = 0
            self.flight.begin_work()
            async for item in self._source:
                self._seat.publish(self._spring.take(item))
                made += 1
                await self._until_wanted(made)
            self._spring.end(self.flight)
        except BaseException as error:
            self._seat.end(self._failure(error))
        else:
            self._seat.land(ENDED)
        leave(leader)
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()

    def _failure(self, error: BaseException) -> Landing:
        # A cancellation that the source itself raised would be raised by the next call as well.
        if self._driver is not None and self._driver.cancelling():
            return ABANDONED
        return Landing(Fate.FAILED, error=error)

    async def _until_wanted(self, made: int) -> None:
        """Until somebody wants more than the `made` items there are."""
        while self._wanted <= made:
            self.flight.rests = True
            self._demand.clear()
            await self._demand.wait()
        self.flight.begin_work()


class AsyncReader:
    """One asker's way through a stream, item by item. Belongs to one task at a time."""

    def __init__(self, seat: Seat, spring: Spring[AsyncIterator[Any]]) -> None:
        self._seat, self._spring = seat, spring
        self.has_joined = seat.role is Role.FOLLOW

    async def read(self) -> AsyncGenerator[Any]:
        """Every item from the first. Raises what the source raised, for every reader."""
        position = 0
        try:
            while not isinstance(news := await self._news(position), Landing):
                for item in news:
                    position += 1
                    yield item
            if must_call(news, position):
                async for item in self._spring.open():
                    yield item
            for item in rest_of(news, position, self._spring):
                yield item
        finally:
            await self._leave()

    async def _news(self, position: int) -> Iterator[Any] | Landing:
        if self._seat.role is Role.LEAD and (stored := self._lead()) is not None:
            return Landing(Fate.COALESCED, stored)
        flight = self._seat.flight
        if flight is not None and not flight.take(position):
            flight.want(position + 1)
        return heard(await self._seat.read_async(position), self._spring)

    def _lead(self) -> Answer | None:
        """Open the source, unless the answer has come in meanwhile."""
        lead = self._seat
        if (stored := self._spring.stored()) is not None:
            lead.abandon()
            return stored
        self._seat = lead.companion()
        SharedAsyncStream(lead, self._spring)
        return None

    async def _leave(self) -> None:
        flight = self._seat.flight
        self._seat.leave()
        source = None if flight is None else flight.source
        if isinstance(source, SharedAsyncStream):
            await source.left()
