"""Calls under way shared between the processes of one host.

    leader's process                           follower's process
    Flight ─► FlightFeed ─► frames ── socket ──► FlightReplay ─► Flight ─► its own followers

The flight here and the flight there are of one kind, and so are their followers. Nothing is
written to a store. Whatever fails here costs a second call at worst.

A process that is alone with its file writes no claims; it does so when another one comes, before
that one claims anything (`thinkonce.host.roster`).
"""

from __future__ import annotations

import itertools
import logging
import threading
from contextlib import suppress
from math import inf
from typing import Final

from thinkonce.clock import Clock
from thinkonce.errors import TierError
from thinkonce.flights.flight import Flight
from thinkonce.flights.landing import Fate
from thinkonce.flights.leading import Leading, led_by
from thinkonce.flights.replay import ALONE, BYTES_ONLY, Codec, FlightFeed, FlightReplay, Pilot
from thinkonce.flights.seat import Since, is_from_before
from thinkonce.host.flight_socket import Exchange
from thinkonce.host.flights import Claim, FlightTable
from thinkonce.host.fork import free_after_fork
from thinkonce.host.mapfile import HostFile
from thinkonce.host.roster import EVERYTHING, Member, Roster, ask_to_share
from thinkonce.host.unix_socket import is_available, socket_name, socket_path, sweep

__all__ = ("BYTES_ONLY", "Codec", "Sharing")

log = logging.getLogger(__name__)

RENEW_SHARE = 0.25  # of a lease: how often a busy leader writes into the table
LINGER_AT_LEAST = 0.05  # seconds between two looks for what has lingered long enough
MOST_LINGERING = 200  # beyond, each newcomer looks too: places in the table are few
LOOK_SECONDS = 1.0  # between two looks whether the others have gone
LARGEST_EPOCH = 2**32 - 1  # that fits into a claim

