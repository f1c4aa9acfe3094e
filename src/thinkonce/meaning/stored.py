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
from thinkonce.meaning.embedders.embeddings import Vector
from thinkonce.meaning.index.flat import Near
from thinkonce.meaning.index.space import Space
from thinkonce.meaning.index.spaces import Spaces
from thinkonce.meaning.text.hidden import is_hidden
from thinkonce.meaning.text.lexical import fingerprint
from thinkonce.meaning.verdict.origin import Origin
from thinkonce.meaning.verdict.ruling import CONSIDERED, Candidate, Question, read_question
from thinkonce.meaning.verdict.score import Around, arounds
from thinkonce.tiers.tier import Tier

__all__ = ("Stored",)

NEIGHBOURS = 8  # rows of the index: how crowded it is around a question says something too
WIDELY = 64  # the same where members of a group share the partition
MOST_OF_MEMBER = 2  # of its neighbours there: one less than are considered
MOST_OF_CROWD = 16  # rows of one member around a question; beyond that no more are added
CROWDED_FROM = 0.8  # similarity: paraphrases of a question mostly lie above it
LOOKS = 3  # at an index in which dead rows may hide live ones
REMEMBERED = 4096  # questions, read
SAME = Around(1.0)  # of a question in the same plain words


class Stored:
    """Thread-safe. `tiers` gives those to read from, nearest first."""

    def __init__(self, spaces: Spaces, tiers: Callable[[], Sequence[Tier]], clock: Clock) -> None:
        self.spaces, self._tiers, self._clock = spaces, tiers, clock
        self.read = lru_cache(maxsize=REMEMBERED)(_read)

    def in_the_same_words(self, space: Space, text: str) -> list[Candidate]:
        """The newest first; whether one answers `text` guards still have to say."""
        mark = fingerprint(text)
        found = []
        for digest in space.alike(mark):
            try:
                candidate = self._candidate(digest, space.partition, SAME)
            except TierError:
                continue
            if candidate is None:
                self.spaces.forget(space.partition, digest, mark)
            else:
                found.append(candidate)
        return found

    def nearest(self, space: Space, vector: Vector) -> list[Candidate]:
        """As many as are considered, the nearest first."""
        for _ in range(LOOKS):
            near = self._near(space, vector)
            places = arounds([each.similarity for each in near])
            found, has_gone = [], False
            for each, around in zip(near, places, strict=True):
                try:
                    candidate = self._candidate(each.name, space.partition, around)
                except TierError:
                    continue
                if candidate is None:
                    self.spaces.forget(space.partition, each.name)
                    has_gone = True
                else:
                    found.append(candidate)
                if len(found) == CONSIDERED:
                    return found
            if not has_gone:
                break
        return found

    def crowds(self, space: Space, vector: Vector, member: bytes) -> bool:
        """Whether `member` of a group has so much around `vector` that more would only push out
        what others asked. It costs a search."""
        if not member or not space.is_shared:
            return False
        own = space.of_member(space.nearest(vector, WIDELY), member)
        return sum(each.similarity >= CROWDED_FROM for each in own) >= MOST_OF_CROWD

    def _near(self, space: Space, vector: Vector) -> list[Near]:
        """Of a group's partition so few of each member that none can hide what others asked."""
        if not space.is_shared:
            return space.nearest(vector, NEIGHBOURS)
        return space.spread(space.nearest(vector, WIDELY), MOST_OF_MEMBER)[:NEIGHBOURS]

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

    def _candidate(self, digest: bytes, partition: bytes, around: Around) -> Candidate | None:
        """None where the entry is no more, or is another partition's, whatever an index says."""
        entry = self._peeked(digest)
        if entry is None or entry.expires_at <= self._clock.wall():
            return None
        if entry.hint is None or entry.hint.partition != partition:
            return None
        if is_hidden(entry.hint.text):  # of an older release, or carried here
            return None
        origin = Origin(entry.hint.member, entry.created_at)
        return Candidate(digest, self.read(entry.hint.text, entry.meta.tenant), around, origin)


def _read(text: str, whose: str) -> Question:
    """Once a tenant: see `embeddings` for why."""
    return read_question(text)
