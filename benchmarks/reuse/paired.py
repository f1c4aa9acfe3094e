"""Two methods on the same prompts: sign test, Wilcoxon's signed ranks, and an interval.

Sign test: exact, ties left out. Signed ranks: the normal approximation with its correction for
ties, right from about 20 differences on. The interval is the bootstrap's, of the mean difference.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, erfc, sqrt

__all__ = ("Paired", "paired")

DRAWS = 2000


@dataclass(frozen=True)
class Paired:
    """`mean`: of one minus other, with its 95 % interval; `below`: prompts on which one is less.

    `sign` and `ranks` are two-sided p values.
    """

    count: int
    mean: float
    low: float
    high: float
    below: int
    sign: float
    ranks: float


def paired(one: Sequence[float], other: Sequence[float]) -> Paired:
    """Both in the order of the prompts, which are at least two."""
    differences = [first - second for first, second in zip(one, other, strict=True)]
    low, high = _interval(differences)
    return Paired(
        len(differences),
        sum(differences) / len(differences),
        low,
        high,
        sum(each < 0 for each in differences),
        _sign(differences),
        _ranks(differences),
    )


def _sign(differences: Sequence[float]) -> float:
    below, count = sum(d < 0 for d in differences), sum(d != 0 for d in differences)
    least = min(below, count - below)
    tail = sum(comb(count, each) for each in range(least + 1)) / 2**count
    return min(1.0, 2 * tail)


def _ranks(differences: Sequence[float]) -> float:
    ordered = sorted((each for each in differences if each), key=abs)
    count, rank, ties, positive = len(ordered), 0, 0.0, 0.0
    if not count:
        return 1.0
    while rank < count:
        end = rank
        while end < count and abs(ordered[end]) == abs(ordered[rank]):
            end += 1
        shared = (rank + 1 + end) / 2
        positive += shared * sum(each > 0 for each in ordered[rank:end])
        ties += (end - rank) ** 3 - (end - rank)
        rank = end
    spread = sqrt(count * (count + 1) * (2 * count + 1) / 24 - ties / 48)
    off = abs(positive - count * (count + 1) / 4)
    return erfc(max(0.0, off - 0.5) / spread / sqrt(2)) if spread else 1.0


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    drawn, count = random.Random(0), len(differences)
    means = sorted(sum(drawn.choices(differences, k=count)) / count for _ in range(DRAWS))
    return means[DRAWS // 40], means[-DRAWS // 40]