UNWRITTEN: Final = "unwritten"  # instead of the claim of a call that is served to nobody yet

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
        self._lingering: dict[bytes, tuple[float, Flight]] = {}
        self._exchange: Exchange | None = None
        self._works = is_available()
        self._roster = Roster(host)
        self._member: Member | None = None
        self._has_entered = False
        self._turn = 0  # of the roster, in which we are alone; 0: others are here
        self._look_at = 0.0
        self._lock = threading.RLock()  # a finalizer may close what this thread works on

    def offer(self, flight: Flight, digest: bytes, since: Since | None = None) -> Claim | None:
        """Claim the call for this process; the claim of another process if that makes it.

        After None the flight's leader leads, whether others can follow him or not. Where two
        event loops make one call, each its own, the first one's is shared.
        """
        exchange = self._exchange or self._open()
        if exchange is None:
            return None
        self._let_go(digest, due=len(self._lingering) >= MOST_LINGERING)
        if self._turn and self._turn != self._host.turn[0]:
            self._share_all()
        with self._lock:
            # First: whoever sees the claim may ask for it at once.
            if self._served.setdefault(digest, flight) is not flight:
                return None
            flight.digest = digest
            if self._turn:
                flight.claim, flight.renew_at = UNWRITTEN, inf
                return None
        claim = self._claim(flight, exchange, since)
        if claim is not None and claim.ours:
            self._take(flight, claim)
            return None
        self._forget(flight)
        return claim

    def _claim(self, flight: Flight, exchange: Exchange, since: Since | None) -> Claim | None:
        """As `table.claim`; a call that `since` rules out loses its place, not its followers."""
        while True:
            now = self._now()
            epoch = 0 if flight.epoch is None else min(flight.epoch + 1, LARGEST_EPOCH)
            try:
                claim = self.table.claim(
                    flight.digest, exchange.address, now, now + self.lease, epoch=epoch
                )
            except TierError as error:
                self._note("claim", error)
                return None
            if claim is None or claim.ours or not is_from_before(epoch_of(claim), since):
                return claim
            self.depose(claim)

    def _take(self, flight: Flight, claim: Claim) -> None:
        flight.claim = flight.leader.claim = claim
        flight.renew_at = claim.until - self.lease * (1 - RENEW_SHARE)

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
        with self._lock:
            if flight.claim is None or flight.digest in self._lingering:
                return
            lingers, is_first = landed and self._linger, not self._lingering
            if lingers:
                self._lingering[flight.digest] = (self._now() + self._linger, flight)
        if not lingers:
            self._give_back([flight])
        elif is_first and (exchange := self._exchange) is not None:
            exchange.call(lambda: None)  # it sleeps until something is due, and now something is

    def _upkeep(self) -> float:
        """Let go what is due, look around; seconds until there is more to do, inf if there is not.

        What comes meanwhile is let go in one go: waking for each would cost more than it frees.
        """
        self._let_go()
        self._look_around()
        with self._lock:
            until = next((until for until, _ in self._lingering.values()), inf)
        return max(until - self._now(), LINGER_AT_LEAST)

    def _let_go(self, digest: bytes = b"", *, due: bool = True) -> None:
        """Give back `digest`, and, where `due`, what has lingered long enough."""
        lingering = self._lingering
        if not lingering:
            return
        now, done = self._now(), []
        with self._lock:
            if digest in lingering:
                done.append(lingering.pop(digest)[1])
            # All linger equally long, so who came first goes first.
            while due and lingering and (first := next(iter(lingering.values())))[0] <= now:
                done.append(lingering.pop(first[1].digest)[1])
        if done:
            self._give_back(done)

    def _give_back(self, done: list[Flight]) -> None:
        with self._lock:
            claims = [flight.claim for flight in done if isinstance(flight.claim, Claim)]
            for flight in done:
                flight.claim = None
        try:
            if claims:
                self.table.release(*claims)
        except TierError as error:
            self._note("release", error)
        for flight in done:
            self._forget(flight)

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
        member, self._member = self._member, None
        if member is not None:
            with suppress(TierError):  # it will be seen that nobody is there
                self._roster.leave(member)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def in_child(self) -> None:
        """After a fork: all of this was the parent's."""
        exchange, self._exchange = self._exchange, None
        self._served, self._lingering = {}, {}
        self._member, self._has_entered, self._turn = None, False, 0
        free_after_fork(self._lock)
        if exchange is not None:
            exchange.drop_in_child()

    def _open(self) -> Exchange | None:
        if not self._works:
            return None
        with self._lock:
            if self._exchange is None:
                try:
                    path = socket_path(self._host.path, socket_name(next(_numbers)))
                    sweep(path.parent)
                    exchange = Exchange(path, self._open_feed, self._upkeep, self.close)
                except OSError as error:
                    self._works = False  # once, with a line in the log; not at every miss
                    log.warning("flights.not_shared error=%s", error)
                    return None
                self._enter(exchange)
                self._exchange = exchange
            return self._exchange

    def _open_feed(self, digest: bytes) -> FlightFeed | None:
        if digest == EVERYTHING:
            self._share_all()
            return None
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

    def _forget(self, flight: Flight) -> None:
        if self._served.get(flight.digest) is flight:
            del self._served[flight.digest]

    # -- alone, or not ---------------------------------------------------------------------

    def _enter(self, exchange: Exchange) -> None:
        """Be known to the other processes; who was alone until now writes down its calls first."""
        try:
            member, alone = self._roster.enter(exchange.address)
            self._member, self._has_entered = member, True
            if alone is not None:
                if not ask_to_share(alone.address):
                    log.info("flights.not_told pid=%d", alone.owner.pid)
                self._roster.company(alone)
            if member is not None:
                self._turn = self._roster.is_alone(member)
        except TierError as error:
            self._note("enter", error)

    def _look_around(self) -> None:
        """Have the others gone? Has somebody emptied the file?"""
        exchange, now = self._exchange, self._now()
        if self._turn or exchange is None or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        member = self._member
        if not self._has_entered or (member is not None and not self._roster.is_member(member)):
            self._enter(exchange)
        elif member is not None:
            try:
                self._turn = self._roster.is_alone(member)
            except TierError as error:
                self._note("look", error)

    def _share_all(self) -> None:
        """Somebody else is here: claim the calls under way, and those that linger."""
        with self._lock:  # to the end: whoever is told that it is done relies on it
            exchange, member = self._exchange, self._member
            if not self._turn or exchange is None or member is None:
                return
            self._turn = 0
            flights = [flight for flight in self._served.values() if flight.claim is UNWRITTEN]
            before = self.troubles
            for flight in flights:
                if self.troubles == before:  # else each would wait for the file's lock
                    self._write_down(flight, exchange)
            for flight in flights:
                self._write_waits(flight)
            try:
                self._roster.company(member)
            except TierError as error:
                self._note("company", error)

    def _write_down(self, flight: Flight, exchange: Exchange) -> None:
        claim = self._claim(flight, exchange, None)
        if claim is not None and claim.ours:
            self._take(flight, claim)
            return
        flight.claim = None
        lingering = self._lingering.get(flight.digest)
        if lingering is not None and lingering[1] is flight:
            del self._lingering[flight.digest]
        self._forget(flight)

    def _write_waits(self, flight: Flight) -> None:
        """What it waits for in this process, for circles that pass through others."""
        claims = claims_of(flight.leader)[:1]
        for awaited in flight.leader.waits_for[-1:]:
            if claims and isinstance(awaited.claim, Claim):
                try:
                    self.table.may_wait(claims, awaited.claim.digest, self._now())
                except TierError as error:
                    self._note("wait", error)

    def _note(self, doing: str, error: TierError) -> None:
        self.troubles += 1
        log.warning("flights.table_trouble doing=%s error=%s", doing, error)


def claims_of(waiting: Leading | None) -> list[Claim]:
    return [leading.claim for leading in led_by(waiting) if isinstance(leading.claim, Claim)]


def epoch_of(claim: Claim) -> int | None:
    """The purge epoch under which a call began, where its leader said it."""
    return claim.epoch - 1 if claim.epoch else None
