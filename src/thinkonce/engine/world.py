"""Who carries out the flow's steps for the gateway: a call belongs to its flight.

    request A ──► lead ──► task: upstream ──► recorder ──► publish ... land
         └──────► ride ◄────────────────────────┤
    request B ──► follow ──► ride ◄─────────────┘     the last one to leave cancels the task

The request that began a call follows it like every other, so that its client may leave without
taking the answer from the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import msgspec

from thinkonce.drive import AsyncWorld
from thinkonce.engine.aside import Aside
from thinkonce.engine.asking import Asking
from thinkonce.engine.fetch import EventsChunk, Fetch, Preamble
from thinkonce.engine.pace import Pace
from thinkonce.engine.refusals import Refusals
from thinkonce.entry import Entry
from thinkonce.flights.landing import ABANDONED, ELECTED, TOO_LATE
from thinkonce.flights.leading import FOLLOW, LEAD, leave
from thinkonce.flights.singleflight import Fate, Flight, Flights, Landing, Seat, Since
from thinkonce.protocols.dialect import Recorder
from thinkonce.protocols.reply import Gist
from thinkonce.protocols.sse import Event
from thinkonce.steps import Ask, Live, Made, Setting
from thinkonce.tiers.tier import Tier
from thinkonce.upstream.failure import Broken, Header, Refused, asker_of

__all__ = ("Fetching", "GatewayAsk", "GatewayWorld", "Ride")

_decode_preamble = msgspec.msgpack.Decoder(Preamble).decode


class Fetching(Protocol):
    """The call that a request would make, as far as those who wait for it care."""

    asking: Asking
    headers: tuple[Header, ...]  # the upstream's, once it has answered
    publish: Callable[[bytes], object] | None  # set by whoever runs it for followers
    pace: Pace | None  # the same

    @property
    def batch(self) -> Hashable | None:
        """Fetches of one batch are made in one call; None: this one is a call by itself."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the answer's end mark has come, though its connection may still be open."""
        ...

    def follows(self) -> None:
        """The request waits for a call of another's, and makes none for now."""
        ...

    def renews(self) -> None:
        """The request has its answer; the fetch is made in the background, if at all."""
        ...

    def renewed(self) -> None:
        """What `renews` has announced is over."""
        ...


@dataclass(slots=True, kw_only=True)
class GatewayAsk(Ask):
    """A request that may be answered while the answer is still arriving."""

    fetch: Fetching
    renews: bool = False  # it makes the gateway call the upstream in the background


class Ride:
    """One client's way through a stream: every event from the first. Close it."""

    def __init__(
        self,
        seat: Seat,
        ask: GatewayAsk,
        max_bytes: int,
        left: Callable[[], None],
        pace: Pace | None,
    ) -> None:
        self._seat, self._ask, self._max_bytes, self._left = seat, ask, max_bytes, left
        self._pace = pace  # where this world makes the call
        self._chunks = cast(AsyncGenerator[bytes, None], seat.achunks())
        self._recorder: Recorder | None = None
        self.usage_asked = False

    async def begin(self) -> Landing:
        """Live as soon as a fitting stream has begun, or how the call ended.

        Raises the call's error.
        """
        try:
            preamble = await anext(self._chunks)
        except StopAsyncIteration:
            assert self._seat.landing is not None
            return self._seat.landing
        self.usage_asked = _decode_preamble(preamble).usage_asked
        asked = self._ask.fetch.asking.asked
        if asked.include_usage and not self.usage_asked:
            # The upstream was not asked for the counts; once complete, an answer has some.
            return await self._seat.follow_async()
        if self._pace is not None:
            self._pace.took(self, 0)
        return Landing(Fate.COALESCED, Live(self))

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """Raises what the call failed with."""
        async for chunk in self._chunks:
            # Elsewhere, be it on another thread's loop, its recorder may be at work.
            if isinstance(chunk, EventsChunk) and self._pace is not None:
                self._recorder = chunk.recorder
                yield chunk.events
            else:
                yield self._own_recorder().feed(chunk)
            if self._pace is not None:
                self._pace.took(self, len(chunk))

    @property
    def headers(self) -> tuple[Header, ...]:
        """The upstream's, for the request whose own call this is."""
        return self._ask.fetch.headers

    def gist(self) -> Gist:
        """What is known of the answer so far."""
        return Gist() if self._recorder is None else self._recorder.gist()

    def entry(self) -> Entry | None:
        """What was made of the call, once its events are through; None where it cannot be had."""
        landing = self._seat.landing
        made = None if landing is None else landing.value
        return made.entry if isinstance(made, Made) and made.entry.payload else None

    async def close(self) -> None:
        """Leave, once; the last one to leave ends the call."""
        await self.end()
        self._left()

    async def end(self) -> None:
        if self._pace is not None:
            self._pace.left(self)
        await self._chunks.aclose()

    def _own_recorder(self) -> Recorder:
        # The call runs in another process, or on another loop.
        if self._recorder is None:
            fetch = cast(Fetch, self._ask.fetch)
            self._recorder = fetch.dialect.recorder(
                fetch.asking.asked,
                usage_asked=self.usage_asked,
                max_bytes=self._max_bytes,
            )
        return self._recorder


