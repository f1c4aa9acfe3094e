"""A mix of `mixes.toml` as a stream of requests, with what is the same question as what.

Truth of two texts of the pair sets: right where labels join them, directly or through others;
wrong where a label parts their groups, or where they are far apart; else nobody has said. Of what
nobody labelled and lies near, four in five turned out to be the same question when read, so such
pairs are counted apart, neither as right nor as wrong. A group that a label contradicts is left
out. Two intents, or a background question and any other, are always different. What a reader said
of a pair (`judged.py`) overrules all that.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import labelled
import msgspec
import numpy as np
import numpy.typing as npt
from judged import judgement
from labelled import Part, folded
from vectors import LONGEST, Floats, vectors

__all__ = ("Mix", "Stream", "mixes", "stream", "with_neighbours")

MIXES = Path(__file__).with_name("mixes.toml")
NEAREST = 24
FAR = 0.8  # pairs below this cosine are different unless a label says otherwise
_BLOCK = 1024
Ints = npt.NDArray[np.int64]


class Mix(msgspec.Struct, frozen=True):
    name: str
    language: str
    requests: int
    paraphrased: float
    near: float
    zipf: float
    pairs: list[str] = []
    intents: str = ""
    background: list[str] = []


class _File(msgspec.Struct):
    seed: int
    mix: list[Mix]


class Stream(NamedTuple):
    """`requests` are numbers of texts; equal `groups` mean one answer.

    `refuted` holds pairs of groups, the lesser first, that a label parts; `doubtful` the texts
    between which a label may be missing. `nearest` and `cosines`: by text, the NEAREST others.
    """

    texts: list[str]
    groups: Ints
    requests: Ints
    nearest: Ints
    cosines: Floats
    refuted: frozenset[tuple[int, int]]
    doubtful: frozenset[int]

    def truth(self, text: int, entry: int, cosine: float) -> bool | None:
        """Whether `entry`'s answer is right for `text`; None where nobody has said."""
        said = judgement(self.texts[text], self.texts[entry])
        if said is not None:
            return said
        one, other = sorted((int(self.groups[text]), int(self.groups[entry])))
        if one == other:
            return True
        both = text in self.doubtful and entry in self.doubtful
        known = not both or cosine < FAR or (one, other) in self.refuted
        return False if known else None


class Questions(NamedTuple):
    """Groups of texts that are one question, texts near to them, texts of the background."""

    groups: list[list[str]]
    near: list[str]
    background: list[str]
    parted: frozenset[tuple[str, str]] = frozenset()  # folded texts, labelled as different


def mixes() -> tuple[int, list[Mix]]:
    found = msgspec.convert(tomllib.loads(MIXES.read_text(encoding="utf-8")), _File)
    return found.seed, found.mix


def stream(mix: Mix, part: Part, seed: int) -> Stream:
    """The same mix, part and seed give the same stream."""
    rng = np.random.default_rng([seed, *mix.name.encode(), *part.encode()])
    questions = _distinct(_intents(mix, part) if mix.intents else _pairs(mix, part))
    texts, groups = _numbered(questions)
    starts = np.cumsum([0, *(len(group) for group in questions.groups)])
    count = len(questions.groups)
    near_from, background_from = int(starts[-1]), int(starts[-1]) + len(questions.near)
    kinds = rng.random(mix.requests)
    asked = np.empty(mix.requests, dtype=np.int64)
    which = kinds < mix.paraphrased
    chosen = _zipf(rng, count, mix.zipf, int(which.sum()))
    asked[which] = starts[chosen] + rng.integers(0, np.diff(starts)[chosen])
    near = ~which & (kinds < mix.paraphrased + mix.near)
    rest = ~which & ~near
    if not questions.near:
        near, rest = np.zeros_like(near), rest | near
    asked[near] = near_from + _zipf(rng, len(questions.near), mix.zipf, int(near.sum()))
    asked[rest] = background_from + _zipf(rng, len(questions.background), mix.zipf, int(rest.sum()))
    return with_neighbours(texts, groups, asked, questions.parted)


