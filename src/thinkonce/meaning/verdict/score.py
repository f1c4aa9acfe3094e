"""The first, cheap opinion on whether a stored answer answers a new question.

A sum of one curve a feature, each straight between a few knots, put through a logistic function
and calibrated. Clear cases are settled by two cuts; what lies between goes to the verifier:

    chance <  reject                 no hit
    reject <= chance < accept        ask the verifier
    accept <= chance                 a hit, as far as this stage is concerned

Weights are data (`scores/`), fitted by `training/score/fit.py`; one model a language.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from thinkonce.meaning.text.gist import Gist, Rarity
from thinkonce.meaning.verdict.calibration import Isotonic, logit

__all__ = (
    "FEATURES",
    "Around",
    "Opinion",
    "Region",
    "Score",
    "arounds",
    "features",
    "shipped",
    "shipped_path",
)

# The one place where features are named; a model says which it was fitted to.
FEATURES = (
    "cosine",
    "margin",  # cosine less that of the runner-up that other words belong to
    "density",  # how many entries lie within DENSE of the nearest, up to 10
    "pairs",  # Jaccard of characters by twos
    "triples",  # by threes
    "contained",  # share of the shorter text's words that the longer one holds
    "length",  # shorter over longer
    "rarest",  # information of the rarest word that only one side holds
    "apart",  # information of all such words
    "shared",  # share of the information that is common
    "numbers",  # 1: other digits
    "negation",  # 1: one side has an odd number of negatives, the other an even one
    "asking",  # 1: other question words
)
DENSE = 0.05
CROWD = 10

Verdict = Literal["reject", "ask", "accept"]


class Around(msgspec.Struct, frozen=True):
    """Where a candidate stands among the entries: cosines of it and of the others found."""

    cosine: float
    runner_up: float = 0.0
    within_dense: int = 0


class Region(msgspec.Struct, frozen=True):
    """One side of a cut on calibration pairs: how many fell there, how many of them wrongly."""

    pairs: int
    wrong: int


class Opinion(msgspec.Struct, frozen=True):
    verdict: Verdict
    chance: float

    @property
    def logit(self) -> float:
        return logit(self.chance)


class Score(msgspec.Struct, frozen=True):
    """`knots[i]` and `heights[i]` draw feature i's curve; their sum and `offset` is the raw score.

    `accept` is None where no cut kept `max_error` on the calibration pairs.
    """

    language: str
    encoder: str
    features: tuple[str, ...]
    offset: float
    knots: tuple[tuple[float, ...], ...]
    heights: tuple[tuple[float, ...], ...]
    curve: Isotonic
    rarity: Rarity
    max_error: float
    reject: float
    accept: float | None
    rejected: Region
    accepted: Region

    def __post_init__(self) -> None:
        if self.features != FEATURES:
            raise ValueError(f"a model of {self.features}: this version computes {FEATURES}")

    def raw(self, values: Sequence[float]) -> float:
        total = self.offset
        for value, knots, heights in zip(values, self.knots, self.heights, strict=True):
            total += on_line(value, knots, heights)
        return total

    def opinion(self, values: Sequence[float]) -> Opinion:
        chance = self.curve(self.raw(values))
        if chance < self.reject:
            return Opinion("reject", chance)
        accepted = self.accept is not None and chance >= self.accept
        return Opinion("accept" if accepted else "ask", chance)


def on_line(value: float, knots: Sequence[float], heights: Sequence[float]) -> float:
    """Height at `value`: straight between knots, level beyond the outermost."""
    after = bisect_right(knots, value)
    if after == 0:
        return heights[0]
    if after == len(knots):
        return heights[-1]
    low, high = knots[after - 1], knots[after]
    left, right = heights[after - 1], heights[after]
    return left + (value - low) / (high - low) * (right - left)


def features(asked: Gist, stored: Gist, around: Around, rarity: Rarity) -> tuple[float, ...]:
    """In the order of FEATURES."""
    common = asked.words & stored.words
    only = asked.words ^ stored.words
    apart = rarity.of(only)
    shared, unshared = sum(rarity.of(common)), sum(apart)
    total = shared + unshared
    return (
        around.cosine,
        around.cosine - around.runner_up,
        float(min(around.within_dense, CROWD)),
        overlap(asked.pairs, stored.pairs),
        overlap(asked.triples, stored.triples),
        len(common) / max(1, min(len(asked.words), len(stored.words))),
        min(asked.length, stored.length) / max(1, asked.length, stored.length),
        max(apart, default=0.0),
        unshared,
        shared / total if total else 1.0,
        float(asked.numbers != stored.numbers),
        float((asked.negatives ^ stored.negatives) & 1),
        float(asked.asking != stored.asking),
    )


def arounds(cosines: Sequence[float]) -> list[Around]:
    """Where each of the neighbours found stands among them; `cosines` fall."""
    return [
        Around(
            cosine,
            max(cosines[:at] or cosines[at + 1 : at + 2], default=0.0),
            sum(other >= cosines[0] - DENSE for other in cosines[:CROWD]),
        )
        for at, cosine in enumerate(cosines)
    ]


def shipped_path(encoder: str, language: str) -> Path:
    return Path(__file__).parent.parent / "scores" / f"{encoder}-{language}.json"


@lru_cache(maxsize=16)
def shipped(encoder: str, language: str) -> Score | None:
    """The model that ships for vectors of `encoder` and texts in `language`, if one does."""
    path = shipped_path(encoder, language)
    return msgspec.json.decode(path.read_bytes(), type=Score) if path.exists() else None


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard's: common over all; 1 of two empty sets."""
    common = len(a & b)
    every = len(a) + len(b) - common
    return common / every if every else 1.0
