"""Vectors of texts, in time or not at all: remembered, shared by askers, made in batches.

    text ──► remembered? ──► being made? ──► queue ──► thread: up to 32 texts at once ──► remember
                                               │ full, off after failures, too late: None

Embedding takes milliseconds of a core, so it never runs on an event loop, and a request that cannot
have its vector in time goes on as if nothing were like it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate

import numpy as np
from numpy.typing import NDArray

from thinkonce.clock import SYSTEM, Clock
from thinkonce.host.fork import on_fork
from thinkonce.meaning.embedder import Embedder, EmbedderError, unit_rows
from thinkonce.tiers.breaker import Circuit

__all__ = ("Embeddings", "Vector")

log = logging.getLogger("thinkonce.semantic")

Vector = NDArray[np.float32]  # (dimensions,), of length 1

MOST_AT_ONCE = 32  # texts in a call of the embedder
MOST_WAITING = 1024  # texts in the queue
MAX_BYTES = 32 * 1024 * 1024  # of vectors that are remembered, about
OVERHEAD = 300  # bytes beside a vector and its text

Waiting = Future[Vector]


class Embeddings:
    """Thread-safe. `failures` counts texts that got no vector, `late` those that got it too late.

    Whoever waits gets the same array as others and must not write into it.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        timeout: float = 0.5,
        max_bytes: int = MAX_BYTES,
        clock: Clock = SYSTEM,
    ) -> None:
        self.embedder, self.timeout, self._max_bytes = embedder, timeout, max_bytes
        self.failures = self.late = self.refused = 0
        self._circuit = Circuit(f"embedder {embedder.name}", clock)
        self._known: OrderedDict[str, Vector] = OrderedDict()
        self._bytes = 0
        self._queue: deque[tuple[str, Waiting]] = deque()
        self._making: dict[str, Waiting] = {}
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closing = False
        on_fork(self._in_child)

    def get(self, text: str, timeout: float | None = None) -> Vector | None:
        """Blocks for `timeout` seconds at most, None: the usual. None if there is none by then."""
        found = self._ask(text)
        if not isinstance(found, Future):
            return found
        try:
            return found.result(self.timeout if timeout is None else timeout)
        except TooLate:
            self.late += 1
            return None
        except EmbedderError:
            return None

    async def aget(self, text: str, timeout: float | None = None) -> Vector | None:
        """`get` on an event loop."""
        found = self._ask(text)
        if not isinstance(found, Future):
            return found
        made = asyncio.wrap_future(found)
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await asyncio.shield(made)  # others wait for the same vector
        except TimeoutError:
            made.cancel()
            self.late += 1
            return None
        except EmbedderError:
            return None

    def begin(self, text: str) -> None:
        """Have a vector made that nobody waits for yet."""
        self._ask(text)

    def known(self, text: str) -> Vector | None:
        """The vector if it is there now. Makes none."""
        with self._wake:
            return self._known.get(text)

    def close(self) -> None:
        """Ends the threads; who waits gets nothing. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._fail(list(self._queue), EmbedderError("the embedder was closed"))
        self._queue.clear()
        self.embedder.close()

    # -- asking ----------------------------------------------------------------------------

    def _ask(self, text: str) -> Vector | Waiting | None:
        with self._wake:
            if (vector := self._known.get(text)) is not None:
                self._known.move_to_end(text)
                return vector
            if (making := self._making.get(text)) is not None:
                return making
            full = len(self._queue) >= MOST_WAITING
            if self._closing or full or not self._circuit.allows():
                self.refused += 1
                return None
            waiting: Waiting = Future()
            waiting.set_running_or_notify_cancel()  # whoever gives up does not end it for others
            self._making[text] = waiting
            self._queue.append((text, waiting))
            self._begin_threads()
            self._wake.notify()
            return waiting

    def _begin_threads(self) -> None:
        if len(self._threads) < self.embedder.concurrency:
            name = f"thinkonce-embedder-{len(self._threads)}"
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
                count = min(len(self._queue), MOST_AT_ONCE)
                batch = [self._queue.popleft() for _ in range(count)]
            self._make(batch)

    def _make(self, batch: list[tuple[str, Waiting]]) -> None:
        texts = [text for text, _ in batch]
        try:
            found = self.embedder.embed(texts)
            rows = unit_rows(found, len(texts), self.embedder.dimensions)
        except Exception as error:
            self._circuit.failed(error)
            self._without_the_bad(batch, error)
            return
        self._circuit.succeeded()
        for (text, waiting), row in zip(batch, rows, strict=True):
            vector = row.copy()  # else one row would keep all of the batch
            vector.flags.writeable = False
            self._remember(text, vector)
            waiting.set_result(vector)

    def _without_the_bad(self, batch: list[tuple[str, Waiting]], error: Exception) -> None:
        """One text must not cost the others their vectors: each is tried alone, while it works."""
        if len(batch) == 1 or self._circuit.is_open:
            self._fail(batch, error)
            return
        for one in batch:
            self._make([one])

    def _remember(self, text: str, vector: Vector) -> None:
        with self._wake:
            self._making.pop(text, None)
            self._known[text] = vector
            self._bytes += _size(text, vector)
            while self._bytes > self._max_bytes and self._known:
                self._bytes -= _size(*self._known.popitem(last=False))

    def _fail(self, batch: list[tuple[str, Waiting]], error: BaseException) -> None:
        log.debug("embedder %s failed: %s", self.embedder.name, error)
        self.failures += len(batch)
        failure = EmbedderError(f"{self.embedder.name}: {error}")
        failure.__cause__ = error
        with self._wake:
            for text, _ in batch:
                self._making.pop(text, None)
        for _, waiting in batch:
            waiting.set_exception(failure)

    def _in_child(self) -> None:
        """After a fork: the threads, and whoever waits for them, are the parent's."""
        self._wake = threading.Condition()
        self._threads, self._making = [], {}
        self._queue.clear()


def _size(text: str, vector: Vector) -> int:
    return vector.nbytes + len(text) * 2 + OVERHEAD
