"""What is looked at of a text when it is compared with another: words, n-grams, marks.

Made once a text and kept with the entry. A word is a run of Latin letters or digits, or one
character of a script that is written without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from math import log

import msgspec

__all__ = ("Gist", "Rarity", "gist")

_WORD = re.compile(
    r"[^\W_\u2e80-\u9fff\uac00-\ud7af\u3040-\u30ff]+|[\u2e80-\u9fff\u3040-\u30ff\uac00-\ud7af]"
)
_DIGITS = re.compile(r"\d+")
_NOT = re.compile(r"\b(?:not|no|never|without|cannot|\w+n['’]?t)\b|[不没無无别未勿莫非]")
# A not A, and words in which a negative says nothing.
_NOT_MEANT = re.compile(
    r"(.)[不没]\1|不同|不错|不过|不仅|不管|不论|不断|差不多|不好意思|非常|无线|未来|别人|[区差特类性级个分]别"
)
_ASKING = (
    ("who", "谁"),
    ("when", "时候", "几点", "何时"),
    ("where", "哪里", "哪儿", "在哪"),
    ("why", "为什么", "为何", "为啥"),
    ("how much", "how many", "how long", "多少", "多久", "多大", "几"),
    ("how", "怎么", "如何", "怎样", "咋"),
    ("which", "哪个", "哪些", "哪种"),
    ("what", "什么", "啥"),
    ("can ", "can i", "could", "能", "可以", "可不可以"),
    ("is ", "are ", "do ", "does ", "吗", "是不是", "有没有"),
)


class Gist(msgspec.Struct, frozen=True):
    """`asking` has a bit set for each kind of question word."""

    words: frozenset[str]
    pairs: frozenset[str]
    triples: frozenset[str]
    length: int
    numbers: frozenset[str]
    negatives: int
    asking: int


class Rarity(msgspec.Struct, frozen=True):
    """In how many of `texts` texts the common words occur; a word that is not held is rare."""

    texts: int
    counts: Mapping[str, int]

    def of(self, words: Iterable[str]) -> list[float]:
        """log of one over the share of texts that hold each word, as information in nats."""
        most, known = log(self.texts + 1.0), self.counts.get
        return [most - log(known(word, 0) + 1.0) for word in words]


def gist(text: str) -> Gist:
    """About 20 µs for a short question."""
    folded = unicodedata.normalize("NFKC", text).lower()
    words = _WORD.findall(folded)
    plain = "".join(words)
    return Gist(
        frozenset(words),
        _grams(plain, 2),
        _grams(plain, 3),
        len(plain),
        frozenset(_DIGITS.findall(folded)),
        len(_NOT.findall(_NOT_MEANT.sub("", folded))),
        sum(1 << at for at, marks in enumerate(_ASKING) if any(mark in folded for mark in marks)),
    )


def _grams(text: str, n: int) -> frozenset[str]:
    return frozenset(text[at : at + n] for at in range(max(1, len(text) - n + 1)))
