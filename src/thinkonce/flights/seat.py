"""One asker's part in a call under way: leading it, or following it to its end.

         join                 the leader goes away, no chunk given yet
asker ────────► FOLLOW ──────────────────────────────────────────────► LEAD, or FOLLOW another
           │       └─ to wait could deadlock or takes too long ──► THROUGH
           └──► LEAD
"""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from thinkonce.flights import landing as ended
from thinkonce.flights.flight import Flight
from thinkonce.flights.landing import COALESCED, TIMED_OUT, Fate, Landing
from thinkonce.flights.leading import FOLLOW, LEAD, THROUGH, Leading, current

if TYPE_CHECKING:
    from thinkonce.flights.singleflight import Flights

__all__ = ("Digest", "Seat", "Since", "is_from_before")

# How often whoever follows a leader on an event loop looks whether that loop still runs.
LOOK_SECONDS = 1.0

Digest = Callable[[], bytes]


class Since(NamedTuple):
    """From when an asker asks: of calls begun under an earlier purge epoch, none that was purged.

    `purged(epoch)` says whether a purge later than `epoch` means what the call would give.
    """

    epoch: int
    purged: Callable[[int], bool]


def is_from_before(epoch: int | None, since: Since | None) -> bool:
    """Whether a call begun under `epoch` gives what `since` rules out."""
    return epoch is not None and since is not None and epoch < since.epoch and since.purged(epoch)


