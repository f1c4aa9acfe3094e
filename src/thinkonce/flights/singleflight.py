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

import threading
import weakref
from collections.abc import Hashable

from thinkonce.clock import SYSTEM, Clock
from thinkonce.flights.flight import LEASE_SECONDS, MAX_FEED_BYTES, Flight
from thinkonce.flights.landing import COALESCED, Fate, Landing
from thinkonce.flights.leading import (
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
from thinkonce.flights.seat import Digest, Seat, Since, is_from_before
from thinkonce.flights.sharing import BYTES_ONLY, Codec, Sharing
from thinkonce.host.fork import free_after_fork, on_fork
from thinkonce.host.mapfile import HostFile

__all__ = ("Codec", "Fate", "Flight", "Flights", "Landing", "Role", "Seat", "Since")


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

    def join(
        self,
        key: Hashable,
        digest: Digest | None = None,
        since: Since | None = None,
        *,
        max_bytes: float = 0,
    ) -> Seat:
        """Take part in the call for `key`: lead it if nobody does. Never waits for it.

        A call that `since` rules out is not joined: a new one takes its place, which whoever
        comes later joins. `max_bytes` is for the chunks of this call; 0: as of all.
        """
        seat = Seat(self, key, digest, since, max_bytes or self._max_bytes)
        self.take_seat(seat)
        return seat

    def take_seat(self, seat: Seat) -> None:
        """Give `seat` its role and flight: at the start, and when its leader went away."""
        outer, new, replaced = current(), None, None
        while new is None:
            known = self._table.get(seat.key)
            purged = known is not None and is_from_before(known.epoch, seat.since)
            with self._lock:
                replaced = self._table.get(seat.key)
                if replaced is not known:
                    continue
                role = None if known is None else self._role_in(known, outer, purged=purged)
                if role is not None:
                    seat.role, seat.flight = role, known if role is FOLLOW else None
                    return
                new = self._table[seat.key] = self._flight(seat, outer)
        if replaced is not None and self.sharing is not None:
            self.sharing.release(replaced)
        if not self._is_led_elsewhere(seat, new):
            seat.role, seat.flight = LEAD, new
            enter(new.leader)

    def _flight(self, seat: Seat, outer: Leading | None) -> Flight:
        return Flight(
            clock=self._clock,
            lease=self.lease,
            max_bytes=seat.max_bytes,
            leader=Leading(outer, threading.get_ident()),
            lock=self._lock,
            epoch=None if seat.since is None else seat.since.epoch,
        )

    def _is_led_elsewhere(self, seat: Seat, flight: Flight) -> bool:
        """If so, `flight` becomes the local copy of that call, and `seat` its first follower."""
        if self.sharing is None or seat.digest is None:
            return False
        pilot = Seat(self, seat.key, None, None, 0)
        pilot.role, pilot.flight = LEAD, flight
        try:
            claim = self.sharing.offer(flight, seat.digest(), seat.since)
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

    def _role_in(self, flight: Flight, outer: Leading | None, *, purged: bool) -> Role | None:
        """The role of one who comes to `flight` now; None if it is to be replaced."""
        if outer is not None and flight.leader in led_by(outer):
            return THROUGH
        is_hung = self.now() >= flight.expires_at and not flight.rests
        if flight.landing is not None or is_hung or purged:
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

    def may_wait(self, waiting: Leading | None, flight: Flight, leader: Leading) -> bool:
        """Note the wait, unless it closes a circle, in this process or through others."""
        if waiting is None:
            return True
        if not may_wait(waiting, leader):
            return False
        if self.sharing is None or self.sharing.may_wait(waiting, flight):
            return True
        stop_waiting(waiting, leader)
        return False

    def stop_waiting(self, waiting: Leading, leader: Leading, flight: Flight) -> None:
        stop_waiting(waiting, leader)
        if self.sharing is not None and flight.digest:
            self.sharing.stop_waiting(waiting)

    def keep_claim(self, flight: Flight) -> None:
        if self.sharing is not None and flight.claim is not None:
            self.sharing.keep(flight)

    def adopt(self, lease: float) -> None:
        """Calls that begin from now on have this lease, in seconds; all waits do."""
        self.lease = lease
        if self.sharing is not None:
            self.sharing.lease = lease

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
