"""The connections of a process's exchange: followers that it serves and leaders that it follows.

Used by the thread of the exchange alone. A slow peer costs `HIGH_WATER_BYTES` and one frame.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from math import inf
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Protocol

from thinkonce.host.frames import Frame, Kind, Unframer, frame, hello, said_hello, said_want, want
from thinkonce.host.unix_socket import is_same_user

if TYPE_CHECKING:
    from thinkonce.host.flight_socket import Exchange

__all__ = ("Feed", "Following", "Peer", "Replay", "Serving")

HIGH_WATER_BYTES = 256 * 1024
RECEIVE_BYTES = 256 * 1024
HELLO_SECONDS = 5.0  # a peer that has connected and says nothing
STALL_SECONDS = 10.0  # a peer that takes nothing although there is something
MAX_PROBES = 5

log = logging.getLogger(__name__)


class Feed(Protocol):
    """A call of ours, as one follower elsewhere gets it."""

    def frames(self, max_bytes: int, wake: Callable[[], None]) -> tuple[list[bytes], bool]:
        """What is new, about `max_bytes` of it, and whether that is the end.

        If nothing is new, `wake` is called once there is, from any thread.
        """
        ...

    def want(self, count: int) -> None:
        """The follower wants the first `count` chunks. Returns at once."""
        ...

    def close(self) -> None: ...


class Replay(Protocol):
    """A call of somebody else, carried out again for the followers here."""

    def frame(self, frame: Frame) -> bool:
        """Take in one frame; True if it was the last. ValueError for what cannot be."""
        ...

    def lost(self, *, is_dead: bool) -> None:
        """The connection broke before the end. `is_dead`: nobody listens at the other end."""
        ...

    def is_wanted(self) -> bool:
        """Does anybody here still follow? If not, this was the end."""
        ...


class Peer:
    """One connection. `due` is when it is given up, on the monotonic clock."""

    def __init__(self, exchange: Exchange, connection: socket.socket) -> None:
        self.exchange, self.socket = exchange, connection
        self.due = inf
        self.is_open = True
        self.unframer = Unframer()
        self.out = bytearray()
        self._interest = EVENT_READ
        exchange.peers.add(self)
        exchange.selector.register(connection, EVENT_READ, self.ready)

    def ready(self, events: int) -> None:
        """Whatever goes wrong with one peer ends that peer, not the thread."""
        try:
            if events & EVENT_READ:
                self.hear()
            if events & EVENT_WRITE and self.is_open:
                self.write()
        except (OSError, ValueError) as error:
            log.debug("flights.peer_dropped error=%s", error)
            self.close()
        except Exception:
            log.exception("flights.peer_failed")
            self.close()

    def hear(self) -> None:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        for heard in self.unframer.feed(data):
            if self.is_open:
                self.take_in(heard)

    def send_out(self) -> None:
        """Send what the other end will take now, and ask to be told when it takes more."""
        while self.out:
            try:
                sent = self.socket.send(self.out)
            except BlockingIOError:
                break
            del self.out[:sent]
            self.due = time.monotonic() + STALL_SECONDS
        if not self.out:
            self.due = inf
        interest = EVENT_READ | (EVENT_WRITE if self.out else 0)
        if interest != self._interest:
            self._interest = interest
            self.exchange.selector.modify(self.socket, interest, self.ready)

    def overdue(self) -> None:
        """It is past `due`: give it up, whatever goes wrong with that."""
        try:
            self.give_up()
        except Exception:
            log.exception("flights.peer_failed")
            self.close()

    def give_up(self) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        if self.is_open:
            self.is_open = False
            self.exchange.peers.discard(self)
            self.exchange.selector.unregister(self.socket)
            self.socket.close()
            self.closed()

    def take_in(self, heard: Frame) -> None:
        raise NotImplementedError

    def write(self) -> None:
        raise NotImplementedError

    def closed(self) -> None:
        raise NotImplementedError


class Serving(Peer):
    """A follower elsewhere, fed with a call of ours."""

    def __init__(self, exchange: Exchange, connection: socket.socket) -> None:
        self.feed: Feed | None = None
        self.has_ended = False
        super().__init__(exchange, connection)
        self.due = time.monotonic() + HELLO_SECONDS

    def take_in(self, heard: Frame) -> None:
        if self.feed is not None and not self.has_ended:
            self.feed.want(said_want(heard))
            return
        if self.has_ended:
            return  # what it wants was on its way as the end was told
        self.feed = self.exchange.open_feed(said_hello(heard))
        if self.feed is None:
            self.out += frame(Kind.ABANDONED)
            self.has_ended = True
        self.write()

    def write(self) -> None:
        """Move frames from the feed to the socket until one of the two has no more to give."""
        while True:
            self._fill()
            had = len(self.out)
            self.send_out()
            if self.out or not had:
                break
        if self.has_ended and not self.out:
            self.close()

    def closed(self) -> None:
        if self.feed is not None:
            self.feed.close()

    def _fill(self) -> None:
        while self.feed is not None and not self.has_ended and len(self.out) < HIGH_WATER_BYTES:
            frames, self.has_ended = self.feed.frames(HIGH_WATER_BYTES, self._wake)
            if not frames:
                break
            self.out += b"".join(frames)

    def _wake(self) -> None:
        self.exchange.call(lambda: self.ready(EVENT_WRITE) if self.is_open else None)


class Following(Peer):
    """A leader elsewhere, whose call is replayed here."""

    def __init__(
        self,
        exchange: Exchange,
        connection: socket.socket,
        replay: Replay,
        address: bytes,
        digest: bytes,
    ) -> None:
        self.replay, self.address, self.digest = replay, address, digest
        self.is_over = False  # the replay has been told the end
        super().__init__(exchange, connection)
        if not is_same_user(connection):
            self.end(is_dead=False)
            return
        self.out += hello(digest)
        self.ready(EVENT_WRITE)

    def take_in(self, heard: Frame) -> None:
        self.is_over = self.replay.frame(heard)
        if self.is_over:
            self.close()

    def want(self, count: int) -> None:
        self.out += want(count)
        self.ready(EVENT_WRITE)

    def write(self) -> None:
        try:
            self.send_out()
        except OSError:
            # The leader has said all it had to say and closed; that is still to be read.
            self.out.clear()
            self.send_out()

    def closed(self) -> None:
        if not self.is_over:
            self.ask_again(1)

    def end(self, *, is_dead: bool) -> None:
        """The replay hears no more from here."""
        self.is_over = True
        self.replay.lost(is_dead=is_dead)
        self.close()

    def ask_again(self, attempt: int) -> None:
        connection = self.exchange.connected(self.address, self.replay)
        if connection is not None:
            Probe(self, connection, attempt)


class Probe(Following):
    """Is the leader that broke off dead, or has it only dropped us?

    A dying process may still accept for a moment, while its sockets are being closed: so it is
    asked until it answers or refuses.
    """

    def __init__(self, broken: Following, connection: socket.socket, attempt: int) -> None:
        self.attempt = attempt
        super().__init__(broken.exchange, connection, broken.replay, broken.address, broken.digest)
        self.due = time.monotonic() + HELLO_SECONDS

    def want(self, count: int) -> None:
        """Nobody listens to what a probe wants."""

    def take_in(self, heard: Frame) -> None:
        if heard.kind is Kind.ABANDONED:
            super().take_in(heard)
        else:
            self.end(is_dead=False)

    def give_up(self) -> None:
        self.end(is_dead=False)

    def closed(self) -> None:
        if self.is_over:
            return
        if self.attempt < MAX_PROBES:
            self.ask_again(self.attempt + 1)
        else:
            self.end(is_dead=False)
