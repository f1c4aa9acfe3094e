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

from thinkonce.entry import Form
from thinkonce.flow import Draft
from thinkonce.gateway.asking import Asking
from thinkonce.gateway.fetch import Fetched
from thinkonce.gateway.pace import Pace
from thinkonce.insight.prices import Prices
from thinkonce.protocols.billing import billed
from thinkonce.protocols.reply import encode_reply
from thinkonce.request.storable import StoreRules, refusal
from thinkonce.upstream.failure import Header

__all__ = ("ItemFetch", "Together")

# What a whole vector ends in, for the rules of what may be kept.
ENDS = {"vector": None}

# Asks the upstream for the inputs at these places; one answer for each, in that order.
AskFor = Callable[[Sequence[int]], Awaitable[Sequence[Fetched]]]


class Together:
    """`count` inputs of one request. Belongs to one event loop.

    `ask_for` is called once for all that are missing, and again for what is missing later.
    """

    def __init__(self, count: int, ask_for: AskFor) -> None:
        self._undecided = set(range(count))
        self._ask_for = ask_for
        self._wanted: dict[int, asyncio.Future[Fetched]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def decided(self, place: int) -> None:
        """The input at `place` has its answer, waits for another's, or has asked for one."""
        self._undecided.discard(place)
        if not self._undecided and self._wanted:
            wanted, self._wanted = self._wanted, {}
            call = asyncio.get_running_loop().create_task(self._call(wanted))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            for future in wanted.values():
                future.add_done_callback(lambda _: self._end_if_unwanted(call, wanted))

    async def answer(self, place: int) -> Fetched:
        """What the upstream says to the input at `place`. Raises UpstreamError."""
        future = self._wanted.get(place)
        if future is None:
            future = self._wanted[place] = asyncio.get_running_loop().create_future()
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
        for future, answer in zip(wanted.values(), answers, strict=True):
            if not future.done():
                future.set_result(answer)

    @staticmethod
    def _end_if_unwanted(
        call: asyncio.Task[None], wanted: dict[int, asyncio.Future[Fetched]]
    ) -> None:
        if all(future.cancelled() for future in wanted.values()):
            call.cancel()


class ItemFetch:
    """The call for one input of a request: see `world.Fetching`."""

    def __init__(
        self,
        asking: Asking,
        call: Callable[[], Awaitable[Fetched]],
        follows: Callable[[], None],
        kept: Callable[[], bytes],
        rules: StoreRules,
        prices: Prices,
    ) -> None:
        self.asking, self.follows = asking, follows
        self.publish: Callable[[bytes], object] | None = None
        self.pace: Pace | None = None
        self.headers: tuple[Header, ...] = ()
        self._call, self._kept = call, kept
        self._rules, self._prices = rules, prices

    async def __call__(self) -> Fetched:
        await self.asking.measure_quota()
        return await self._call()

    def draft(self, fetched: Fetched, seconds: float) -> Draft:
        """What of it is kept, and why not, if so."""
        reply = fetched.reply
        refused = refusal(self.asking.asked, fetched.gist, ENDS, self._rules)
        if reply is None:
            return Draft(b"", Form.REPLY, refused=refused)
        payload = encode_reply(reply)
        refused = refused or self.asking.over_quota(len(payload))
        usd = self._prices.cost((reply.model, self.asking.asked.model), billed(reply))
        return Draft(
            payload,
            Form.REPLY,
            size=len(payload),
            cost=seconds if usd is None else usd,
            tokens=reply.tokens,
            refused=refused,
            request=self._kept() if refused is None else b"",
        )
