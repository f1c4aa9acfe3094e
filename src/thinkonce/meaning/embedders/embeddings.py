"""Vectors of texts, in time or not at all (see `in_time`), made in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thinkonce.clock import SYSTEM, Clock
from thinkonce.meaning.embedders.embedder import Embedder, EmbedderError, unit_rows
from thinkonce.meaning.in_time import InTime, Maker, Wanted

__all__ = ("Embeddings", "Vector")

Vector = NDArray[np.float32]  # (dimensions,), of length 1

MOST_AT_ONCE = 32  # texts in a call of the embedder
MOST_WAITING = 1024  # texts in the queue
MAX_BYTES = 32 * 1024 * 1024  # of vectors that are remembered, about
OVERHEAD = 300  # bytes beside a vector and its text


# Whose text it is, and the text: what one tenant asked must not be told to another by the time
# that a vector takes, so each has vectors of its own.
Asked = tuple[str, str]


class Embeddings(InTime[Asked, Vector]):
    """See `InTime`. Whoever gets a vector must not write into it. `whose`: a tenant."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        timeout: float = 0.5,
        max_bytes: int = MAX_BYTES,
        clock: Clock = SYSTEM,
    ) -> None:
        threads = embedder.concurrency
        maker = Maker("embedder", embedder.name, EmbedderError, threads, MOST_AT_ONCE)
        super().__init__(maker, timeout, MOST_WAITING, clock)
        self.embedder, self._max_bytes, self._bytes = embedder, max_bytes, 0

    def get(self, text: str, timeout: float | None = None, whose: str = "") -> Vector | None:
        """Blocks for `timeout` seconds at most, None: the usual. None if there is none by then."""
        return self._get((whose, text), timeout)

    def begin(self, text: str, whose: str = "") -> None:
        """Have a vector made that nobody waits for yet."""
        self._ask((whose, text))

    def known(self, text: str, whose: str = "") -> Vector | None:
        """The vector if it is there now. Makes none."""
        with self._wake:
            return self._known.get((whose, text))

    def close(self) -> None:
        super().close()
        self.embedder.close()

    # -- making ----------------------------------------------------------------------------

    def _make(self, batch: Sequence[Wanted[Asked, Vector]]) -> None:
        texts = [wanted.key[1] for wanted in batch]
        try:
            found = self.embedder.embed(texts)
            rows = unit_rows(found, len(texts), self.embedder.dimensions)
        except Exception as error:
            self._circuit.failed(error)
            self._without_the_bad(batch, error)
            return
        self._circuit.succeeded()
        for wanted, row in zip(batch, rows, strict=True):
            vector = row.copy()  # else one row would keep all of the batch
            vector.flags.writeable = False
            self._made(wanted, vector)

    def _without_the_bad(self, batch: Sequence[Wanted[Asked, Vector]], error: Exception) -> None:
        """One text must not cost the others their vectors: each is tried alone, while it works."""
        if len(batch) == 1 or self._circuit.is_open:
            self._fail(batch, error)
            return
        for one in batch:
            self._make([one])

    def _bound(self, key: Asked, value: Vector) -> None:
        self._bytes += _size(key, value)
        while self._bytes > self._max_bytes and self._known:
            self._bytes -= _size(*self._known.popitem(last=False))


def _size(key: Asked, vector: Vector) -> int:
    return vector.nbytes + len(key[1]) * 2 + OVERHEAD