class Seat:
    """One asker's part in a call. Belongs to one thread or task at a time.

    A leader ends its call with `land`, `fail` or `abandon`; a follower leaves by following to the
    end or by `leave`. A seat that is dropped does so by itself, a little later.
    """

    __slots__ = (
        "_began",
        "_flights",
        "_waiting",
        "digest",
        "flight",
        "key",
        "landing",
        "max_bytes",
        "role",
        "since",
    )

    def __init__(
        self,
        flights: Flights,
        key: Hashable,
        digest: Digest | None,
        since: Since | None,
        max_bytes: float,
    ) -> None:
        self._flights = flights
        self.key, self.digest, self.since, self.max_bytes = key, digest, since, max_bytes
        self._waiting: tuple[Leading, Leading] | None = None  # who waits for whom
        self._began: float | None = None  # when this wait, for an end or for news, began
        self.role = THROUGH
        self.flight: Flight | None = None
        self.landing: Landing | None = None  # what a follower got, once it is known

    # -- the leader's side -------------------------------------------------------------

    @property
    def followers(self) -> int:
        """Who else waits for this call now, other processes included; 0 once it has ended."""
        return self.flight.followers if self.flight is not None else 0

    def publish(self, chunk: Any) -> None:
        """Give followers a chunk that nobody will change. Shows life, as `renew` does."""
        flight = self.flight
        if flight is not None:
            flight.publish(chunk)
            self._flights.keep_claim(flight)

    def renew(self) -> None:
        """Show life: the lease begins anew, and nobody takes this call for hung."""
        flight = self.flight
        if flight is not None:
            flight.renew()
            self._flights.keep_claim(flight)

    def land(self, value: Any) -> None:
        """End with a value that nobody will change. Only the first end of a call counts."""
        self.end(Landing(COALESCED, value))

    def fail(self, error: BaseException) -> None:
        """End with an error. What is no Exception (cancellation, exit) is `abandon`:

        that a leader was cancelled is no answer to anybody else.
        """
        failed = isinstance(error, Exception)
        self.end(Landing(Fate.FAILED, error=error) if failed else ended.ABANDONED)

    def abandon(self) -> None:
        """End without a result: a follower takes over."""
        self.end(ended.ABANDONED)

    def end(self, landing: Landing) -> None:
        flight, self.flight = self.flight, None
        if flight is not None and self.role is LEAD:
            self._flights.finish(self.key, flight, landing)

    @property
    def is_led_elsewhere(self) -> bool:
        """Whether another process makes this call."""
        return self.flight is not None and not self.flight.leader.thread

    def when_deserted(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, from any thread, when nobody follows any more; now if so."""
        if self.flight is not None:
            self.flight.when_deserted(callback)

    # -- the followers' side -------------------------------------------------------------

    def follow(self, timeout: float | None = None) -> Landing:
        """Block until the call ends, at most `timeout` seconds and one lease of silence.

        The fate is COALESCED, FAILED, LEAD or THROUGH; after the last two the seat has that role.
        """
        landing = self._embark(blocking=True)
        try:
            while landing is None:
                news = self._now_followed().wait(self._patience(timeout))
                landing = self._turn(news, timeout, blocking=True)
            return landing
        finally:
            self._disembark()

    async def follow_async(self, timeout: float | None = None) -> Landing:
        """`follow` on an event loop, which need not be the leader's."""
        landing = self._embark(blocking=False)
        try:
            while landing is None:
                news = await self._now_followed().wait_async(self._patience(timeout))
                landing = self._turn(news, timeout, blocking=False)
            return landing
        finally:
            self._disembark()

    def chunks(self, timeout: float | None = None) -> Iterator[Any]:
        """Every chunk from the first; then `landing` holds the end. Raises the call's error.

        `timeout` (seconds) and the lease bound each wait for more. With LEAD or THROUGH there
        was no chunk; if some were given already, an UpstreamError is raised instead.
        """
        given = 0
        try:
            while isinstance(news := self.read(given, timeout), list):
                given += len(news)
                yield from news
        finally:
            self.leave()
        if news.error is not None:
            news.unwrap()

    async def achunks(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """`chunks` on an event loop."""
        given = 0
        try:
            while isinstance(news := await self.read_async(given, timeout), list):
                given += len(news)
                for chunk in news:
                    yield chunk
        finally:
            self.leave()
        if news.error is not None:
            news.unwrap()

    def read(self, given: int, timeout: float | None = None) -> list[Any] | Landing:
        """Chunks from number `given` on, after one wait for them, or how it ended; then `leave`.

        [] where there was but a reason to look again. Raises as `chunks` does where `given` > 0,
        and is bounded likewise.
        """
        if news := self._at_once(given):
            return news
        landing = self._embark(blocking=True)
        try:
            while landing is None:
                flight = self._now_followed()
                heard = flight.read(given, self._patience(timeout))
                if isinstance(heard, list):
                    return self._heard(heard)
                landing = self._turn(heard, timeout, blocking=True, given=given)
                if self.flight is not flight and landing is None:
                    return []  # whoever makes chunks on demand is another now
            return landing
        finally:
            self._stop_waiting()

    async def read_async(self, given: int, timeout: float | None = None) -> list[Any] | Landing:
        """`read` on an event loop."""
        if news := self._at_once(given):
            return news
        landing = self._embark(blocking=False)
        try:
            while landing is None:
                flight = self._now_followed()
                heard = await flight.read_async(given, self._patience(timeout))
                if isinstance(heard, list):
                    return self._heard(heard)
                landing = self._turn(heard, timeout, blocking=False, given=given)
                if self.flight is not flight and landing is None:
                    return []
            return landing
        finally:
            self._stop_waiting()

    def companion(self) -> Seat:
        """A follower's seat in the call that this one leads."""
        assert self.flight is not None
        seat = Seat(self._flights, self.key, self.digest, self.since, self.max_bytes)
        seat.role, seat.flight = FOLLOW, self.flight
        self.flight.enlist()
        return seat

    @contextmanager
    def waiting_for(self, leader: Leading) -> Iterator[bool]:
        """Whether to wait for `leader`, who makes the next chunk, could end; noted meanwhile."""
        waiting, flight = current(), self._now_followed()
        may_wait = self._flights.may_wait(waiting, flight, leader)
        try:
            yield may_wait
        finally:
            if may_wait and waiting is not None:
                self._flights.stop_waiting(waiting, leader, flight)

    def _at_once(self, given: int) -> list[Any]:
        """Chunks from number `given` on that are there already."""
        if self.role is not FOLLOW or self.flight is None:
            return []
        news = self.flight.take(given)
        return self._heard(news) if isinstance(news, list) else []

    def _heard(self, chunks: list[Any]) -> list[Any]:
        if chunks:
            self._began = None  # the next wait is a new one
        return chunks

    def leave(self) -> None:
        """Stop following. Not needed after following to the end."""
        if self.role is not LEAD:
            flight, self.flight = self.flight, None
            if flight is not None:
                flight.dismiss()

    def _now_followed(self) -> Flight:
        assert self.flight is not None
        return self.flight

    def _embark(self, *, blocking: bool) -> Landing | None:
        """Begin to wait; a landing if there is nothing to wait for. Balance with `_disembark`."""
        if self._began is None:
            self._began = self._flights.now()
        if self.role is FOLLOW and self.flight is None:
            raise RuntimeError("this seat has been followed to its end; join again")
        return self._begin_wait(blocking)

    def _begin_wait(self, blocking: bool) -> Landing | None:
        if self.role is LEAD:
            return self._settle(ended.ELECTED)
        if self.role is THROUGH:
            return self._settle(ended.TOO_LATE)
        flight = self._now_followed()
        if flight.leader.is_stranded:
            return self._turn(TIMED_OUT, None, blocking=blocking)
        leader = flight.leader
        if blocking and leader.thread == threading.get_ident() and not leader.done:
            return self._settle(ended.OWN_THREAD)
        waiting = current()
        if not self._flights.may_wait(waiting, flight, leader):
            return self._settle(ended.IN_CIRCLE)
        self._waiting = None if waiting is None else (waiting, leader)
        return None

    def _disembark(self) -> None:
        self._stop_waiting()
        self.leave()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._flights.stop_waiting(*self._waiting, self._now_followed())
            self._waiting = None

    def _patience(self, timeout: float | None) -> float:
        """Seconds left to wait. A sign of life of the leader prolongs the lease meanwhile."""
        flight, began = self._now_followed(), self._began
        assert began is not None
        own_end = inf if timeout is None else began + timeout
        if flight.source is not None and flight.leader.thread:
            silence_ends = inf  # made on demand in this process: it can be seen to be at work
        else:
            silence_ends = max(began, flight.spoke_at) + self._flights.lease
        left = min(silence_ends, own_end) - self._flights.now()
        loop = flight.leader.loop
        # One's own loop runs as long as one waits on it.
        is_visible = loop is None or loop is asyncio._get_running_loop()
        return left if is_visible else min(left, LOOK_SECONDS)

    def _turn(
        self, news: Landing, timeout: float | None, *, blocking: bool, given: int = 0
    ) -> Landing | None:
        """What the end of one wait means for this seat; None: wait on, maybe for another leader."""
        if news is TIMED_OUT and self._now_followed().leader.is_stranded:
            self._flights.finish(self.key, self._now_followed(), ended.STRANDED)
            news = ended.STRANDED
        if news is TIMED_OUT and self._patience(timeout) > 0:
            return None
        if news.fate is Fate.COALESCED or news.fate is Fate.FAILED:
            return self._settle(news)
        if given:
            news.unwrap()
        if news.fate is Fate.ABANDONED:
            self._disembark()
            self._flights.take_seat(self)
            return self._begin_wait(blocking)
        return self._settle(news)

    def _settle(self, landing: Landing) -> Landing:
        self.landing = landing
        if landing.fate is Fate.THROUGH:
            self.role = THROUGH
        return landing

    def __del__(self) -> None:
        # In a thread of its own: garbage is collected at any moment, also while this thread
        # holds the very locks that ending a call needs.
        if self.flight is not None and not sys.is_finalizing():
            _thread.start_new_thread(self.abandon if self.role is LEAD else self.leave, ())
