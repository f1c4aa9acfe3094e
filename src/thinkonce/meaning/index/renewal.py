"""Vectors made later: of questions whose own was not there in time, or is another embedder's.

    digests without a vector ──► texts, from the entries ──► embedder, a few at a time ──► store

After a change of the embedder this goes through a partition the first time it is asked for. Until
its vector is there, a question is not compared; vectors of two embedders never are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf

from thinkonce.clock import SYSTEM, Clock
from thinkonce.errors import TierError
from thinkonce.meaning.embedders.embedder import Embedder, embeddable, unit_rows
from thinkonce.meaning.index.packed import packed_bytes
from thinkonce.meaning.index.space import Space
from thinkonce.tiers.tier import StoreTier

__all__ = ("Renewal",)

log = logging.getLogger("thinkonce.semantic")

PAUSE_SECONDS = 60.0  # after a failure
AT_ONCE = 8  # texts: some 10 ms, for which whoever asks something meanwhile may have to wait

Texts = Callable[[Sequence[bytes]], Sequence[str | None]]


class Renewal:
    """For one thread at a time. `made` counts vectors, `failures` texts that got none.

    `texts` gives the questions of entries by digest, None for those that are gone.
    """

    def __init__(
        self, embedder: Embedder, texts: Texts, store: StoreTier | None, clock: Clock = SYSTEM
    ) -> None:
        self.made = self.failures = 0
        self._embedder, self._texts, self._store = embedder, texts, store
        self._clock, self._not_before = clock, -inf

    def may(self, space: Space) -> bool:
        """Whether there is something to do, and the embedder did not fail just now."""
        return bool(space.missing) and self._clock.monotonic() >= self._not_before

    def some(self, space: Space) -> None:
        """Make a few of the vectors that `space` lacks."""
        digests = list(islice(space.missing, AT_ONCE))
        try:
            texts = self._texts(digests)
        except TierError as error:
            self._pause(error)
            return
        asked = {
            digest: text for digest, text in zip(digests, texts, strict=True) if text is not None
        }
        made = self._made(asked)
        if asked and not made:
            return  # it is the embedder, not a text
        for digest in digests:  # also what is gone, and what cannot be embedded
            space.missing.pop(digest, None)
        for digest, vector in made.items():
            space.give(digest, vector)
        self._keep(made)

    def _made(self, asked: dict[bytes, str]) -> dict[bytes, bytes]:
        """One text must not cost the others their vectors: after a failure each is tried alone."""
        try:
            made = self._vectors(asked)
        except Exception:
            made = {}
            for digest, text in asked.items():
                try:
                    made |= self._vectors({digest: text})
                except Exception as error:  # whatever a model raises
                    self.failures += 1
                    failure = error
            if not made:
                self._pause(failure)
        self.made += len(made)
        return made

    def _vectors(self, asked: dict[bytes, str]) -> dict[bytes, bytes]:
        if not asked:
            return {}
        embedder = self._embedder
        found = embedder.embed([embeddable(text) for text in asked.values()])
        rows = unit_rows(found, len(asked), embedder.dimensions)
        return {digest: packed_bytes(row) for digest, row in zip(asked, rows, strict=True)}

    def _pause(self, error: Exception) -> None:
        log.debug("vectors are not made anew for %.0f s: %s", PAUSE_SECONDS, error)
        self._not_before = self._clock.monotonic() + PAUSE_SECONDS

    def _keep(self, made: dict[bytes, bytes]) -> None:
        """In the store, for other processes and the next start; made once more if that fails."""
        if self._store is None or not made:
            return
        try:
            self._store.questions.renew(self._embedder.name, made.items())
        except TierError as error:
            log.debug("vectors made anew were not kept: %s", error)