def with_neighbours(
    texts: list[str], groups: Ints, asked: Ints, parted: frozenset[tuple[str, str]]
) -> Stream:
    """A stream of the numbers `asked`; only texts that are asked at all, numbered anew."""
    used, requests = np.unique(asked, return_inverse=True)
    kept = [texts[at] for at in used]
    rows = vectors(kept)
    nearest = np.empty((len(kept), NEAREST), dtype=np.int64)
    cosines = np.empty((len(kept), NEAREST), dtype=np.float32)
    for start in range(0, len(kept), _BLOCK):
        block = rows[start : start + _BLOCK] @ rows.T
        at = np.arange(len(block))
        block[at, start + at] = -2.0
        top = np.argpartition(-block, NEAREST, axis=1)[:, :NEAREST]
        values = np.take_along_axis(block, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        nearest[start : start + len(block)] = np.take_along_axis(top, order, axis=1)
        cosines[start : start + len(block)] = np.take_along_axis(values, order, axis=1)
    number = {folded(text): at for at, text in enumerate(kept)}
    found = [(number[a], number[b]) for a, b in parted if a in number and b in number]
    refuted = {(int(groups[used[a]]), int(groups[used[b]])) for a, b in found}
    return Stream(
        kept,
        groups[used],
        requests.astype(np.int64),
        nearest,
        cosines,
        frozenset((min(pair), max(pair)) for pair in refuted),
        frozenset(number[name] for pair in parted for name in pair if name in number),
    )


def _zipf(rng: np.random.Generator, count: int, exponent: float, size: int) -> Ints:
    if not size:
        return np.zeros(0, dtype=np.int64)
    weights = 1 / np.arange(1, count + 1) ** exponent
    ranks = rng.choice(count, size=size, p=weights / weights.sum())
    return rng.permutation(count)[ranks].astype(np.int64)


def _numbered(questions: Questions) -> tuple[list[str], Ints]:
    texts = [text for group in questions.groups for text in group]
    groups = [at for at, group in enumerate(questions.groups) for _ in group]
    alone = [*questions.near, *questions.background]
    groups += range(len(questions.groups), len(questions.groups) + len(alone))
    return [*texts, *alone], np.array(groups, dtype=np.int64)


def _pairs(mix: Mix, part: Part) -> Questions:
    found = [p for p in labelled.pairs() if p.source in mix.pairs and p.part == part]
    root = labelled.joined((folded(p.a), folded(p.b)) for p in found if p.label)
    contradicted = {
        root.get(folded(p.a), folded(p.a))
        for p in found
        if not p.label and root.get(folded(p.a), folded(p.a)) == root.get(folded(p.b), folded(p.b))
    }
    members: dict[str, dict[str, str]] = defaultdict(dict)
    alone: dict[str, str] = {}
    for pair in found:
        for text in (pair.a, pair.b):
            name = folded(text)
            if name not in root:
                alone.setdefault(name, text)
            elif root[name] not in contradicted:
                members[root[name]].setdefault(name, text)
    groups = [list(texts.values()) for texts in members.values() if len(texts) > 1]
    parted = frozenset((folded(p.a), folded(p.b)) for p in found if not p.label)
    return Questions(groups, list(alone.values()), _background(mix, part), parted)


def _intents(mix: Mix, part: Part) -> Questions:
    members: dict[str, list[str]] = defaultdict(list)
    for text, intent in labelled.intents(mix.intents):
        if _belongs(text, part):
            members[intent].append(text)
    near = members.pop("oos", [])  # out of scope: near to no intent, and answered by none
    return Questions(list(members.values()), near, _background(mix, part))


def _background(mix: Mix, part: Part) -> list[str]:
    texts = {text for name in mix.background for text in labelled.background(name)}
    return sorted(text for text in texts if len(text) <= LONGEST and _belongs(text, part))


def _belongs(text: str, part: Part) -> bool:
    """Of sets without pairs nothing was trained on: what calibration does not take is test."""
    return (labelled.part_of(folded(text)) == "calibration") == (part == "calibration")


def _distinct(questions: Questions) -> Questions:
    """Each text once, where it comes first; groups keep at least two."""
    seen: set[str] = set()

    def first(texts: list[str]) -> list[str]:
        found = {folded(text): text for text in texts if folded(text) not in seen}
        seen.update(found)
        return list(found.values())

    groups = [group for group in map(first, questions.groups) if len(group) > 1]
    return Questions(groups, first(questions.near), first(questions.background), questions.parted)
