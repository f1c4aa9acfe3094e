"""What a verifier says of pairs, in time or not at all: remembered, shared by askers.

    pair ──► remembered? ──► being judged? ──► queue ──► thread: one pair ──► remember
                                                 │ full, off after failures, too late: None

A pair that is not judged in time is no match; its request goes on to the model.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from math import isfinite

from thinkonce.clock import SYSTEM, Clock
from thinkonce.host.fork import on_fork
from thinkonce.meaning.embedder import embeddable
from thinkonce.meaning.verifier import Verifier, VerifierError
from thinkonce.tiers.breaker import Circuit

__all__ = ("Verification",)

log = logging.getLogger("thinkonce.semantic")

MOST_WAITING = 64  # pairs in the queue; more could not be judged in time
REMEMBERED = 4096  # pairs: questions of hits come again

Pair = tuple[str, str]
Waiting = Future[float | None]


class Verification:
    """Thread-safe. `failures` counts pairs that were not judged, `late` those judged too late,
    `refused` those not even tried."""

    def __init__(self, verifier: Verifier, *, timeout: float = 0.2, clock: Clock = SYSTEM) -> None:
        self.verifier, self.timeout, self._clock = verifier, timeout, clock
        self.failures = self.late = self.refused = 0
        self._circuit = Circuit(f"verifier {verifier.name}", clock)
        self._known: OrderedDict[Pair, float | None] = OrderedDict()
        self._queue: deque[tuple[Pair, Waiting, float]] = deque()
        self._judging: dict[Pair, Waiting] = {}
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closing = False
        on_fork(self._in_child)

    def logit(self, asked: str, stored: str, timeout: float | None = None) -> float | None:
        """Finite. Blocks for `timeout` seconds at most, None: the usual. None if there is none."""
        found = self._ask((embeddable(asked), embeddable(stored)))
        if not isinstance(found, Future):
            return found
        try:
            return found.result(self.timeout if timeout is None else timeout)
        except TooLate:
            self.late += 1
            return None
        except VerifierError:
            return None

    def close(self) -> None:
        """Ends the threads; who waits gets nothing. Idempotent."""
        with self._wake:
            self._closing = True
            left = list(self._queue)
            self._queue.clear()
            self._wake.notify_all()
        for pair, waiting, _ in left:
            self._fail(pair, waiting, VerifierError("the verifier was closed"))
        for thread in self._threads:
            thread.join()
        self.verifier.close()

    def _ask(self, pair: Pair) -> float | Waiting | None:
        with self._wake:
            if pair in self._known:
                self._known.move_to_end(pair)
                return self._known[pair]
            if (judging := self._judging.get(pair)) is not None:
                return judging
            full = len(self._queue) >= MOST_WAITING
            if self._closing or full or not self._circuit.allows():
                self.refused += 1
                return None
            waiting: Waiting = Future()
            waiting.set_running_or_notify_cancel()  # whoever gives up does not end it for others
            self._judging[pair] = waiting
            self._queue.append((pair, waiting, self._clock.monotonic() + self.timeout))
            self._begin_threads()
            self._wake.notify()
            return waiting

    def _begin_threads(self) -> None:
        if len(self._threads) < self.verifier.concurrency:
            name = f"thinkonce-verifier-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                pair, waiting, until = self._queue.popleft()
            if self._clock.monotonic() > until:  # nobody waits for it any more
                self._fail(pair, waiting, VerifierError("too many pairs are waiting"))
            else:
                self._judge(pair, waiting)

    def _judge(self, pair: Pair, waiting: Waiting) -> None:
        try:
            found = _finite(self.verifier.logit(*pair))
        except Exception as error:
            self._circuit.failed(error)
            self._fail(pair, waiting, error)
            return
        self._circuit.succeeded()
        with self._wake:
            self._judging.pop(pair, None)
            self._known[pair] = found
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        waiting.set_result(found)

    def _fail(self, pair: Pair, waiting: Waiting, error: Exception) -> None:
        log.debug("verifier %s failed: %s", self.verifier.name, error)
        failure = VerifierError(f"{self.verifier.name}: {error}")
        failure.__cause__ = error
        with self._wake:
            self.failures += 1
            self._judging.pop(pair, None)
        waiting.set_exception(failure)

    def _in_child(self) -> None:
        """After a fork: the threads, and whoever waits for them, are the parent's."""
        self._wake = threading.Condition()
        self._threads, self._judging = [], {}
        self._queue.clear()


def _finite(found: float | None) -> float | None:
    if found is None or isfinite(found):
        return found
    raise VerifierError(f"a judgement of {found}")
