"""Runs a stream through a cache and counts what was served rightly and wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from caches import Cache, Neighbour
from stream import Stream

from thinkonce.meaning.verdict.binomial import clopper_pearson

__all__ = ("Tally", "candidates", "oracle", "replay")

POINTS = 20  # moments at which counts are written down


class Tally(NamedTuple):
    """Counts up to a moment. `hits`: questions in other words, answered from an entry; of these
    `wrong` ones, and `unknown` ones that nobody labelled.

    `audits`: hits of which the model was asked as well, in the background, or of per-entry
    thresholds instead. `repeats`: the same words again, of what was a hit or an answer; they are
    counted apart, once a question was decided.
    """

    requests: int
    exact: int
    repeats: int
    hits: int
    wrong: int
    unknown: int
    audits: int

    @property
    def right(self) -> int:
        return self.hits - self.wrong - self.unknown

    def error(self) -> tuple[float, float, float]:
        """Share of wrong ones among hits whose truth is known, and its 95 % interval."""
        known = self.hits - self.unknown
        return self.wrong / max(1, known), *clopper_pearson(self.wrong, known, 0.025)


def replay(stream: Stream, cache: Cache, seed: int = 0) -> list[Tally]:
    """Counts at POINTS moments, the last of them the whole."""
    dices = np.random.default_rng(seed).random(len(stream.requests)).tolist()
    run = _Run(stream, cache)
    found = []
    every = max(1, len(dices) // POINTS)
    for at, (text, dice) in enumerate(zip(stream.requests.tolist(), dices, strict=True), start=1):
        run.asked(text, dice)
        if at % every == 0 or at == len(dices):
            found.append(Tally(at, *run.counts))
    return found


class _Run:
    """`counts` are those of a Tally, from `exact` on."""

    def __init__(self, stream: Stream, cache: Cache) -> None:
        self._stream, self._cache = stream, cache
        self._stored: set[int] = set()  # with a vector
        self._known: set[int] = set()  # word for word
        self.counts = [0] * 6

    def asked(self, text: int, dice: float) -> None:
        if text in self._known:
            self._count("exact" if text in self._stored else "repeats")
            return
        self._known.add(text)
        near = neighbours(self._stream, text, self._stored)
        action = self._cache.ask(text, near, dice)
        entry = action.served if action.compared is None else action.compared
        truth = None if entry is None else self._truth(text, entry, near)
        if action.compared is not None:
            self._count("audits", action.is_audit)
            self._cache.learn(action.compared, truth)
        if action.served is not None:
            self._count("hits")
            self._count("wrong", truth is False)
            self._count("unknown", truth is None)
        is_answered = action.served is None or action.compared is not None
        if is_answered and not truth:  # by the model, and no entry says the same already
            self._stored.add(text)

    def _truth(self, text: int, entry: int, near: list[Neighbour]) -> bool | None:
        cosine = next(found.cosine for found in near if found.entry == entry)
        return self._stream.truth(text, entry, cosine)

    def _count(self, name: str, more: bool = True) -> None:
        self.counts[Tally._fields.index(name) - 1] += more


def neighbours(stream: Stream, text: int, stored: set[int]) -> list[Neighbour]:
    pairs = zip(stream.nearest[text].tolist(), stream.cosines[text].tolist(), strict=True)
    return [Neighbour(entry, cosine) for entry, cosine in pairs if entry in stored]


def oracle(stream: Stream) -> int:
    """Hits of a cache that knows the truth: every question whose group is stored already."""
    seen: set[int] = set()
    groups: set[int] = set()
    hits = 0
    for text in stream.requests.tolist():
        if text in seen:
            continue
        seen.add(text)
        group = int(stream.groups[text])
        hits += group in groups
        groups.add(group)
    return hits


def candidates(stream: Stream) -> Iterator[tuple[int, list[Neighbour]]]:
    """Each question at its first time, with its neighbours among all asked before it."""
    stored: set[int] = set()
    for text in stream.requests.tolist():
        if text not in stored:
            yield text, neighbours(stream, text, stored)
            stored.add(text)
