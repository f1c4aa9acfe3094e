"""Who carries out the flow's steps: with blocking calls, or on an event loop.

Failures are thrown into the flow, which may free a lease, answer with something stale, or let
them pass to the caller. A failing tier is a miss, counted and never raised; a `TierError` out of
the *model* (a nested cache, say) is the model's failure like any other.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Hashable
from concurrent.futures import CancelledError
from contextlib import suppress
from inspect import isawaitable
from typing import Any, TypeVar, assert_never

from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.flights.singleflight import Fate, Landing, Role, Seat
from thinkonce.flow import lead
from thinkonce.likeness import Matched
from thinkonce.steps import (
    Ask,
    CallModel,
    Flow,
    Follow,
    Join,
    Keep,
    Lead,
    Look,
    MatchWords,
    Renew,
    Step,
)
from thinkonce.tiers.tier import Tier
from thinkonce.world import MEANING, World, land, renewal_of, tell_failure

__all__ = ("AsyncWorld", "BlockingWorld", "World", "drive", "drive_async")

T = TypeVar("T")
log = logging.getLogger("thinkonce")

LATER = object()  # in place of the result of a step that one must wait for


def drive(flow: Flow[T], world: BlockingWorld) -> T:
    """Run `flow` to its end with blocking calls.

    A StopIteration out of the model arrives as a RuntimeError, as from any generator or coroutine.
    """
    result: object = None
    failure: BaseException | None = None
    while True:
        try:
            step = flow.send(result) if failure is None else flow.throw(failure)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            result = failure = None  # else a traceback would keep its own frame alive
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
        finally:
            result = failure = None
        try:
            result = world.at_once(step)
            if result is LATER:
                result = await world.carry_out(step)
        except BaseException as error:
            failure = error


class BlockingWorld(World):
    """Carries steps out in the calling thread. Renewals run in short-lived daemon threads."""

    def carry_out(self, step: Step) -> object:
        match step:
            case Look(tier, ask, peek):
                return self.look(tier, ask, peek)
            case MatchWords(ask):
                return self._match(ask)
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
                return self._renew(ask)
            case _:
                assert_never(step)

    def _match(self, ask: Ask) -> Matched | None:
        assert ask.likeness is not None
        try:
            return ask.likeness.find()
        except Exception as error:
            self.tier_failed(MEANING, error)
            return None

    def _lead(self, ask: Ask, seat: Seat, *, look_again: bool = True) -> Landing:
        try:
            made = drive(lead(ask, self.setting, look_again=look_again), self)
        except Exception as error:
            seat.fail(error)
            return Landing(Fate.FAILED, error=error)
        except BaseException:
            seat.abandon()
            raise
        land(seat, made)
        return Landing(Fate.COALESCED, made)

    def _renew(self, ask: Ask) -> bool:
        if not self.may_renew(ask):
            return False
        renewed = renewal_of(ask)
        if renewed is None:
            return True
        assert ask.key is not None
        # A thread of its own begins with an empty context; the model may read the caller's.
        run = contextvars.copy_context().run
        name = "thinkonce-renewal"
        thread = threading.Thread(
            target=run, args=(self._renew_now, renewed), name=name, daemon=True
        )
        self.renewals[ask.key.local] = thread
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: the old answer stays a little longer
            self.renewals.pop(ask.key.local, None)
            log.warning("renewal not begun: %s", error)
        return False

    def _renew_now(self, ask: Ask) -> None:
        assert ask.key is not None
        try:
            seat = self.join(ask)
            if seat is not None and seat.role is Role.LEAD:
                tell_failure(ask, self._lead(ask, seat, look_again=False))
            elif seat is not None:
                seat.leave()
        finally:
            self.renewals.pop(ask.key.local, None)

    def wait_for_renewals(self, timeout: float) -> None:
        """Wait for renewals under way, `timeout` seconds for all of them together."""
        until = time.monotonic() + timeout
        for thread in list(self.renewals.values()):
            if isinstance(thread, threading.Thread) and thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))


class AsyncWorld(World):
    """Carries steps out on the running event loop.

    Reads of persistent tiers and of purges made elsewhere go through a thread, because a disk may
    stall, unless a tier knows without reading that it lacks the entry. Writes do not block by the
    tier contract. The model's call may be a coroutine or a plain value.
    """

    def at_once(self, step: Step) -> object:
        """The result of a step that needs no waiting, else LATER.

        Most need none, and a coroutine for each would cost more than the step.
        """
        if isinstance(step, Look):
            if step.tier.persistent:
                return None if self.lacks(step.tier, step.ask) else LATER
            if self.setting.purges.is_behind:
                return LATER
            return self.look(step.tier, step.ask, step.peek)
        if isinstance(step, Keep):
            if self.setting.purges.is_behind:
                return LATER
            self.keep(step.tier, step.ask, step.entry)
            return None
        return self.join(step.ask) if isinstance(step, Join) else LATER

    async def carry_out(self, step: Step) -> object:
        if isinstance(step, CallModel):  # first: at every miss it is the one
            return await self.call(step.ask)
        match step:
            case Look(tier, ask, peek):
                return await self._look(tier, ask, peek)
            case MatchWords(ask):
                return await self._match(ask)
            case Keep(tier, ask, entry):
                await self._catch_up()
                self.keep(tier, ask, entry)
                return None
            case Join(ask):
                return self.join(ask)
            case Lead(ask, seat):
                return await self.lead(ask, seat)
            case Follow(ask, seat):
                return await self.follow(ask, seat)
            case Renew(ask):
                return self._renew(ask)
            case _:
                assert_never(step)

    async def call(self, ask: Ask) -> Any:
        made = ask.call()
        return await made if isawaitable(made) else made

    async def follow(self, ask: Ask, seat: Seat) -> Landing:
        return await seat.follow_async(self.setting.rules.lease)

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
        land(seat, made)
        return Landing(Fate.COALESCED, made)

    async def _match(self, ask: Ask) -> Matched | None:
        assert ask.likeness is not None
        try:
            return await ask.likeness.find_async()
        except Exception as error:
            self.tier_failed(MEANING, error)
            return None

    async def _look(self, tier: Tier, ask: Ask, peek: bool) -> Entry | None:
        if tier.persistent:
            return await self.look_aside(tier, ask, peek)
        await self._catch_up()
        return self.look(tier, ask, peek)

    async def look_aside(self, tier: Tier, ask: Ask, peek: bool) -> Entry | None:
        return await asyncio.to_thread(self.look, tier, ask, peek)

    async def _catch_up(self) -> None:
        purges = self.setting.purges
        if purges.is_behind:
            with suppress(TierError):  # whichever tier needs it fails likewise, and is counted
                await asyncio.to_thread(purges.since, purges.epoch[0])

    def _renew(self, ask: Ask) -> bool:
        self._forget_closed_loops()
        if not self.may_renew(ask):
            return False
        renewed = renewal_of(ask)
        if renewed is None:
            return True
        assert ask.key is not None
        local = ask.key.local
        task = asyncio.get_running_loop().create_task(self._renew_now(renewed))
        self.renewals[local] = task
        task.add_done_callback(lambda _: self.renewals.pop(local, None))
        return False

    async def _renew_now(self, ask: Ask) -> None:
        seat = self.join(ask)
        if seat is not None and seat.role is Role.LEAD:
            self.renewal_landed(ask, await self.lead_here(ask, seat, look_again=False))
        elif seat is not None:
            seat.leave()

    def renewal_landed(self, ask: Ask, landing: Landing) -> None:
        tell_failure(ask, landing)

    async def wait_for_renewals(self, timeout: float) -> None:
        """Wait for renewals under way, `timeout` seconds for all of them together."""
        here = asyncio.get_running_loop()
        tasks = [task for task in self._tasks().values() if task.get_loop() is here]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def wait_from_outside(self, timeout: float) -> None:
        """`wait_for_renewals` for whoever closes from a thread that is not a renewing loop's.

        Renewals on the caller's own loop go on: waiting here would stop them.
        """
        until = time.monotonic() + timeout
        here = _running_loop()
        for loop in {task.get_loop() for task in self._tasks().values()}:
            if loop is here or not loop.is_running():
                continue
            waiting = self.wait_for_renewals(timeout)
            try:
                asyncio.run_coroutine_threadsafe(waiting, loop).result(until - time.monotonic())
            except RuntimeError:  # the loop was closed meanwhile
                waiting.close()
            except (TimeoutError, CancelledError):
                continue

    def _tasks(self) -> dict[Hashable, asyncio.Task[None]]:
        held = list(self.renewals.items())
        return {key: task for key, task in held if isinstance(task, asyncio.Task)}

    def _forget_closed_loops(self) -> None:
        # A loop closed without cancelling its tasks never tells that they have ended.
        for key, task in self._tasks().items():
            if task.get_loop().is_closed():
                self.renewals.pop(key, None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
