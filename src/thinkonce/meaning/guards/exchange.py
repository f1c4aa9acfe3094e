"""Two words that changed places, and nothing else: who does it, and to whom.

    男生 说 女生 可爱           女生 说 男生 可爱
    computer after mechanical   mechanical after computer

What stands between them is what relates them; where it lists them (`and`, 还是), their order says
nothing. A word that moved alone is no exchange: 孕妇 钙片 吃什么牌子 / 孕妇 吃什么牌子 钙片.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ("exchanged",)

_TOKEN = re.compile(r"[^\W\u3400-\u9fff]+|[\u3400-\u9fff]")
# Where one of these stands between, the two are listed: A好还是B好, match fixing and spot fixing.
_LISTING = frozenset({"and", "or", "vs", "versus", "nor", *"和与跟同或及还又"})
_ASKING = frozenset({"what", "who", "which", "where", *"什谁哪"})  # 什么是音序 / 音序是什么


def exchanged(a: str, b: str) -> bool:
    """Of two texts in normal form, which hold the same words. Symmetric."""
    return _exchanged(*_between(_TOKEN.findall(a), _TOKEN.findall(b)))


def _between(one: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """What is left of both without what they begin and end with alike."""
    start, end = 0, min(len(one), len(other))
    while start < end and one[start] == other[start]:
        start += 1
    tail = 0
    while tail < end - start and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    return one[start : len(one) - tail], other[start : len(other) - tail]


def _exchanged(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether `one` is X C Y and `other` Y C X, for some C that relates X and Y."""
    size = len(one)
    if size < 3 or size != len(other) or sorted(one) != sorted(other):
        return False
    if not _ASKING.isdisjoint(one):
        return False
    for first in range(1, size - 1):
        if one[:first] != other[size - first :]:
            continue
        for last in range(1, size - first):
            middle = one[first : size - last]
            if one[size - last :] == other[:last] and middle == other[last : size - first]:
                return _LISTING.isdisjoint(middle)
    return False
