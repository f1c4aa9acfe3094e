"""What one worker asks of all others, by way of their parent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from thinkonce.clock import Clock
from thinkonce.engine.http import HttpError
from thinkonce.engine.parts import part_of
from thinkonce.engine.refusals import Refusal
from thinkonce.errors import ConfigError
from thinkonce.gateway.numbers import Numbers, total
from thinkonce.gateway.quota import Quota
from thinkonce.gateway.team import Alone, Bounds, Team
from thinkonce.gateway.workers.board import Board
from thinkonce.gateway.workers.channel import Channel, Unanswered
from thinkonce.gateway.workers.messages import (
    ASK_SECONDS,
    Begin,
    Done,
    Known,
    Message,
    ModelState,
    Publish,
    Resize,
    Sum,
    WhyNot,
)
from thinkonce.gateway.workers.shares import SharedAllowance, SharedQuota, shared_room
from thinkonce.settings import Settings
from thinkonce.upstream.room import Room
from thinkonce.web.allowance import Allowance

__all__ = ("PUBLISH_SECONDS", "Member")

# What a worker had counted when it was killed is known up to this long before.
PUBLISH_SECONDS = 1.0


class Member:
    """A `Place` and a `Team`. Belongs to its worker's event loop."""

    def __init__(self, begin: Begin, channel: Channel) -> None:
        self.run, self.serial = begin.run, begin.serial
        self._place = begin.place
        self.restarting = begin.restarting  # the local model, just now
        self._channel, self._workers = channel, begin.settings.gateway.workers
        self._board = Board(begin.board)
        self._bounds = {**_bounds(begin.settings), **begin.bounds}
        self._loop = asyncio.get_running_loop()
        self._published = b""
        self._alone: Alone | None = None

    # -- as a place ----------------------------------------------------------------------

    def join(self, alone: Alone) -> Team:
        self._alone = alone
        self._apply(self._bounds)
        return self

    def allowance(self, client: str, per_minute: int, clock: Clock) -> Allowance:
        cell = self._board.cell(f"allowance {client}", float(per_minute), clock.monotonic())
        if cell is None:  # more clients than the board holds: each worker gives a part
            return Allowance(max(1, per_minute // self._workers), clock)
        return SharedAllowance(per_minute, clock, cell)

    def quota(self, tenant: str, most: int, measure: Callable[[], int], clock: Clock) -> Quota:
        cell = self._board.cell(f"quota {tenant}")
        if cell is None:
            return Quota(most, measure, clock)
        return SharedQuota(most, measure, clock, cell)

    def room(self, pool: str, url: str, most: int) -> Room:
        shared = shared_room(self._board, pool, url, most, self._place, self._workers)
        return Room(max(1, most // self._workers)) if shared is None else shared

    # -- as a team -----------------------------------------------------------------------

    async def numbers(self) -> Numbers:
        """Raises HttpError where the parent does not answer: numbers must not seem to shrink."""
        own = await self.alone.numbers()
        try:
            others = await self._channel.ask(Sum(self.alone.counts()), Sum, ASK_SECONDS)
        except Unanswered as error:
            raise HttpError(503, f"the other workers cannot be asked: {error}") from error
        return own if others.numbers is None else total((own, others.numbers))

    def bounds(self) -> Bounds:
        return dict(self._bounds)

    async def resize(self, bounds: Bounds) -> None:
        self._apply(bounds)  # refuses what nobody can take
        try:
            done = await self._channel.ask(Resize(bounds), Done, ASK_SECONDS)
        except Unanswered as error:
            done = Done(str(error))
        if done.error:
            raise HttpError(503, f"other workers keep their bounds: {done.error}")

    def refusal(self, digest: bytes) -> Refusal | None:
        own = self.alone.refusal(digest)
        asking = self._channel.ask(WhyNot(digest), Known, ASK_SECONDS)
        try:
            other = asyncio.run_coroutine_threadsafe(asking, self._loop).result().refusal
        except Unanswered:
            return own
        return max(filter(None, (own, other)), key=lambda known: known.at, default=None)

    # -- what the parent says --------------------------------------------------------------

    def answer(self, message: Message) -> Message | None:
        """To what concerns the team; None for anything else."""
        match message:
            case Sum():
                return Sum(self.alone.counts())
            case Resize(bounds):
                return self._resized(bounds)
            case WhyNot(digest):
                return Known(self.alone.refusal(digest))
            case ModelState(restarting):
                self.restarting = restarting
                return Done()
        return None

    def adopted(self, settings: Settings) -> None:
        """The bounds are those of the configuration again."""
        self._bounds = _bounds(settings)

    def publish(self) -> None:
        """Tell the parent what was counted, if anything was since the last time."""
        numbers = self.alone.counts()
        said = msgspec.msgpack.encode(numbers)
        if said != self._published:
            self._published = said
            self._channel.tell(Publish(numbers))

    @property
    def alone(self) -> Alone:
        assert self._alone is not None, "it joins before it serves"
        return self._alone

    def _resized(self, bounds: Bounds) -> Done:
        try:
            self._apply(bounds)
        except ConfigError as error:
            return Done(str(error))
        return Done()

    def _apply(self, bounds: Bounds) -> None:
        """Take this worker's part of `bounds`. Raises ConfigError."""
        new = {name: value for name, value in bounds.items() if value is not None}
        parts: Bounds = {
            name: value if name == "store_max_bytes" else part_of(value, self._workers)
            for name, value in new.items()
        }
        self.alone.shelf.resize(**parts)
        self._bounds |= new


def _bounds(settings: Settings) -> Bounds:
    return {
        "max_size": settings.cache.max_size,
        "max_bytes": settings.cache.max_bytes,
        "store_max_bytes": settings.store.max_bytes,
    }
