"""Calls under way shared between the processes of one host.

    leader's process                           follower's process
    Flight ─► FlightFeed ─► frames ── socket ──► FlightReplay ─► Flight ─► its own followers

The flight here and the flight there are of one kind, and so are their followers. Nothing is
written to a store. Whatever fails here costs a second call at worst.
"""

from __future__ import annotations

import itertools
import logging
import threading
from math import inf

from thinkonce.clock import Clock
from thinkonce.errors import TierError
from thinkonce.flight import Flight
from thinkonce.host.flight_socket import Exchange
from thinkonce.host.flights import Claim, FlightTable
from thinkonce.host.fork import free_after_fork
from thinkonce.host.mapfile import HostFile
from thinkonce.host.unix_socket import is_available, socket_name, socket_path, sweep
from thinkonce.landing import Fate
from thinkonce.leading import Leading, led_by
from thinkonce.replay import ALONE, BYTES_ONLY, Codec, FlightFeed, FlightReplay, Pilot
from thinkonce.seat import Since, is_from_before

__all__ = ("BYTES_ONLY", "Codec", "Sharing")

log = logging.getLogger(__name__)

RENEW_SHARE = 0.25  # of a lease: how often a busy leader writes into the table
LINGER_AT_LEAST = 0.05  # seconds between two looks for what has lingered long enough
MOST_LINGERING = 200  # beyond, each newcomer looks too: places in the table are few
LARGEST_EPOCH = 2**32 - 1  # that fits into a claim

_numbers = itertools.count()  # several caches of one process each have a socket


