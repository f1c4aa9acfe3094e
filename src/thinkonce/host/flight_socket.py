"""One thread per process that carries calls under way to and from other processes.

    Serving     somebody elsewhere follows a call of ours:   feed ──► frames ──► socket
    Following   we follow a call of somebody elsewhere:      socket ──► frames ──► replay

What a feed or a replay does with the frames is theirs (`thinkonce.sharing`); this file moves
bytes, never blocks, and gives up on peers of another user, peers that talk nonsense, and peers
that take nothing for a while. A slow peer costs `HIGH_WATER_BYTES` and one frame.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Protocol

from thinkonce.host.frames import Frame, Kind, Unframer, frame, hello, said_hello
from thinkonce.host.unix_socket import connect, is_same_user, listen

__all__ = ("Exchange", "Feed", "Replay")

HIGH_WATER_BYTES = 256 * 1024
RECEIVE_BYTES = 256 * 1024
HELLO_SECONDS = 5.0  # a peer that has connected and says nothing
STALL_SECONDS = 10.0  # a peer that takes nothing although there is something
LOOK_SECONDS = 1.0  # how exactly the two are kept, and a pause after failing to accept
MAX_SERVED = 512
MAX_PROBES = 5

log = logging.getLogger(__name__)


class Feed(Protocol):
    """A call of ours, as one follower elsewhere gets it."""

    def frames(self, max_bytes: int, wake: Callable[[], None]) -> tuple[list[bytes], bool]:
        """What is new, about `max_bytes` of it, and whether that is the end.

        If nothing is new, `wake` is called once there is, from any thread.
        """
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


class Exchange:
    """The thread and its sockets. `follow`, `reconsider` and `close` may be called by anyone.

    Raises OSError if the socket at `path` cannot be made.
    """

    def __init__(self, path: Path, open_feed: Callable[[bytes], Feed | None]) -> None:
        self.path, self.open_feed = path, open_feed
        self.address = os.fsencode(path)
        self._server = listen(path)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._rung = self._closing = False
        self._jobs: deque[Callable[[], None]] = deque()
        self._accepts_at = inf  # when to listen again after a failure
        self.selector = DefaultSelector()
        self.peers: set[Peer] = set()
        self.selector.register(self._ear, EVENT_READ, self._hear_bell)
        self.selector.register(self._server, EVENT_READ, self._accept)
        self._thread = threading.Thread(target=self._run, name="thinkonce-flights", daemon=True)
        self._thread.start()

    def follow(self, address: bytes, digest: bytes, replay: Replay) -> None:
        """Carry the call for `digest`, led by who listens at `address`, to `replay`."""
        self.call(lambda: self._follow(address, digest, replay))

    def reconsider(self, replay: Replay) -> None:
        """The followers of `replay` have left: drop the connection unless others came."""
        self.call(lambda: self._reconsider(replay))

    def call(self, job: Callable[[], None]) -> None:
        """Have `job` done by the thread of the exchange."""
        self._jobs.append(job)
        if not self._rung:
            self._rung = True
            try:
                self._bell.send(b"!")
            except OSError:
                return  # closed, or so full that it will be heard anyway

    def close(self) -> None:
        """Drop all connections and end the thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self.call(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def drop_in_child(self) -> None:
        """After a fork: let go of the parent's sockets, and of nothing it still uses."""
        self._closing = True
        for handle in (self._server, self._bell, self._ear, self.selector):
            handle.close()
        for peer in self.peers:
            peer.socket.close()

    # -- in the thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, events in self.selector.select(self._next_look()):
                    key.data(events)
                while self._jobs:
                    self._jobs.popleft()()
                self._look_after_peers()
        finally:
            self._tidy_up()

    def _tidy_up(self) -> None:
        # First the name: who finds no socket knows at once that nobody listens.
        self.path.unlink(missing_ok=True)
        self._server.close()
        while self._jobs:
            self._jobs.popleft()()
        for peer in list(self.peers):
            peer.close()
        for handle in (self._bell, self._ear, self.selector):
            handle.close()

    def _next_look(self) -> float | None:
        due = self._accepts_at < inf or any(peer.due < inf for peer in self.peers)
        return LOOK_SECONDS if due else None

    def _look_after_peers(self) -> None:
        now = time.monotonic()
        if now >= self._accepts_at:
            self._accepts_at = inf
            self.selector.register(self._server, EVENT_READ, self._accept)
        for peer in [peer for peer in self.peers if now >= peer.due]:
            peer.give_up()

    def _hear_bell(self, events: int) -> None:
        self._ear.recv(4096)
        self._rung = False  # before the jobs are done: a later one rings again

    def _accept(self, events: int) -> None:
        try:
            peer, _ = self._server.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.warning("flights.accept_failed error=%s", error)
            self.selector.unregister(self._server)  # else it would be ready for ever
            self._accepts_at = time.monotonic() + LOOK_SECONDS
            return
        if len(self.peers) >= MAX_SERVED or not is_same_user(peer):
            peer.close()
            return
        peer.setblocking(False)
        Serving(self, peer)

    def _follow(self, address: bytes, digest: bytes, replay: Replay) -> None:
        if (leader := self.connected(address, replay)) is not None:
            Following(self, leader, replay, address, digest)

    def connected(self, address: bytes, replay: Replay) -> socket.socket | None:
        """A connection to the leader; None, after telling `replay`, if there is none to be had."""
        try:
            if not self._closing:
                return connect(address)
        except OSError as error:
            replay.lost(is_dead=isinstance(error, ConnectionRefusedError | FileNotFoundError))
            return None
        replay.lost(is_dead=False)
        return None

    def _reconsider(self, replay: Replay) -> None:
        for peer in list(self.peers):
            if isinstance(peer, Following) and peer.replay is replay and not replay.is_wanted():
                peer.is_over = True
                peer.close()


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

    def give_up(self) -> None:
        """It is past `due`."""
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
        if self.feed is not None or self.has_ended:
            raise ValueError(f"a follower has nothing to say after its greeting, got {heard.kind}")
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

    def write(self) -> None:
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
