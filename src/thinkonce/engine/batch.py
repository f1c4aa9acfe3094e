"""The inputs of one request, each asked of the cache by itself, and what is missing in one call.

    input 0 ──► flow ──► hit
    input 1 ──► flow ──► follows another request's call
    input 2 ──► flow ──► must be asked for ─┐
    input 3 ──► flow ──► must be asked for ─┴─► one call, once every input has got this far

A call belongs to the flights of its inputs, not to the request: see `world.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from thinkonce.engine.asking import Asking
from thinkonce.engine.fetch import Drafting, Fetched
from thinkonce.engine.pace import Pace
from thinkonce.steps import Draft
from thinkonce.upstream.failure import Header

__all__ = ("AT_ONCE", "ItemFetch", "Together")

# Inputs that are gone on with in one turn of the event loop: others wait no longer than for these.
AT_ONCE = 64

# How long what is asked for late waits for more: inputs whose call by another process was lost are
# told so one by one, and would each be a call.
LATE_SECONDS = 0.02

# Asks the upstream for the inputs at these places; one answer for each, in that order.
AskFor = Callable[[Sequence[int]], Awaitable[Sequence[Fetched]]]


class Together:
    """`count` inputs of one request. Belongs to one event loop.

    `ask_for` is called once for all that are missing, once for all that are made anew in the
    background, and again for what is missing later.
    """

    def __init__(self, count: int, ask_for: AskFor) -> None:
        self._now, self._later = Round(count, ask_for), Round(count, ask_for)
        self._renewing: set[int] = set()

    def decided(self, place: int) -> None:
        """The input at `place` has its answer, waits for another's, or has asked for one."""
        self._now.decided(place)
        if place not in self._renewing:
            self._later.decided(place)

    def renews(self, place: int) -> None:
        """The input at `place` has an answer, and will be asked for in the background."""
        self._renewing.add(place)

    def renewed(self, place: int) -> None:
        """What `renews` has announced is over, whether it was asked for or not."""
        self._later.decided(place)

    async def answer(self, place: int) -> Fetched:
        """What the upstream says to the input at `place`. Raises UpstreamError."""
        if place in self._renewing:
            return await self._later.answer(place)
        self._later.decided(place)
        return await self._now.answer(place)


class Round:
    """Inputs that are asked for in one call, once it is decided of all `count` whether they are."""

    def __init__(self, count: int, ask_for: AskFor) -> None:
        self._undecided = set(range(count))
        self._ask_for = ask_for
        self._wanted: dict[int, asyncio.Future[Fetched]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def decided(self, place: int) -> None:
        if place in self._undecided:
            self._undecided.discard(place)
            if not self._undecided:
                self._begin()

    def _begin(self) -> None:
        """Ask for what is wanted by now."""
        wanted = {place: each for place, each in self._wanted.items() if not each.done()}
        self._wanted = {}
        if not wanted:
            return
        call = asyncio.get_running_loop().create_task(self._call(wanted))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        left = len(wanted)

        def gone(future: asyncio.Future[Fetched]) -> None:
            nonlocal left
            left -= future.cancelled()
            if not left:  # nobody wants any of it
                call.cancel()

        for future in wanted.values():
            future.add_done_callback(gone)

    async def answer(self, place: int) -> Fetched:
        loop = asyncio.get_running_loop()
        if not self._undecided and not self._wanted:
            # It has waited for a call that came to nothing, and others with it, as a rule.
            loop.call_later(LATE_SECONDS, self._begin)
        future = self._wanted.get(place)
        if future is None or future.done():
            future = self._wanted[place] = loop.create_future()
        self.decided(place)
        return await future

    async def _call(self, wanted: dict[int, asyncio.Future[Fetched]]) -> None:
        try:
            answers = await self._ask_for(list(wanted))
        except Exception as error:
            for future in wanted.values():
                if not future.done():
                    future.set_exception(error)
            return
        for place, (future, answer) in enumerate(zip(wanted.values(), answers, strict=True)):
            if not future.done():
                future.set_result(answer)
            if place % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)


class ItemFetch:
    """The call for the input at `place` of a request: see `world.Fetching`."""

    def __init__(
        self,
        asking: Asking,
        batch: Together,
        place: int,
        kept: Callable[[], bytes],
        drafting: Drafting,
    ) -> None:
        self.asking, self.batch, self._place = asking, batch, place
        self.publish: Callable[[bytes], object] | None = None
        self.pace: Pace | None = None
        self.is_whole = False
        self.headers: tuple[Header, ...] = ()
        self._kept, self._drafting = kept, drafting

    async def __call__(self) -> Fetched:
        await self.asking.measure_quota()
        return await self.batch.answer(self._place)

    def follows(self) -> None:
        self.batch.decided(self._place)

    def renews(self) -> None:
        self.batch.renews(self._place)

    def renewed(self) -> None:
        self.batch.renewed(self._place)

    def draft(self, fetched: Fetched, seconds: float) -> Draft:
        return self._drafting.draft(self.asking, fetched, seconds, self._kept)
