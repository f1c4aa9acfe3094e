"""A call under way as frames for another process, and made again there out of frames.

Flight ─► FlightFeed ─► CHUNK ITEM ALIVE ... LANDED ─► FlightReplay ─► Flight
    ◄─── want ◄──────────────── WANT ◄───────────────────── want ◄────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from thinkonce.errors import UpstreamError
from thinkonce.flights.flight import Flight
from thinkonce.flights.landing import Fate, Landing
from thinkonce.host.frames import Frame, Kind, frame

if TYPE_CHECKING:
    from thinkonce.flights.sharing import Sharing
    from thinkonce.host.flights import Claim

__all__ = ("ALONE", "BYTES_ONLY", "Codec", "FlightFeed", "FlightReplay", "Pilot")

log = logging.getLogger(__name__)

MAX_MESSAGE_CHARACTERS = 10_000
ALONE = Landing(Fate.THROUGH, why="its leader, in another process, could not serve us")
LEADER_WENT = Landing(Fate.ABANDONED, why="its leader, in another process, went away")


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

    def want(self, count: int) -> None:
        self._flight.want(count)

    def close(self) -> None:
        if self._wake is not None:
            self._flight.forget(self._wake)
        self._flight.dismiss()
        source = self._flight.source
        if source is not None and not self._flight.followers:
            source.deserted()

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
                    return frame(Kind.FAILED, told(landing.error))
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

    def want(self, count: int) -> None:
        """As a flight's `Source`: have the leader asked for so many chunks."""
        self._sharing.want(self, count)

    def deserted(self) -> None:
        """As a flight's `Source`; a copy has no followers elsewhere."""

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
                return Landing(Fate.FAILED, error=raised(heard.payload))
            case Kind.ABANDONED:
                return LEADER_WENT
            case _:
                return ALONE


class _Told(msgspec.Struct, array_like=True):
    """An error as it crosses; `args` for classes that are made again from them."""

    name: str
    message: str
    args: tuple[Any, ...] | None = None


def told(error: BaseException | None) -> bytes:
    """An error as another process gets to know it; `raised` reads it back."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    brief = _Told(type(error).__name__, message[:MAX_MESSAGE_CHARACTERS])
    if isinstance(error, UpstreamError) and error.crossing.get(brief.name) is type(error):
        try:
            return msgspec.msgpack.encode(msgspec.structs.replace(brief, args=error.args))
        except (TypeError, ValueError, OverflowError) as trouble:
            log.warning("flights.error_not_shared error=%s", trouble)
    return msgspec.msgpack.encode(brief)


def raised(payload: bytes) -> UpstreamError:
    """The error that `told` made bytes of. Raises msgspec errors for other bytes."""
    heard = msgspec.msgpack.decode(payload, type=_Told)
    kind = UpstreamError.crossing.get(heard.name)
    if kind is not None and heard.args is not None:
        try:
            return kind(*heard.args)
        except Exception as trouble:  # another version of the class, with other arguments
            log.warning("flights.error_not_understood error=%s", trouble)
    return UpstreamError(f"{heard.name}: {heard.message}")
