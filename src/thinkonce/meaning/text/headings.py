"""What a text goes to, and what it comes from: "ship to Canada", 传到电脑 and 从电脑传出来.

A way with both ends is `turns`'; here one end is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from thinkonce.meaning.text.tokens import Lexicon, table

__all__ = ("headings_of",)

_TO, _FROM = "to", "from"
_HAN = ("㐀", "鿿")


def headings_of(words: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Of words in normal form: things gone to, and come from. What is both is neither."""
    found: dict[str, set[str]] = {_TO: set(), _FROM: set()}
    for place, way in _read(words):
        found[way].add(place)
    both = found[_TO] & found[_FROM]
    return frozenset(found[_TO] - both), frozenset(found[_FROM] - both)


def _read(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for at in range(len(words)):
        length, ways = _lexicon().at(words, at)
        if length and (place := _behind(words, at + length)):
            yield place, ways[0]


def _behind(words: tuple[str, ...], at: int) -> str:
    """The next word that is no article; of Chinese two characters, "" where there is none."""
    while at < len(words) and words[at] in _skipped():
        at += 1
    size = 2 if at < len(words) and _HAN[0] <= words[at] <= _HAN[1] else 1
    return "".join(words[at : at + size]) if at + size <= len(words) else ""


@lru_cache(maxsize=1)
def _skipped() -> frozenset[str]:
    return frozenset(
        word for name in ("en.toml", "zh.toml") for word in table(name)["heading"]["skip"]
    )


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon(
        (form, way)
        for name in ("en.toml", "zh.toml")
        for way in (_TO, _FROM)
        for form in table(name)["heading"][way]
    )
