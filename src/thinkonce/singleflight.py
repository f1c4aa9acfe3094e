"""One call for many askers: threads, tasks, and the processes of one host.

    seat = flights.join(key, digest)
    LEAD      make the call: seat.publish(chunk)*, then seat.land(value) or seat.fail(error)
    FOLLOW    seat.follow() or seat.chunks(): what the leader gets
    THROUGH   make the call and tell nobody: to wait could deadlock, or miss the first chunks

What followers get when a leader does not come through:

    it raises                FAILED, once; the next asker begins a new call
    it is cancelled or dies  the first follower to wake leads (LEAD), the others follow it
    its event loop stops     the same, within a second
    it is silent for a lease THROUGH; the next asker begins a new call in its place
    mid-stream, either way   UpstreamError for who was given chunks: no other call continues this

An answer may have been stored between an asker's look into the tiers and its becoming the
leader: whoever leads looks again before it calls.
"""

from __future__ import annotations

import _thread
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from math import inf
from typing import Any

from thinkonce import landing as ended
from thinkonce.clock import SYSTEM, Clock
from thinkonce.flight import LEASE_SECONDS, MAX_FEED_BYTES, Flight
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.host.mapfile import HostFile
from thinkonce.landing import COALESCED, TIMED_OUT, Fate, Landing
from thinkonce.leading import (
    FOLLOW,
    LEAD,
    THROUGH,
    Leading,
    Role,
    current,
    enter,
    leave,
    led_by,
    may_wait,
    stop_waiting,
)
from thinkonce.sharing import BYTES_ONLY, Codec, Sharing

__all__ = ("Codec", "Fate", "Flight", "Flights", "Landing", "Role", "Seat")

# How often whoever follows a leader on an event loop looks whether that loop still runs.
LOOK_SECONDS = 1.0

Digest = Callable[[], bytes]


