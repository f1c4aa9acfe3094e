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
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import msgspec

from thinkonce.clock import Clock
from thinkonce.errors import TierError, UpstreamError
from thinkonce.flight import Flight
from thinkonce.host.flight_socket import Exchange
from thinkonce.host.flights import Claim, FlightTable
from thinkonce.host.fork import free_after_fork
from thinkonce.host.frames import Frame, Kind, frame
from thinkonce.host.mapfile import HostFile
from thinkonce.host.unix_socket import is_available, socket_name, socket_path, sweep
from thinkonce.landing import Fate, Landing
from thinkonce.leading import Leading, led_by

__all__ = ("BYTES_ONLY", "Codec", "Pilot", "Sharing")

log = logging.getLogger(__name__)

RENEW_SHARE = 0.25  # of a lease: how often a busy leader writes into the table
MAX_MESSAGE_CHARACTERS = 10_000
ALONE = Landing(Fate.THROUGH, why="its leader, in another process, could not serve us")
LEADER_WENT = Landing(Fate.ABANDONED, why="its leader, in another process, went away")

_numbers = itertools.count()  # several caches of one process each have a socket


class Codec(msgspec.Struct, frozen=True):
    """How results, and chunks that are not bytes, cross from process to process.

    What cannot be encoded is not shared: its followers elsewhere call for themselves.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def only_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"{type(value).__name__} cannot be shared between processes without a codec")


BYTES_ONLY = Codec(only_bytes, only_bytes)


class Pilot(Protocol):
    """Whoever leads the local copy of a call: a seat."""

    def publish(self, chunk: Any) -> None: ...

    def renew(self) -> None: ...

    def end(self, landing: Landing) -> None: ...


class FlightFeed:
    """One follower elsewhere, reading a flight from its first chunk. Used by one thread."""

    def __init__(self, flight: Flight, codec: Codec) -> None:
        self._flight, self._codec = flight, codec
        self._index = 0
        self._batch: list[Any] = []  # taken from the flight, not yet made into frames
        self._asleep = False
        self._told_at = -inf
        self._wake: Callable[[], None] | None = None
        flight.enlist()

    def frames(self, max_bytes: int, wake: Callable[[], None]) -> tuple[list[bytes], bool]:
        if not self._batch:
            if self._asleep:
                return [], False
            news = self._flight.take(self._index, self._sleep(wake))
            if isinstance(news, Landing):
                self._asleep = False
                return [self._end(news)], True
            if not news:
                return self._sign_of_life(), False
            self._asleep = False
            self._index += len(news)
            self._batch = news[::-1]
        return self._some(max_bytes)

    def close(self) -> None:
        if self._wake is not None:
            self._flight.forget(self._wake)
        self._flight.dismiss()

    def _sleep(self, wake: Callable[[], None]) -> Callable[[], None]:
        def awake() -> None:
            self._asleep = False
            wake()

        self._asleep, self._wake = True, awake
        return awake

    def _sign_of_life(self) -> list[bytes]:
        spoke_at = self._flight.spoke_at
        if spoke_at <= self._told_at:
            return []
        self._told_at = spoke_at
        return [frame(Kind.ALIVE)]

    def _some(self, max_bytes: int) -> tuple[list[bytes], bool]:
        made, size = [], 0
        self._told_at = self._flight.spoke_at
        while self._batch and size < max_bytes:
            try:
                made.append(self._chunk(self._batch.pop()))
            except Exception as error:
                log.warning("flights.chunk_not_shared error=%s", error)
                return [*made, frame(Kind.ALONE)], True
            size += len(made[-1])
        return made, False

    def _chunk(self, chunk: Any) -> bytes:
        if isinstance(chunk, bytes):
            return frame(Kind.CHUNK, chunk)
        return frame(Kind.ITEM, self._codec.encode(chunk))

    def _end(self, landing: Landing) -> bytes:
        try:
            match landing.fate:
                case Fate.COALESCED:
                    return frame(Kind.LANDED, self._codec.encode(landing.value))
                case Fate.FAILED:
                    return frame(Kind.FAILED, msgspec.msgpack.encode(told(landing.error)))
                case Fate.ABANDONED:
                    return frame(Kind.ABANDONED)
                case _:
                    return frame(Kind.ALONE)
        except Exception as error:
            log.warning("flights.result_not_shared error=%s", error)
            return frame(Kind.ALONE)


class FlightReplay:
    """The local copy of a call made elsewhere. Used by one thread."""

    def __init__(self, sharing: Sharing, claim: Claim, flight: Flight, pilot: Pilot) -> None:
        self._sharing, self._claim = sharing, claim
        self._flight, self._pilot = flight, pilot

    def frame(self, frame: Frame) -> bool:
        try:
            return self._play(frame)
        except Exception as error:
            log.warning("flights.frame_not_understood error=%s", error)
            self._pilot.end(ALONE)
            return True

    def lost(self, *, is_dead: bool) -> None:
        if is_dead:
            self._sharing.depose(self._claim)
        self._pilot.end(LEADER_WENT if is_dead else ALONE)

    def is_wanted(self) -> bool:
        if self._flight.end_if_deserted(LEADER_WENT):
            self._pilot.end(LEADER_WENT)
            return False
        self.watch()
        return True

    def watch(self) -> None:
        """Be told when the last local follower leaves, so that the leader can be told."""
        self._flight.when_deserted(lambda: self._sharing.deserted(self))

    def _play(self, heard: Frame) -> bool:
        match heard.kind:
            case Kind.CHUNK:
                self._pilot.publish(heard.payload)
            case Kind.ITEM:
                self._pilot.publish(self._sharing.codec.decode(heard.payload))
            case Kind.ALIVE:
                self._pilot.renew()
            case _:
                self._pilot.end(self._landing(heard))
                return True
        return False

    def _landing(self, heard: Frame) -> Landing:
        match heard.kind:
            case Kind.LANDED:
                return Landing(Fate.COALESCED, self._sharing.codec.decode(heard.payload))
            case Kind.FAILED:
                name, message = msgspec.msgpack.decode(heard.payload, type=tuple[str, str])
                return Landing(Fate.FAILED, error=UpstreamError(f"{name}: {message}"))
            case Kind.ABANDONED:
                return LEADER_WENT
            case _:
                return ALONE


class Sharing:
    """What a `Flights` needs of the other processes. Thread-safe; raises nothing.

    `troubles` counts what did not work, `table.full` the calls that found no place.
    """

    def __init__(
        self, host: HostFile, codec: Codec, clock: Clock, lease: float, linger: float
    ) -> None:
        self.codec, self.table = codec, FlightTable(host)
        self.troubles = 0
        self._host, self._now, self._lease, self._linger = host, clock.monotonic, lease, linger
        self._served: dict[bytes, Flight] = {}
        self._lingering: dict[bytes, tuple[float, Flight, Claim]] = {}
        self._exchange: Exchange | None = None
        self._works = is_available()
        self._opening = threading.Lock()

    def offer(self, flight: Flight, digest: bytes) -> Claim | None:
        """Claim the call for this process; the claim of another process if that makes it.

        After None the flight's leader leads, whether others can follow him or not.
        """
        exchange = self._exchange or self._open()
        if exchange is None:
            return None
        self._let_go(digest)
        self._served[digest] = flight  # first: whoever sees the claim may ask for it at once
        now = self._now()
        try:
            claim = self.table.claim(digest, exchange.address, now, now + self._lease)
        except TierError as error:
            self._note("claim", error)
            claim = None
        if claim is not None and claim.ours:
            flight.digest, flight.claim = digest, claim
            flight.leader.claim = claim
            flight.renew_at = now + self._lease * RENEW_SHARE
            return None
        self._forget(digest, flight)
        return claim

    def follow(self, claim: Claim, flight: Flight, pilot: Pilot) -> None:
        """Let `pilot` lead the local copy of the call that `claim` names."""
        exchange = self._exchange
        if exchange is None:
            pilot.end(ALONE)
            return
        flight.digest = claim.digest
        replay = FlightReplay(self, claim, flight, pilot)
        replay.watch()
        exchange.follow(claim.address, claim.digest, replay)

    def keep(self, flight: Flight) -> None:
        """Renew the claim of a flight that shows life, now and then."""
        now = self._now()
        if flight.claim is None or now < flight.renew_at:
            return
        flight.renew_at = now + self._lease * RENEW_SHARE
        try:
            self.table.renew(flight.claim, now + self._lease)
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
        self._let_go()
        if landed and self._linger:
            with self._opening:
                self._lingering[claim.digest] = (self._now() + self._linger, flight, claim)
        else:
            self._give_back(flight, claim)

    def _let_go(self, digest: bytes = b"") -> None:
        """Give back what has lingered long enough, and `digest` at once."""
        if not self._lingering:
            return
        now, done = self._now(), []
        with self._opening:
            for place, (until, flight, claim) in list(self._lingering.items()):
                if until <= now or place == digest:
                    del self._lingering[place]
                    done.append((flight, claim))
        for flight, claim in done:
            self._give_back(flight, claim)

    def _give_back(self, flight: Flight, claim: Claim) -> None:
        try:
            self.table.release(claim)
        except TierError as error:
            self._note("release", error)
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
                    self._exchange = Exchange(path, self._open_feed)
                except OSError as error:
                    self._works = False  # once, with a line in the log; not at every miss
                    log.warning("flights.not_shared error=%s", error)
            return self._exchange

    def _open_feed(self, digest: bytes) -> FlightFeed | None:
        flight = self._served.get(digest)
        return FlightFeed(flight, self.codec) if flight is not None else None

    def _forget(self, digest: bytes, flight: Flight) -> None:
        if self._served.get(digest) is flight:
            del self._served[digest]

    def _note(self, doing: str, error: TierError) -> None:
        self.troubles += 1
        log.warning("flights.table_trouble doing=%s error=%s", doing, error)


def claims_of(waiting: Leading | None) -> list[Claim]:
    return [leading.claim for leading in led_by(waiting) if isinstance(leading.claim, Claim)]


def told(error: BaseException | None) -> tuple[str, str]:
    """Name and message of an error, as another process gets to know it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    return type(error).__name__, message[:MAX_MESSAGE_CHARACTERS]