class GatewayWorld(AsyncWorld):
    """Belongs to one event loop. `close` ends every call that is still under way."""

    def __init__(
        self,
        setting: Setting,
        flights: Flights,
        tier_failed: Callable[[str, Exception], None],
        *,
        max_bytes: int,
        finish_abandoned: bool = False,
    ) -> None:
        super().__init__(setting, flights, tier_failed)
        self._max_bytes, self._finish_abandoned = max_bytes, finish_abandoned
        self._leading: set[asyncio.Task[Landing]] = set()
        self._paces: dict[Flight, Pace] = {}  # of the calls that this process makes
        self._renewing: Counter[Hashable] = Counter()  # inputs that are, by their batch
        self._failed: set[Hashable] = set()  # of these batches, those whose failure was told
        self.refusals = Refusals()
        self._aside = Aside()
        self.following = 0  # requests that wait for a call or read its stream

    async def follow(self, ask: Ask, seat: Seat) -> Landing:
        cast(GatewayAsk, ask).fetch.follows()
        return await self._follow_own(cast(GatewayAsk, ask), seat)

    async def _follow_own(self, ask: GatewayAsk, seat: Seat) -> Landing:
        """Follow to the end, but not to a refusal that another's credential has met with.

        Then a call is joined anew, or led: one for each credential, whoever asks with the same
        follows it. Members of a group share answers, and have keys of their own upstream.
        """
        while True:
            try:
                landing = await self._wait_for(ask, seat)
            except Refused as error:
                if not _is_anothers(error, ask):
                    raise
            else:
                if not _is_anothers(landing.error, ask):
                    return landing
            self.flights.take_seat(seat)
            if seat.role is not FOLLOW:
                return ELECTED if seat.role is LEAD else TOO_LATE

    def calls_beside(self, ask: Ask) -> int:
        batch = cast(GatewayAsk, ask).fetch.batch
        if batch in self._renewing:
            return 0
        return len(self.renewals) - self._renewing.total() + len(self._renewing)

    def _renew(self, ask: Ask) -> bool:
        renews = self.may_renew(ask)
        needs_caller = super()._renew(ask)
        if renews:
            assert isinstance(ask, GatewayAsk)
            assert ask.key is not None
            task, fetch = self.renewals[ask.key.local], ask.fetch
            assert isinstance(task, asyncio.Task)
            task.add_done_callback(lambda _: self._renewed(fetch))
            ask.renews = True
            fetch.renews()
            if fetch.batch is not None:
                self._renewing[fetch.batch] += 1
        return needs_caller

    def _renewed(self, fetch: Fetching) -> None:
        batch = fetch.batch
        if batch is not None:
            self._renewing[batch] -= 1
            if not self._renewing[batch]:
                del self._renewing[batch]
                self._failed.discard(batch)
        fetch.renewed()

    def renewal_landed(self, ask: Ask, landing: Landing) -> None:
        batch = cast(GatewayAsk, ask).fetch.batch
        if batch in self._failed:  # its call has failed for all of its inputs
            return
        super().renewal_landed(ask, landing)
        if landing.error is not None and batch is not None:
            self._failed.add(batch)

    async def look_aside(self, tier: Tier, ask: Ask, peek: bool) -> Entry | None:
        return await self._aside.call(partial(self.look, tier, ask, peek))

    def _forget_closed_loops(self) -> None:
        """There is one loop only, so there are none; a look at all, for each, would be slow."""

    def take_seat(self, ask: Ask) -> Seat:
        assert ask.key is not None
        key, meta = ask.key, ask.meta

        def purged(epoch: int) -> bool:
            return self.setting.purged(Entry(None, None, meta, key.digest, epoch=epoch))

        return self.flights.join(key.local, lambda: key.digest, Since(ask.epoch, purged))

    async def lead(self, ask: Ask, seat: Seat) -> Landing:
        if self.closed:  # whoever was left by a call that was ended would make it anew
            error = Broken("the gateway is stopping")
            seat.fail(error)
            return Landing(Fate.FAILED, error=error)
        # A task of its own leads the call, so the request's context leads nothing.
        assert seat.flight is not None
        leave(seat.flight.leader)
        own = seat.companion()
        flight = seat.flight
        lease = self.setting.rules.lease
        pace = Pace(self.setting.clock, seat.renew, lease / 4)
        cast(GatewayAsk, ask).fetch.pace = self._paces[flight] = pace
        loop = asyncio.get_running_loop()
        task = loop.create_task(self.lead_here(ask, seat, look_again=True))
        self._leading.add(task)
        task.add_done_callback(partial(self._done, flight))
        if not self._finish_abandoned:
            flight.when_deserted(_Ending(flight, loop, task, cast(GatewayAsk, ask).fetch))
        return await self._wait_for(cast(GatewayAsk, ask), own)

    async def lead_here(self, ask: Ask, seat: Seat, *, look_again: bool) -> Landing:
        cast(GatewayAsk, ask).fetch.publish = seat.publish
        landing = await super().lead_here(ask, seat, look_again=look_again)
        assert ask.key is not None
        # Before any follower wakes: nothing is awaited in between.
        self.refusals.landed(ask.key.digest, landing, self.setting.clock.wall())
        return landing

    async def close(self, timeout: float = 0.0) -> None:
        """Give calls under way `timeout` seconds to end, then end them."""
        tasks = {*self._leading, *self._tasks().values()}
        if tasks and timeout > 0:
            await asyncio.wait(tasks, timeout=timeout)
        self.closed = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for(self, ask: GatewayAsk, seat: Seat) -> Landing:
        self.following += 1
        live = False
        try:
            landing = await self._follow(ask, seat)
            live = isinstance(landing.value, Live)
        finally:
            if not live:
                self._left()
        return landing

    async def _follow(self, ask: GatewayAsk, seat: Seat) -> Landing:
        # A call of another process may be over already: who minds is told how old its answer is.
        controls = ask.controls
        minds = not controls.read or (controls.max_age, controls.min_fresh) != (None, None)
        if not ask.fetch.asking.asked.stream or (minds and seat.is_led_elsewhere):
            return await seat.follow_async()
        pace = None if seat.flight is None else self._paces.get(seat.flight)
        ride = Ride(seat, ask, self._max_bytes, self._left, pace)
        begun = False
        try:
            landing = await ride.begin()
            begun = isinstance(landing.value, Live)
            return landing
        finally:
            if not begun:
                await ride.end()

    def _left(self) -> None:
        self.following -= 1

    def _done(self, flight: Flight, task: asyncio.Task[Landing]) -> None:
        self._leading.discard(task)
        del self._paces[flight]
        with suppress(asyncio.CancelledError):
            task.exception()  # every follower was told; nobody awaits the task itself


def _is_anothers(error: BaseException | None, ask: GatewayAsk) -> bool:
    """Whether `error` refuses a credential that is not the one `ask` would be made with."""
    if not isinstance(error, Refused) or not error.whose:
        return False
    return error.whose != asker_of(error.status, ask.fetch.asking.taken.credential)


class _Ending:
    """Told that nobody follows a call any more, it cancels the call's task."""

    __slots__ = ("_fetch", "_flight", "_loop", "_task")

    def __init__(
        self,
        flight: Flight,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Landing],
        fetch: Fetching,
    ) -> None:
        self._flight, self._loop, self._task, self._fetch = flight, loop, task, fetch

    def __call__(self) -> None:
        if self._task.done():
            return
        with suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._fetch.is_whole:  # clients leave at the end mark: what was paid for is kept
            return
        # Ended here, at once: a newcomer would be given the first events, and then no end.
        if self._flight.end_if_deserted(ABANDONED):
            self._task.cancel()
        else:
            self._flight.when_deserted(self)
