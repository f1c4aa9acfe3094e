"""Pairs of questions whose intents are known: the same intent, or another."""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from labelled import Pair

__all__ = ("nearest", "of_intents")

Asked = Sequence[tuple[str, str]]
_BUCKETS = 4096
_STEP = 512
_COMMON = 30  # questions with a word that is no name of a thing


def of_intents(asked: Asked, name: str, *, slots: bool) -> list[Pair]:
    """For each (question, intent) four more: two of its intent, the likest and any, and two others.

    The likest of either kind share as many words, those picked by chance share few. So what is
    learnt is that neither tells much by itself. `slots`: intents have slots, and what is in them
    must be the same in two questions that are called one.
    """
    chance = random.Random(name)
    one = [*nearest(asked, name, 1), *_any_alike(asked, name, chance)]
    two = [*nearest(asked, name, 0), *_any_other(asked, name, chance)]
    known = _Slots(asked)
    return [pair for pair in one if not slots or known.same(pair)] + two


class _Slots:
    """What one question of an intent has in a slot and its like has not: a place, a sum, a name.

    Intents are wider than questions: "a flight to Miami" and "a flight to Rome" are one intent.
    """

    def __init__(self, asked: Asked) -> None:
        self._uses = Counter(word for text, _ in asked for word in set(_words(text)))

    def same(self, pair: Pair) -> bool:
        """Whether neither has a rare word alone."""
        apart = set(_words(pair.a)) ^ set(_words(pair.b))
        return all(self._uses[word] >= _COMMON for word in apart)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def nearest(asked: Asked, name: str, label: int) -> list[Pair]:
    """Each question beside the one most alike in letters, of its own intent (1) or another (0)."""
    vectors = np.stack([_trigrams(text) for text, _ in asked])
    kinds = np.unique([intent for _, intent in asked], return_inverse=True)[1]
    found = []
    for start in range(0, len(asked), _STEP):
        likeness = vectors[start : start + _STEP] @ vectors.T
        alike = kinds[start : start + _STEP, None] == kinds[None, :]
        likeness[alike != bool(label)] = 0
        rows = np.arange(start, start + len(likeness))
        likeness[rows - start, rows] = 0
        for row, column in zip(rows, likeness.argmax(axis=1), strict=True):
            if likeness[row - start, column] > 0:
                found.append(Pair(asked[row][0], asked[int(column)][0], label, name))
    return found


def _any_alike(asked: Asked, name: str, chance: random.Random) -> Iterator[Pair]:
    by_intent = defaultdict(list)
    for text, intent in asked:
        by_intent[intent].append(text)
    for text, intent in asked:
        if (other := chance.choice(by_intent[intent])) != text:
            yield Pair(text, other, 1, name)


def _any_other(asked: Asked, name: str, chance: random.Random) -> Iterator[Pair]:
    for text, intent in asked:
        other, others = chance.choice(asked)
        if others != intent:
            yield Pair(text, other, 0, name)


def _trigrams(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    padded, vector = f" {text.lower()} ", np.zeros(_BUCKETS, np.float32)
    for at in range(len(padded) - 2):
        vector[zlib.crc32(padded[at : at + 3].encode()) % _BUCKETS] += 1
    return vector / (np.linalg.norm(vector) or 1)