class Sharing:
    """What a `Flights` needs of the other processes. Thread-safe; raises nothing.

    `troubles` counts what did not work, `table.full` the calls that found no place.
    """

    def __init__(
        self, host: HostFile, codec: Codec, clock: Clock, lease: float, linger: float
    ) -> None:
        self.codec, self.table = codec, FlightTable(host)
        self.troubles = 0
        self._host, self._now, self.lease, self._linger = host, clock.monotonic, lease, linger
        self._served: dict[bytes, Flight] = {}
        self._lingering: dict[bytes, tuple[float, Flight, Claim]] = {}
        self._exchange: Exchange | None = None
        self._works = is_available()
        self._opening = threading.Lock()

    def offer(self, flight: Flight, digest: bytes, since: Since | None = None) -> Claim | None:
        """Claim the call for this process; the claim of another process if that makes it.

        After None the flight's leader leads, whether others can follow him or not. Where two
        event loops make one call, each its own, the first one's is shared.
        """
        exchange = self._exchange or self._open()
        if exchange is None:
            return None
        self._let_go(digest, due=len(self._lingering) >= MOST_LINGERING)
        # First: whoever sees the claim may ask for it at once.
        if self._served.setdefault(digest, flight) is not flight:
            return None
        now = self._now()
        try:
            claim = self._claim(digest, exchange.address, now, since)
        except TierError as error:
            self._note("claim", error)
            claim = None
        if claim is not None and claim.ours:
            flight.digest, flight.claim = digest, claim
            flight.leader.claim = claim
            flight.renew_at = now + self.lease * RENEW_SHARE
            return None
        self._forget(digest, flight)
        return claim

    def _claim(
        self, digest: bytes, address: bytes, now: float, since: Since | None
    ) -> Claim | None:
        """As `table.claim`; a call that `since` rules out loses its place, not its followers."""
        epoch = 0 if since is None else min(since.epoch + 1, LARGEST_EPOCH)
        while True:
            claim = self.table.claim(digest, address, now, now + self.lease, epoch=epoch)
            if claim is None or claim.ours or not is_from_before(epoch_of(claim), since):
                return claim
            self.table.depose(claim)

    def follow(self, claim: Claim, flight: Flight, pilot: Pilot) -> None:
        """Let `pilot` lead the local copy of the call that `claim` names."""
        exchange = self._exchange
        if exchange is None:
            pilot.end(ALONE)
            return
        flight.digest, flight.epoch = claim.digest, epoch_of(claim)
        replay = FlightReplay(self, claim, flight, pilot)
        # First: what is wanted from here on is told to a leader who is followed already.
        exchange.follow(claim.address, claim.digest, replay)
        flight.draw_from(replay)
        replay.watch()

    def keep(self, flight: Flight) -> None:
        """Renew the claim of a flight that shows life, now and then."""
        now = self._now()
        if flight.claim is None or now < flight.renew_at:
            return
        flight.renew_at = now + self.lease * RENEW_SHARE
        try:
            self.table.renew(flight.claim, now + self.lease)
        except TierError as error:
            self._note("renew", error)

    def release(self, flight: Flight, *, landed: bool = False) -> None:
        """Before the flight ends: whoever asks from now on begins a new one.

        Once it has `landed`, its answer may still be on its way into the store, where another
        process looks first. So it can be followed for `linger` seconds more, from elsewhere only.
        """
        claim, flight.claim = flight.claim, None
        if claim is None:
            return
        if landed and self._linger:
            self._let_linger(flight, claim)
        else:
            self._give_back([(flight, claim)])

    def _let_linger(self, flight: Flight, claim: Claim) -> None:
        with self._opening:
            is_first = not self._lingering
            self._lingering.pop(claim.digest, None)  # a new one goes to the end
            self._lingering[claim.digest] = (self._now() + self._linger, flight, claim)
        if is_first and (exchange := self._exchange) is not None:
            exchange.call(lambda: None)  # it sleeps until something is due, and now something is

    def _let_go_in_time(self) -> float:
        """As `_let_go`; seconds until there is more to let go, inf if nothing lingers."""
        self._let_go()
        with self._opening:
            until = next((until for until, _, _ in self._lingering.values()), inf)
        # What comes meanwhile is let go in one go: waking for each would cost more than it frees.
        return max(until - self._now(), LINGER_AT_LEAST)

    def _let_go(self, digest: bytes = b"", *, due: bool = True) -> None:
        """Give back `digest`, and, where `due`, what has lingered long enough."""
        lingering = self._lingering
        if not lingering:
            return
        now, done = self._now(), []
        with self._opening:
            if digest in lingering:
                done.append(lingering.pop(digest)[1:])
            # All linger equally long, so who came first goes first.
            while due and lingering and (first := next(iter(lingering.values())))[0] <= now:
                done.append(lingering.pop(first[2].digest)[1:])
        if done:
            self._give_back(done)

    def _give_back(self, done: list[tuple[Flight, Claim]]) -> None:
        try:
            self.table.release(*[claim for _, claim in done])
        except TierError as error:
            self._note("release", error)
        for flight, claim in done:
            self._forget(claim.digest, flight)

    def may_wait(self, waiting: Leading | None, flight: Flight) -> bool:
        """As `leading.may_wait`, for circles that pass through other processes."""
        claims = claims_of(waiting)
        if not claims or not flight.digest:
            return True
        try:
            return self.table.may_wait(claims, flight.digest, self._now())
        except TierError as error:
            self._note("wait", error)
            return True

    def stop_waiting(self, waiting: Leading) -> None:
        try:
            if claims := claims_of(waiting):
                self.table.stop_waiting(claims)
        except TierError as error:
            self._note("wait", error)

    def depose(self, claim: Claim) -> None:
        """The owner of `claim` is dead: let somebody else have its place."""
        try:
            self.table.depose(claim)
        except TierError as error:
            self._note("depose", error)

    def want(self, replay: FlightReplay, count: int) -> None:
        if self._exchange is not None:
            self._exchange.want(replay, count)

    def deserted(self, replay: FlightReplay) -> None:
        if self._exchange is not None:
            self._exchange.reconsider(replay)

    def close(self) -> None:
        """Give back all claims, drop all connections, end the thread. Idempotent."""
        self._works = False
        for flight in list(self._served.values()):
            self.release(flight)
        for digest in list(self._lingering):
            self._let_go(digest)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def in_child(self) -> None:
        """After a fork: all of this was the parent's."""
        exchange, self._exchange = self._exchange, None
        self._served, self._lingering = {}, {}
        free_after_fork(self._opening)
        if exchange is not None:
            exchange.drop_in_child()

    def _open(self) -> Exchange | None:
        if not self._works:
            return None
        with self._opening:
            if self._exchange is None:
                try:
                    path = socket_path(self._host.path, socket_name(next(_numbers)))
                    sweep(path.parent)
                    self._exchange = Exchange(
                        path, self._open_feed, self._let_go_in_time, self.close
                    )
                except OSError as error:
                    self._works = False  # once, with a line in the log; not at every miss
                    log.warning("flights.not_shared error=%s", error)
            return self._exchange

    def _open_feed(self, digest: bytes) -> FlightFeed | None:
        self._let_go()
        flight = self._served.get(digest)
        if flight is None:
            return None
        feed = FlightFeed(flight, self.codec)
        # It may have been given up a moment ago. Now that it is followed, it will not be.
        if flight.landing is not None and flight.landing.fate is Fate.ABANDONED:
            feed.close()
            return None
        return feed

    def _forget(self, digest: bytes, flight: Flight) -> None:
        if self._served.get(digest) is flight:
            del self._served[digest]

    def _note(self, doing: str, error: TierError) -> None:
        self.troubles += 1
        log.warning("flights.table_trouble doing=%s error=%s", doing, error)


def claims_of(waiting: Leading | None) -> list[Claim]:
    return [leading.claim for leading in led_by(waiting) if isinstance(leading.claim, Claim)]


def epoch_of(claim: Claim) -> int | None:
    """The purge epoch under which a call began, where its leader said it."""
    return claim.epoch - 1 if claim.epoch else None
