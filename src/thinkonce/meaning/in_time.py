"""What takes a model, in time or not at all: remembered, shared by askers, made by threads.

    key ──► remembered? ──► being made? ──► queue ──► thread ──► remember
                                              │ full, off after failures, too late: None

A model takes milliseconds of a core, so it never runs on an event loop, and a request that cannot
have its value in time goes on without it.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from typing import Generic, TypeVar

from thinkonce.circuit import Circuit
from thinkonce.clock import Clock
from thinkonce.host.fork import on_fork

__all__ = ("InTime", "Maker", "Wanted")

log = logging.getLogger("thinkonce.semantic")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes the values: in so many threads, of so many keys at once.

    `kind` and `name` are what logs call it, `failure` is what it raises.
    """

    kind: str
    name: str
    failure: type[Exception]
    threads: int = 1
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Wanted(Generic[K, V]):
    """A key in the queue, its value once it is made, and until when somebody may wait for it."""

    key: K
    waiting: Future[V]
    until: float


class InTime(ABC, Generic[K, V]):
    """Thread-safe. `failures` counts keys that got no value, `late` those that got it too late,
    `refused` those that were not even tried. Whoever waits gets the same value as others.
    """

    def __init__(self, maker: Maker, timeout: float, most_waiting: int, clock: Clock) -> None:
        self.timeout, self._maker, self._most_waiting = timeout, maker, most_waiting
        self.failures = self.late = self.refused = 0
        self._clock = clock
        self._circuit = Circuit(f"{maker.kind} {maker.name}", clock)
        self._known: OrderedDict[K, V] = OrderedDict()
        self._queue: deque[Wanted[K, V]] = deque()
        self._making: dict[K, Future[V]] = {}
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closing = False
        on_fork(self._in_child)

    def close(self) -> None:
        """Ends the threads; who waits gets nothing. Idempotent."""
        with self._wake:
            self._closing = True
            left = list(self._queue)
            self._queue.clear()
            self._wake.notify_all()
        self._fail(left, self._maker.failure(f"the {self._maker.kind} was closed"))
        for thread in self._threads:
            thread.join()

    # -- what differs ----------------------------------------------------------------------

    @abstractmethod
    def _make(self, batch: Sequence[Wanted[K, V]]) -> None:
        """Hand each of `batch` to `_made` or `_fail`. Never raises."""

    @abstractmethod
    def _bound(self, key: K, value: V) -> None:
        """`key` was remembered last: let go of the oldest if that is too much. Under the lock."""

    # -- asking ----------------------------------------------------------------------------

    def _get(self, key: K, timeout: float | None) -> V | None:
        """Blocks for `timeout` seconds at most, None: the usual. None if there is none by then."""
        found = self._ask(key)
        if not isinstance(found, Future):
            return found
        try:
            return found.result(self.timeout if timeout is None else timeout)
        except TooLate:
            self.late += 1
            return None
        except self._maker.failure:
            return None

    def _ask(self, key: K) -> V | Future[V] | None:
        with self._wake:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            if (making := self._making.get(key)) is not None:
                return making
            full = len(self._queue) >= self._most_waiting
            if self._closing or full or not self._circuit.allows():
                self.refused += 1
                return None
            waiting: Future[V] = Future()
            waiting.set_running_or_notify_cancel()  # whoever gives up does not end it for others
            self._making[key] = waiting
            self._queue.append(Wanted(key, waiting, self._clock.monotonic() + self.timeout))
            self._begin_threads()
            self._wake.notify()
            return waiting

    def _begin_threads(self) -> None:
        if len(self._threads) < self._maker.threads:
            name = f"thinkonce-{self._maker.kind}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    # -- making ----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                count = min(len(self._queue), self._maker.at_once)
                batch = [self._queue.popleft() for _ in range(count)]
            self._make(batch)

    def _made(self, wanted: Wanted[K, V], value: V) -> None:
        with self._wake:
            self._making.pop(wanted.key, None)
            self._known[wanted.key] = value
            self._bound(wanted.key, value)
        wanted.waiting.set_result(value)

    def _fail(self, batch: Sequence[Wanted[K, V]], error: BaseException) -> None:
        maker = self._maker
        log.debug("%s %s failed: %s", maker.kind, maker.name, error)
        failure = maker.failure(f"{maker.name}: {error}")
        failure.__cause__ = error
        with self._wake:
            self.failures += len(batch)
            for wanted in batch:
                self._making.pop(wanted.key, None)
        for wanted in batch:
            wanted.waiting.set_exception(failure)

    def _in_child(self) -> None:
        """After a fork: the threads, and whoever waits for them, are the parent's."""
        self._wake = threading.Condition()
        self._threads, self._making = [], {}
        self._queue.clear()