class Seat:
    """One asker's part in a call. Belongs to one thread or task at a time.

    A leader ends its call with `land`, `fail` or `abandon`; a follower leaves by following to the
    end or by `leave`. A seat that is dropped does so by itself, a little later.
    """

    __slots__ = ("_flights", "_since", "_waiting", "digest", "flight", "key", "landing", "role")

    def __init__(self, flights: Flights, key: Hashable, digest: Digest | None) -> None:
        self._flights = flights
        self.key, self.digest = key, digest
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
        landing = self._embark(blocking=True)
        given = 0
        try:
            while landing is None:
                news = self._now_followed().read(given, self._patience(timeout))
                if isinstance(news, list):
                    given += len(news)
                    yield from news
                    self._since = self._flights.now()
                else:
                    landing = self._turn(news, timeout, blocking=True, given=given)
            if landing.error is not None:
                landing.unwrap()
        finally:
            self._disembark()

    async def achunks(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """`chunks` on an event loop."""
        landing = self._embark(blocking=False)
        given = 0
        try:
            while landing is None:
                news = await self._now_followed().read_async(given, self._patience(timeout))
                if isinstance(news, list):
                    given += len(news)
                    for chunk in news:
                        yield chunk
                    self._since = self._flights.now()
                else:
                    landing = self._turn(news, timeout, blocking=False, given=given)
            if landing.error is not None:
                landing.unwrap()
        finally:
            self._disembark()

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
        self._since = self._flights.now()
        self._waiting: Leading | None = None
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
        if blocking and flight.leader.thread == threading.get_ident():
            return self._settle(ended.OWN_THREAD)
        waiting = current()
        if not self._flights.may_wait(waiting, flight):
            return self._settle(ended.IN_CIRCLE)
        self._waiting = waiting
        return None

    def _disembark(self) -> None:
        if self._waiting is not None:
            self._flights.stop_waiting(self._waiting, self._now_followed())
            self._waiting = None
        self.leave()

    def _patience(self, timeout: float | None) -> float:
        """Seconds left to wait. A sign of life of the leader prolongs the lease meanwhile."""
        silence_ends = max(self._since, self._now_followed().spoke_at) + self._flights.lease
        own_end = inf if timeout is None else self._since + timeout
        left = min(silence_ends, own_end) - self._flights.now()
        on_a_loop = self._now_followed().leader.loop is not None
        return min(left, LOOK_SECONDS) if on_a_loop else left

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


class Flights:
    """The calls under way in this process. Thread-safe.

    With `host`, calls are shared with other processes that open the same file; results cross by
    `codec`. `lease` is how many seconds of silence end a follower's patience; `max_bytes` bounds
    the chunks kept for each call; a landed call can be followed from other processes for `linger`
    seconds more. `sharing` (None without `host`) tells what could not be shared.
    """

    def __init__(
        self,
        host: HostFile | None = None,
        *,
        codec: Codec = BYTES_ONLY,
        lease: float = LEASE_SECONDS,
        clock: Clock = SYSTEM,
        max_bytes: int = MAX_FEED_BYTES,
        linger: float = 0.0,
    ) -> None:
        self.lease, self.now = lease, clock.monotonic
        self._clock, self._max_bytes = clock, max_bytes
        self._lock = threading.Lock()
        self._table: dict[Hashable, Flight] = {}
        self.sharing = Sharing(host, codec, clock, lease, linger) if host is not None else None
        if self.sharing is not None:
            weakref.finalize(self, self.sharing.close)
        on_fork(self._in_child)

    def __len__(self) -> int:
        return len(self._table)

    def join(self, key: Hashable, digest: Digest | None = None) -> Seat:
        """Take part in the call for `key`: lead it if nobody does. Never waits for it."""
        seat = Seat(self, key, digest)
        self.take_seat(seat)
        return seat

    def take_seat(self, seat: Seat) -> None:
        """Give `seat` its role and flight: at the start, and when its leader went away."""
        outer = current()
        with self._lock:
            flight = self._table.get(seat.key)
            if flight is not None and (role := self._role_in(flight, outer)) is not None:
                seat.role, seat.flight = role, flight if role is FOLLOW else None
                return
            flight = self._table[seat.key] = Flight(
                clock=self._clock,
                lease=self.lease,
                max_bytes=self._max_bytes,
                leader=Leading(outer, threading.get_ident()),
                lock=self._lock,
            )
        if not self._is_led_elsewhere(seat, flight):
            seat.role, seat.flight = LEAD, flight
            enter(flight.leader)

    def _is_led_elsewhere(self, seat: Seat, flight: Flight) -> bool:
        """If so, `flight` becomes the local copy of that call, and `seat` its first follower."""
        if self.sharing is None or seat.digest is None:
            return False
        pilot = Seat(self, seat.key, None)
        pilot.role, pilot.flight = LEAD, flight
        try:
            claim = self.sharing.offer(flight, seat.digest())
        except BaseException:
            pilot.abandon()
            raise
        if claim is None:
            pilot.flight = None
            return False
        flight.leader.thread = 0
        flight.enlist()
        seat.role, seat.flight = FOLLOW, flight
        self.sharing.follow(claim, flight, pilot)
        return True

    def _role_in(self, flight: Flight, outer: Leading | None) -> Role | None:
        """The role of one who comes to `flight` now; None if it is to be replaced."""
        if outer is not None and flight.leader in led_by(outer):
            return THROUGH
        if flight.landing is not None or self.now() >= flight.expires_at:
            return None
        if not flight.admits:
            return THROUGH
        flight.followers += 1
        return FOLLOW

    # -- for seats -----------------------------------------------------------------------

    def finish(self, key: Hashable, flight: Flight, landing: Landing) -> None:
        """End `flight`; the next asker for `key` begins a new one."""
        with self._lock:
            if self._table.get(key) is flight:
                del self._table[key]
        leave(flight.leader)
        if self.sharing is not None:
            self.sharing.release(flight, landed=landing.fate is COALESCED)
        flight.end(landing)

    def may_wait(self, waiting: Leading | None, flight: Flight) -> bool:
        """Note the wait, unless it closes a circle, in this process or through others."""
        if waiting is None:
            return True
        if not may_wait(waiting, flight.leader):
            return False
        if self.sharing is None or self.sharing.may_wait(waiting, flight):
            return True
        stop_waiting(waiting, flight.leader)
        return False

    def stop_waiting(self, waiting: Leading, flight: Flight) -> None:
        stop_waiting(waiting, flight.leader)
        if self.sharing is not None and flight.digest:
            self.sharing.stop_waiting(waiting)

    def keep_claim(self, flight: Flight) -> None:
        if self.sharing is not None and flight.claim is not None:
            self.sharing.keep(flight)

    def close(self) -> None:
        """Share no more: followers in other processes make their own call. Idempotent."""
        if self.sharing is not None:
            self.sharing.close()

    def _in_child(self) -> None:
        """After a fork: the calls under way are the parent's, and so was whoever held the lock."""
        free_after_fork(self._lock)
        self._table.clear()
        if self.sharing is not None:
            self.sharing.in_child()
