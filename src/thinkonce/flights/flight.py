"""One call under way, as a feed: chunks, then exactly one end.

    publish  publish  publish   land(value) | fail(error) | abandon()
       |---------|--------|------------|
    0          index        ^ a follower who joins here still gets everything from 0

Any number of threads and tasks may read, each at its own pace. The feed keeps at most
`max_bytes`: beyond that the oldest chunks go, whoever had not read them yet is told to call
the model himself, and nobody new is admitted. Nobody polls, and no thread is spent on a waiter.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf
from typing import Any, Protocol

from thinkonce.clock import SYSTEM, Clock
from thinkonce.flights.landing import COALESCED, OVERRUN, TIMED_OUT, Fate, Landing
from thinkonce.flights.leading import Leading

__all__ = ("LEASE_SECONDS", "MAX_FEED_BYTES", "Flight", "Source")

LEASE_SECONDS = 60.0
MAX_FEED_BYTES = 4 * 1024 * 1024

Wake = Callable[[], None]


def no() -> bool:
    return False


class Source(Protocol):
    """Who makes the chunks of a flight, where nothing is made that nobody asked for.

    Both methods return at once and may be called from any thread.
    """

    def want(self, count: int) -> None:
        """Somebody wants the first `count` chunks."""
        ...

    def deserted(self) -> None:
        """The last follower has left, from another process."""
        ...


class Flight:
    """Thread-safe. `lock` may be shared between flights; it is held for microseconds.

    `leader` tells who leads. `digest` and `claim` are its name and its place in the host's
    table, where it has one; `epoch` is the purge epoch under which it began, where that is known.
    `expires_at` is when the leader, silent since, counts as hung, unless it `rests` because
    nobody has asked for more; `spoke_at` is when it last showed life. Both on `clock.monotonic`.
    """

    __slots__ = (
        "_base",
        "_clock",
        "_deserted",
        "_feed",
        "_kept_bytes",
        "_lease",
        "_lock",
        "_max_bytes",
        "_readers",
        "_sizes",
        "_waiters",
        "claim",
        "digest",
        "epoch",
        "expires_at",
        "followers",
        "landing",
        "leader",
        "renew_at",
        "rests",
        "source",
        "spoke_at",
    )

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM,
        lease: float = LEASE_SECONDS,
        max_bytes: float = MAX_FEED_BYTES,
        leader: Leading | None = None,
        lock: threading.Lock | None = None,
        epoch: int | None = None,
    ) -> None:
        self._lock = lock or threading.Lock()
        self.epoch = epoch
        self.source: Source | None = None
        self.rests = False
        self._clock, self._lease, self._max_bytes = clock, lease, max_bytes
        self.leader = leader or Leading(None, threading.get_ident())
        self.landing: Landing | None = None
        self.followers = 0
        self.expires_at = clock.monotonic() + lease
        self.spoke_at = -inf
        self.digest = b""
        self.claim: Any = None
        self.renew_at = 0.0  # when the claim is to be renewed
        self._feed: list[Any] = []  # _feed[i] is chunk number _base + i
        self._sizes: list[int] = []
        self._base = self._kept_bytes = 0
        self._readers: list[Wake] = []  # woken by the next chunk or the end
        self._waiters: list[Wake] = []  # woken by the end
        self._deserted: Wake | None = None

    # -- the leader's side -------------------------------------------------------------

    def publish(self, chunk: Any) -> bool:
        """Append a chunk nobody will change; False if the flight has already ended."""
        with self._lock:
            if self.landing is not None:
                return False
            size = len(chunk) if isinstance(chunk, bytes | str) else sys.getsizeof(chunk)
            self._feed.append(chunk)
            self._sizes.append(size)
            self._kept_bytes += size
            if self._kept_bytes > self._max_bytes:
                self._shed()
            self.spoke_at = now = self._clock.monotonic()
            self.expires_at = now + self._lease
            readers = self._readers
            if readers:
                self._readers = []
        for wake in readers:
            wake()
        return True

    def renew(self) -> None:
        """Show life without a chunk: the lease begins anew."""
        with self._lock:
            self.spoke_at = now = self._clock.monotonic()
            self.expires_at = now + self._lease
        self.poke()

    def land(self, value: Any) -> bool:
        """End with a value nobody will change; False if the flight has already ended."""
        return self.end(Landing(COALESCED, value))

    def fail(self, error: BaseException) -> bool:
        """End with an error: every present follower gets it."""
        return self.end(Landing(Fate.FAILED, error=error))

    def abandon(self, why: str = "its leader went away") -> bool:
        """End without a result: somebody else has to lead."""
        return self.end(Landing(Fate.ABANDONED, why=why))

    def end(self, landing: Landing) -> bool:
        """The first end counts; False for any later one."""
        with self._lock:
            if self.landing is not None:
                return False
            self.landing, self.source = landing, None  # the two hold each other
        if self._readers or self._waiters:  # nobody comes to sleep on a flight that has ended
            self.poke()
        return True

    def draw_from(self, source: Source) -> None:
        """From now on `source` is asked for what followers want; of no use after the end."""
        with self._lock:
            if self.landing is not None:
                return
            self.source = source
        self.poke()  # who already waits has asked nobody yet

    def begin_work(self) -> None:
        """The leader works on the next chunk from now on: its lease begins."""
        self.expires_at = self._clock.monotonic() + self._lease
        self.rests = False

    def end_if_deserted(self, landing: Landing) -> bool:
        """End with `landing` unless somebody follows; tells whether it has ended now."""
        with self._lock:
            if self.landing is None and self.followers == 0:
                self.landing, self.source = landing, None
            return self.landing is not None

    def poke(self) -> None:
        """Let everybody who waits look again, at the feed and at the clock."""
        with self._lock:
            sleepers = self._readers + self._waiters
            self._readers, self._waiters = [], []
        for wake in sleepers:
            wake()

    def _shed(self) -> None:
        # Down to half, so that the list is not shifted at every chunk.
        shed = 0
        while self._kept_bytes > self._max_bytes // 2:
            self._kept_bytes -= self._sizes[shed]
            shed += 1
        del self._feed[:shed], self._sizes[:shed]
        self._base += shed

    # -- coming and going of followers ---------------------------------------------------

    @property
    def admits(self) -> bool:
        """Can a newcomer still get every chunk from the first?"""
        return self._base == 0

    def enlist(self) -> None:
        """Count one more follower. Balance it with `dismiss`."""
        with self._lock:
            self.followers += 1

    def dismiss(self) -> None:
        """Count one follower less; the last one to go is reported to `when_deserted`."""
        with self._lock:
            self.followers -= 1
            deserted = None
            if self.followers == 0:
                deserted, self._deserted = self._deserted, None
        if deserted is not None:
            deserted()

    def when_deserted(self, callback: Wake) -> None:
        """Call `callback` once, from any thread, when no follower is left; now if none is."""
        with self._lock:
            waiting = self.followers > 0
            if waiting:
                self._deserted = callback
        if not waiting:
            callback()

    # -- the followers' side -------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Landing:
        """Block until the end; TIMED_OUT after `timeout` seconds."""
        until = self._until(timeout)
        while (landing := self.landing) is None:
            if not self._doze(None, until):
                return TIMED_OUT
        return landing

    async def wait_async(self, timeout: float | None = None) -> Landing:
        """`wait` on an event loop, which need not be the leader's."""
        until = self._until(timeout)
        while (landing := self.landing) is None:
            if not await self._doze_async(None, until):
                return TIMED_OUT
        return landing

    def want(self, count: int) -> None:
        """Have the first `count` chunks made, where they are made on demand only."""
        source = self.source
        if source is not None:
            source.want(count)

    def read(
        self, index: int, timeout: float | None = None, *, unless: Callable[[], bool] = no
    ) -> list[Any] | Landing:
        """Chunks from number `index` on, [] if `poke` asks to look again; or how it ended.

        `unless`: true where there is no point in waiting; asked after the wait has been entered,
        so that a later `poke` is not missed.
        """
        news = self.take(index)
        if not news:
            if not self._doze(index, self._until(timeout), unless):
                return TIMED_OUT
            news = self.take(index)
        return news

    async def read_async(self, index: int, timeout: float | None = None) -> list[Any] | Landing:
        """`read` on an event loop."""
        news = self.take(index)
        if not news:
            if not await self._doze_async(index, self._until(timeout)):
                return TIMED_OUT
            news = self.take(index)
        return news

    def chunks(self, timeout: float | None = None) -> Iterator[Any]:
        """Every chunk from the first; raises what the flight ended with, unless it landed.

        `timeout` bounds each wait for more, in seconds.
        """
        index = 0
        while isinstance(news := self.read(index, timeout), list):
            index += len(news)
            yield from news
        news.unwrap()

    async def achunks(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """`chunks` on an event loop."""
        index = 0
        while isinstance(news := await self.read_async(index, timeout), list):
            index += len(news)
            for chunk in news:
                yield chunk
        news.unwrap()

    def take(self, index: int, wake: Wake | None = None) -> list[Any] | Landing:
        """Chunks from number `index` on; if there are none yet, [], and `wake` is called at news.

        A Landing if that was all. Never blocks.
        """
        with self._lock:
            if index < self._base:
                return OVERRUN
            if index < self._base + len(self._feed):
                return self._feed[index - self._base :]
            if self.landing is not None:
                return self.landing
            if wake is not None:
                self._readers.append(wake)
            return []

    def forget(self, wake: Wake) -> None:
        """Do not call `wake` any more, unless that is happening already."""
        with self._lock:
            for sleepers in (self._readers, self._waiters):
                if wake in sleepers:
                    sleepers.remove(wake)

    def _until(self, timeout: float | None) -> float:
        return inf if timeout is None else self._clock.monotonic() + timeout

    def _doze(self, index: int | None, until: float, unless: Callable[[], bool] = no) -> bool:
        """Block until there may be news; False if it is past `until`."""
        remaining = until - self._clock.monotonic()
        if remaining <= 0:
            return False
        gate = threading.Lock()
        gate.acquire()
        wake = gate.release
        if self._register(index, wake):
            try:
                if not unless():
                    gate.acquire(timeout=min(remaining, threading.TIMEOUT_MAX))
            finally:
                self.forget(wake)
        return True

    async def _doze_async(self, index: int | None, until: float) -> bool:
        remaining = until - self._clock.monotonic()
        if remaining <= 0:
            return False
        loop = asyncio.get_running_loop()
        alarm: asyncio.Future[None] = loop.create_future()
        wake = waker(loop, alarm)
        timer = loop.call_later(remaining, settle, alarm) if remaining < inf else None
        try:
            if self._register(index, wake):
                await alarm
        finally:
            self.forget(wake)
            if timer is not None:
                timer.cancel()
        return True

    def _register(self, index: int | None, wake: Wake) -> bool:
        """Have `wake` called at the next chunk past `index` (None: at the end), if it is to come.

        The test and the entry are one step: news in between cannot be missed.
        """
        with self._lock:
            if self.landing is not None:
                return False
            if index is None:
                self._waiters.append(wake)
            elif index < self._base + len(self._feed):
                return False
            else:
                self._readers.append(wake)
            return True


def waker(loop: asyncio.AbstractEventLoop, alarm: asyncio.Future[None]) -> Wake:
    """A function that any thread may call to settle `alarm`."""

    def wake() -> None:
        if asyncio._get_running_loop() is loop:
            settle(alarm)
            return
        try:
            loop.call_soon_threadsafe(settle, alarm)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    return wake


def settle(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)
