"""One thread per process that carries calls under way to and from other processes.

    Serving     somebody elsewhere follows a call of ours:   feed ──► frames ──► socket
    Following   we follow a call of somebody elsewhere:      socket ──► frames ──► replay

What a feed or a replay does with the frames is theirs (`thinkonce.flights.sharing`); this file
moves bytes, never blocks, and gives up on peers of another user, peers that talk nonsense, and
peers that take nothing for a while (`thinkonce.host.flight_peers`).
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
from selectors import EVENT_READ, DefaultSelector

from thinkonce.host.flight_peers import Feed, Following, Peer, Replay, Serving
from thinkonce.host.unix_socket import connect, is_same_user, listen

__all__ = ("Exchange", "Feed", "Replay")

LOOK_SECONDS = (
    1.0  # how exactly the patience with peers is kept, and a pause after failing to accept
)
MAX_SERVED = 512

log = logging.getLogger(__name__)


class Exchange:
    """The thread and its sockets. `follow`, `reconsider` and `close` may be called by anyone.

    The thread calls `upkeep` before it sleeps; that says in how many seconds to call it again.
    `broken` is called should it end by itself. Raises OSError if the socket at `path` cannot be
    made.
    """

    def __init__(
        self,
        path: Path,
        open_feed: Callable[[bytes], Feed | None],
        upkeep: Callable[[], float] = lambda: inf,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.open_feed = path, open_feed
        self._upkeep, self._broken = upkeep, broken
        self.address = os.fsencode(path)
        self._server = listen(path)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._rung = self._closing = self._is_over = False
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

    def want(self, replay: Replay, count: int) -> None:
        """Tell the leader of what `replay` carries out that `count` chunks are wanted of it."""
        self.call(lambda: self._want(replay, count))

    def call(self, job: Callable[[], None]) -> None:
        """Have `job` done by the thread of the exchange; here and now if that has ended."""
        self._jobs.append(job)
        if self._is_over:
            self._do_jobs()
        elif not self._rung:
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
                self._do_jobs()
                self._look_after_peers()
        except Exception:
            log.exception("flights.thread_ended")
            self._broken()
        finally:
            self._tidy_up()

    def _do_jobs(self) -> None:
        """Whatever goes wrong with one job ends that job, not the thread."""
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            try:
                job()
            except Exception:
                log.exception("flights.job_failed")

    def _tidy_up(self) -> None:
        # First the name: who finds no socket knows at once that nobody listens.
        self.path.unlink(missing_ok=True)
        self._server.close()
        self._is_over = True
        self._do_jobs()
        for peer in list(self.peers):
            peer.close()
        for handle in (self._bell, self._ear, self.selector):
            handle.close()

    def _next_look(self) -> float | None:
        due = self._accepts_at < inf or any(peer.due < inf for peer in self.peers)
        seconds = min(LOOK_SECONDS if due else inf, self._upkeep())
        return seconds if seconds < inf else None

    def _look_after_peers(self) -> None:
        now = time.monotonic()
        if now >= self._accepts_at:
            self._accepts_at = inf
            self.selector.register(self._server, EVENT_READ, self._accept)
        for peer in [peer for peer in self.peers if now >= peer.due]:
            peer.overdue()

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

    def _want(self, replay: Replay, count: int) -> None:
        for peer in list(self.peers):
            if isinstance(peer, Following) and peer.replay is replay:
                peer.want(count)

    def _reconsider(self, replay: Replay) -> None:
        for peer in list(self.peers):
            if isinstance(peer, Following) and peer.replay is replay and not replay.is_wanted():
                peer.is_over = True
                peer.close()
