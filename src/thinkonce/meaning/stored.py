"""Stored questions as candidates: those of a partition whose entries are there and alive.

An index says where to look; what is there is read from the tiers, as for any request. What an index
names and no tier has is forgotten, and so is what is expired: renewed, it is named again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from thinkonce.clock import Clock
from thinkonce.entry import Entry
from thinkonce.errors import TierError
from thinkonce.meaning.embeddings import Vector
from thinkonce.meaning.lexical import fingerprint
from thinkonce.meaning.score import arounds
from thinkonce.meaning.space import Space
from thinkonce.meaning.spaces import Spaces
from thinkonce.meaning.verdict import CONSIDERED, Candidate, Question, read_question
from thinkonce.tiers.tier import Tier

__all__ = ("Stored",)

NEIGHBOURS = 8  # rows of the index: how crowded it is around a question says something too
SAME_WORDS = 3  # entries in the same plain words that are looked at
LOOKS = 3  # at an index in which dead rows may hide live ones
REMEMBERED = 4096  # questions, read


class Stored:
    """Thread-safe. `tiers` gives those to read from, nearest first."""

    def __init__(self, spaces: Spaces, tiers: Callable[[], Sequence[Tier]], clock: Clock) -> None:
        self.spaces, self._tiers, self._clock = spaces, tiers, clock
        self.read = lru_cache(maxsize=REMEMBERED)(read_question)

    def in_the_same_words(self, space: Space, text: str) -> list[tuple[bytes, Question]]:
        """By digest; whether one answers `text` guards still have to say."""
        mark = fingerprint(text)
        found = []
        for digest in space.alike(mark)[:SAME_WORDS] if mark else ():
            try:
                question = self._question(digest, space.partition)
            except TierError:
                continue
            if question is None:
                self.spaces.forget(space.partition, digest, mark)
            else:
                found.append((digest, question))
        return found

    def nearest(self, space: Space, vector: Vector) -> list[Candidate]:
        """As many as are considered, the nearest first."""
        for _ in range(LOOKS):
            near = space.nearest(vector, NEIGHBOURS)
            places = arounds([each.similarity for each in near])
            found, has_gone = [], False
            for each, around in zip(near, places, strict=True):
                try:
                    question = self._question(each.name, space.partition)
                except TierError:
                    continue
                if question is None:
                    self.spaces.forget(space.partition, each.name)
                    has_gone = True
                else:
                    found.append(Candidate(each.name, question, around))
                if len(found) == CONSIDERED:
                    return found
            if not has_gone:
                break
        return found

    def entry(self, digest: bytes) -> Entry | None:
        try:
            return self._peeked(digest)
        except TierError:
            return None

    def _peeked(self, digest: bytes) -> Entry | None:
        """Raises TierError where a tier failed that may have it: then it is not gone."""
        key, failure = self.spaces.key_of(digest), None
        for tier in self._tiers():
            try:
                entry = tier.peek(key)
            except TierError as error:
                failure = error
                continue
            if entry is not None:
                return entry
        if failure is not None:
            raise failure
        return None

    def _question(self, digest: bytes, partition: bytes) -> Question | None:
        """None where the entry is no more, or is another partition's, whatever an index says."""
        entry = self._peeked(digest)
        if entry is None or entry.expires_at <= self._clock.wall():
            return None
        if entry.hint is None or entry.hint.partition != partition:
            return None
        return self.read(entry.hint.text)
