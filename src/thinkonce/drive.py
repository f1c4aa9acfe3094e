"""Who carries out the flow's steps: with blocking calls, or on an event loop.

Failures are thrown into the flow, which may free a lease, answer with something stale, or let
them pass to the caller. A failing tier is a miss, counted and never raised; a `TierError` out of
the *model* (a nested cache, say) is the model's failure like any other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar, assert_never

from thinkonce.entry import Entry
from thinkonce.flow import (
    Ask,
    CallModel,
    Flow,
    Follow,
    Join,
    Keep,
    Lead,
    Look,
    Renew,
    Setting,
    Step,
    lead,
)
from thinkonce.singleflight import Fate, Flights, Landing, Role, Seat
from thinkonce.tiers.tier import Tier

__all__ = ("AsyncWorld", "BlockingWorld", "World", "drive", "drive_async")

T = TypeVar("T")
log = logging.getLogger("thinkonce")

# Background renewals under way at once, per cache; beyond that stale answers stay stale longer.
MAX_RENEWALS = 8


def drive(flow: Flow[T], world: BlockingWorld) -> T:
    """Run `flow` to its end with blocking calls."""
    result: object = None
    failure: BaseException | None = None
    while True:
        try:
            step = flow.send(result) if failure is None else flow.throw(failure)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        result = failure = None
        try:
            result = world.carry_out(step)
        except BaseException as error:
            failure = error


async def drive_async(flow: Flow[T], world: AsyncWorld) -> T:
    """Run `flow` to its end on the running event loop; otherwise the same as `drive`."""
    result: object = None
    failure: BaseException | None = None
    while True:
        try:
            step = flow.send(result) if failure is None else flow.throw(failure)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        result = failure = None
        try:
            result = await world.carry_out(step)
        except BaseException as error:
            failure = error


class World:
    """What both drivers need. `tier_failed` is told the tier's name and the error."""

    def __init__(
        self,
        setting: Setting,
        flights: Flights,
        tier_failed: Callable[[str, Exception], None],
    ) -> None:
        self.setting, self.flights, self.tier_failed = setting, flights, tier_failed
        self.renewals: set[object] = set()

    def look(self, tier: Tier, ask: Ask) -> Entry | None:
        assert ask.key is not None
        try:
            return tier.get(ask.key)
        except Exception as error:
            self._note_failure(tier, ask, error)
            return None

    def keep(self, tier: Tier, ask: Ask, entry: Entry) -> None:
        assert ask.key is not None
        try:
            tier.put(ask.key, entry)
        except Exception as error:
            self._note_failure(tier, ask, error)

    def join(self, ask: Ask) -> Seat:
        assert ask.key is not None
        key = ask.key
        return self.flights.join(key.local, lambda: key.digest)

    def may_renew(self) -> bool:
        return len(self.renewals) < MAX_RENEWALS

    def _note_failure(self, tier: Tier, ask: Ask, error: Exception) -> None:
        ask.trouble = True
        self.tier_failed(tier.name, error)


class BlockingWorld(World):
    """Carries steps out in the calling thread. Renewals run in short-lived daemon threads."""

    def carry_out(self, step: Step) -> object:
        match step:
            case Look(tier, ask):
                return self.look(tier, ask)
            case Keep(tier, ask, entry):
                self.keep(tier, ask, entry)
                return None
            case CallModel(ask):
                return ask.call()
            case Join(ask):
                return self.join(ask)
            case Lead(ask, seat):
                return self._lead(ask, seat)
            case Follow(_, seat):
                return seat.follow(self.setting.rules.lease)
            case Renew(ask):
                self._renew(ask)
                return None
            case _:
                assert_never(step)

    def _lead(self, ask: Ask, seat: Seat, *, look_again: bool = True) -> Landing:
        try:
            made = drive(lead(ask, self.setting, look_again=look_again), self)
        except Exception as error:
            seat.fail(error)
            return Landing(Fate.FAILED, error=error)
        except BaseException:
            seat.abandon()
            raise
        seat.land(made)
        return Landing(Fate.COALESCED, made)

    def _renew(self, ask: Ask) -> None:
        if self.may_renew():
            thread = threading.Thread(target=self._renew_now, args=(ask,), daemon=True)
            self.renewals.add(thread)
            thread.start()

    def _renew_now(self, ask: Ask) -> None:
        try:
            seat = self.join(ask)
            if seat.role is Role.LEAD:
                _renew_outcome(self._lead(ask, seat, look_again=False))
        finally:
            self.renewals.discard(threading.current_thread())

    def wait_for_renewals(self, timeout: float) -> None:
        for thread in list(self.renewals):
            if isinstance(thread, threading.Thread):
                thread.join(timeout)


class AsyncWorld(World):
    """Carries steps out on the running event loop.

    Reads of persistent tiers go through a thread, because a disk may stall; writes do not block
    by the tier contract. The model's call may be a coroutine or a plain value.
    """

    async def carry_out(self, step: Step) -> object:
        match step:
            case Look(tier, ask):
                return await self._look(tier, ask)
            case Keep(tier, ask, entry):
                self.keep(tier, ask, entry)
                return None
            case CallModel(ask):
                return await self.call(ask)
            case Join(ask):
                return self.join(ask)
            case Lead(ask, seat):
                return await self.lead(ask, seat)
            case Follow(_, seat):
                return await seat.follow_async(self.setting.rules.lease)
            case Renew(ask):
                self._renew(ask)
                return None
            case _:
                assert_never(step)

    async def call(self, ask: Ask) -> Any:
        made = ask.call()
        return await made if isawaitable(made) else made

    async def lead(self, ask: Ask, seat: Seat) -> Landing:
        """Run the leader's part in the caller's own task; the gateway does it in another."""
        return await self.lead_here(ask, seat, look_again=True)

    async def lead_here(self, ask: Ask, seat: Seat, *, look_again: bool) -> Landing:
        try:
            made = await drive_async(lead(ask, self.setting, look_again=look_again), self)
        except Exception as error:
            seat.fail(error)
            return Landing(Fate.FAILED, error=error)
        except BaseException:
            seat.abandon()
            raise
        seat.land(made)
        return Landing(Fate.COALESCED, made)

    async def _look(self, tier: Tier, ask: Ask) -> Entry | None:
        if not tier.persistent:
            return self.look(tier, ask)
        return await asyncio.to_thread(self.look, tier, ask)

    def _renew(self, ask: Ask) -> None:
        if self.may_renew():
            task = asyncio.get_running_loop().create_task(self._renew_now(ask))
            self.renewals.add(task)
            task.add_done_callback(self.renewals.discard)

    async def _renew_now(self, ask: Ask) -> None:
        seat = self.join(ask)
        if seat.role is Role.LEAD:
            _renew_outcome(await self.lead_here(ask, seat, look_again=False))

    async def wait_for_renewals(self, timeout: float) -> None:
        tasks: list[Awaitable[object]] = [t for t in self.renewals if isawaitable(t)]
        if tasks:
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout)


def _renew_outcome(landing: Landing) -> None:
    # Nobody waits for a renewal, so its failure would otherwise be invisible.
    if landing.error is not None:
        log.warning("renewal failed: %s: %s", type(landing.error).__name__, landing.error)
