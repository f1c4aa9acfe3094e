"""Text as tokens, and tables of phrases found in it.

    fold("Ｗhere IS 銀行？")   "Where IS 银行?"   width and script, case kept
    tokenise("5kg 银行")       5 | kg | 银 | 行    a Chinese character is a token of its own

Everything here is linear in the text and takes any string: what is no text becomes a space.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

__all__ = (
    "HAN",
    "Lexicon",
    "Tokens",
    "fold",
    "script_marks",
    "simplified",
    "sole_forms",
    "split",
    "table",
    "tokenise",
)

HAN = "㐀-䶿一-鿿"
_TOKEN = re.compile(
    rf"[a-zà-ɏ]+(?:'[a-z]+)*|\d+(?:,\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)*|[{HAN}]|[^\s]"
)
# Controls, lone surrogates, invisible joiners and direction marks.
_NO_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "–": "-", "—": "-", "〜": "~"}
)


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Words in lower case; token `i` is `text[starts[i]:ends[i]]` of the folded text."""

    words: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def fold(text: str) -> str:
    """NFKC, one script, plain quotes, no controls; case and spaces stay."""
    plain = _NO_TEXT.sub(" ", unicodedata.normalize("NFKC", _NO_TEXT.sub(" ", text)))
    return plain.translate(_QUOTES).translate(simplified())


def tokenise(folded: str) -> Tokens:
    # `lower` may change the length of a few letters (İ): those positions are only approximate.
    found = list(_TOKEN.finditer(folded.lower()))
    return Tokens(
        tuple(one[0] for one in found),
        tuple(one.start() for one in found),
        tuple(one.end() for one in found),
    )


def split(folded: str) -> tuple[str, ...]:
    """The words of `tokenise`, without their places."""
    return tuple(_TOKEN.findall(folded.lower()))


@lru_cache(maxsize=8)
def table(name: str) -> dict[str, Any]:
    """A rules file, parsed."""
    text = files("thinkonce.meaning.rules").joinpath(name).read_text(encoding="utf-8")
    return tomllib.loads(text)


@lru_cache(maxsize=1)
def script_marks() -> tuple[frozenset[str], frozenset[str]]:
    """Characters only simplified texts have, and those only traditional ones have."""
    pairs, both = _characters()
    return frozenset(pairs.values()) - both, frozenset(pairs)


def sole_forms() -> dict[str, str]:
    """Traditional characters by which one simplified character and no other means the same.

    Left out are those that share it (發 and 髮) and those whose simplified form is a traditional
    character as well (後, 后): which one was meant, the simplified text does not say.
    """
    pairs, both = _characters()
    shared = Counter(pairs.values())
    return {
        full: simple
        for full, simple in pairs.items()
        if shared[simple] == 1 and simple not in both and simple not in pairs
    }


@lru_cache(maxsize=1)
def simplified() -> dict[int, str]:
    """Of every traditional character, for `str.translate`."""
    return {ord(full): simple for full, simple in _characters()[0].items()}


@lru_cache(maxsize=1)
def _characters() -> tuple[dict[str, str], frozenset[str]]:
    text = files("thinkonce.meaning.rules").joinpath("traditional.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    both = "".join(line[2:] for line in lines if line.startswith("= "))
    pairs = " ".join(line for line in lines if not line.startswith("= ")).split()
    return {pair[0]: pair[1] for pair in pairs}, frozenset(both)


class Lexicon:
    """Phrases, each with tags; finds the longest that begins at a token. Immutable once filled."""

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        tags: dict[tuple[str, ...], list[str]] = {}
        for phrase, tag in entries:
            tags.setdefault(tokenise(fold(phrase)).words, []).append(tag)
        self._by_first: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
        for words in sorted(tags, key=len, reverse=True):
            kept = tuple(dict.fromkeys(tags[words]))
            self._by_first.setdefault(words[0], []).append((words, kept))

    def at(self, words: tuple[str, ...], place: int) -> tuple[int, tuple[str, ...]]:
        """Length in tokens and tags of the longest phrase at `place`; (0, ()) where none is."""
        for phrase, tags in self._by_first.get(words[place], ()):
            length = len(phrase)
            if length == 1 or words[place : place + length] == phrase:
                return length, tags
        return 0, ()

    @classmethod
    def of_lists(cls, lists: Mapping[str, Iterable[str]]) -> Lexicon:
        """From {tag: phrases}."""
        return cls((phrase, tag) for tag, phrases in lists.items() for phrase in phrases)
