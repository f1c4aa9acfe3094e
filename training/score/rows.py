"""Rows to fit to: questions in random order, each with the stored neighbours a cache would find.

So near misses and strangers come in the proportions of a cache, not of a balanced set. What is
right, what wrong, and which pairs are left out because nobody has said, is decided as for
simulated traffic (`benchmarks/semantic/stream.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from labelled import LANGUAGE, PAIR_SETS, Part, folded, joined, pairs
from replay import candidates
from stream import Ints, Stream, with_neighbours

from thinkonce.meaning.text.gist import Gist, Rarity, gist
from thinkonce.meaning.verdict.score import arounds, features

__all__ = ("Rows", "questions", "rarity_of", "rows_of")

CONSIDERED = 3
COMMON = 1500  # words whose counts are kept
Floats64 = npt.NDArray[np.float64]


class Rows(NamedTuple):
    """`values` by row and feature; `asked` numbers the question, whose candidates come by rank."""

    values: Floats64
    labels: Ints
    asked: Ints


def questions(language: str, part: Part, most: int, seed: int) -> Stream:
    """Every question of the language's pair sets once, in a drawn order; about `most` of a set,
    whole groups at a time."""
    rng = np.random.default_rng([seed, *language.encode(), *part.encode()])
    texts: list[str] = []
    groups: list[int] = []
    parted = frozenset(
        (folded(p.a), folded(p.b)) for p in pairs() if p.part == part and not p.label
    )
    for name in (n for n in PAIR_SETS if LANGUAGE.get(n, "zh") == language and n != "pawsx_zh"):
        members = _groups(name, part)
        size = 0
        for at in rng.permutation(len(members)):
            if size >= most:
                break
            number = len(groups)  # unlike any other
            texts += members[at]
            groups += [number] * len(members[at])
            size += len(members[at])
    order = rng.permutation(len(texts)).astype(np.int64)
    return with_neighbours(texts, np.array(groups, dtype=np.int64), order, parted)


def _groups(name: str, part: Part) -> list[list[str]]:
    found = [p for p in pairs() if p.source == name and p.part == part]
    root = joined((folded(p.a), folded(p.b)) for p in found if p.label)
    members: dict[str, dict[str, str]] = defaultdict(dict)
    contradicted = set()
    for pair in found:
        one, other = (root.get(folded(text), folded(text)) for text in (pair.a, pair.b))
        members[one].setdefault(folded(pair.a), pair.a)
        members[other].setdefault(folded(pair.b), pair.b)
        if one == other and not pair.label:
            contradicted.add(one)
    return [list(group.values()) for name, group in members.items() if name not in contradicted]


def rarity_of(texts: Sequence[str]) -> Rarity:
    counts = Counter(word for text in texts for word in gist(text).words)
    return Rarity(len(texts), dict(sorted(counts.most_common(COMMON))))


def rows_of(stream: Stream, rarity: Rarity) -> Rows:
    gists: dict[int, Gist] = {at: gist(text) for at, text in enumerate(stream.texts)}
    values, labels, asked = [], [], []
    for text, near in candidates(stream):
        places = arounds([found.cosine for found in near])
        for found, around in list(zip(near, places, strict=True))[:CONSIDERED]:
            truth = stream.truth(text, found.entry, found.cosine)
            if truth is None:
                continue
            values.append(features(gists[text], gists[found.entry], around, rarity))
            labels.append(int(truth))
            asked.append(text)
    return Rows(np.array(values), np.array(labels), np.array(asked))
