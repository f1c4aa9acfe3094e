"""Pairs that nobody labelled and two labels imply, through the question they have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from labelled import Pair

__all__ = ("implied",)


def implied(known: Sequence[Pair]) -> list[Pair]:
    """What asks the same as one question asks the same; what differs from it differs from them.

    One step, within one set: along a chain the labels' errors would add up. A pair that two
    questions imply with either label is left out.
    """
    by_set = defaultdict(list)
    for pair in known:
        by_set[pair.source].append(pair)
    return [pair for source in sorted(by_set) for pair in _within(by_set[source])]


def _within(known: Sequence[Pair]) -> Iterator[Pair]:
    labelled = {_key(pair.a, pair.b) for pair in known}
    found: dict[tuple[str, str], int | None] = {}
    for a, b, label in _steps(known):
        key = _key(a, b)
        if a != b and key not in labelled:
            found[key] = label if found.get(key, label) == label else None
    for (a, b), label in found.items():
        if label is not None:
            yield Pair(a, b, label, known[0].source)


def _steps(known: Sequence[Pair]) -> Iterator[tuple[str, str, int]]:
    same, other = defaultdict(set), defaultdict(set)
    for pair in known:
        side = same if pair.label else other
        side[pair.a].add(pair.b)
        side[pair.b].add(pair.a)
    for middle, alike in same.items():
        for a, b in combinations(sorted(alike), 2):
            yield a, b, 1
        for b in sorted(other.get(middle, ())):
            yield from ((a, b, 0) for a in sorted(alike))


def _key(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)
