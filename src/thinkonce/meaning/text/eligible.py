"""Which texts are compared at all. What is not has a word for why; it is answered as ever.

The order is that of the reasons below: cheap and sure ones first.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from thinkonce.meaning.text.hidden import is_hidden
from thinkonce.meaning.text.normal import expanded, normal_words
from thinkonce.meaning.text.tokens import HAN, Lexicon, fold, table, tokenise

__all__ = ("MAX_CHARACTERS", "Ineligible", "ineligible")

MAX_CHARACTERS = 400  # longer texts hold more than an encoder and these rules can compare
_SHORT = 12  # normal words; longer texts carry their own context
_EARLY = 5  # words; a pronoun after them mostly stands for something said before it


class Ineligible(StrEnum):
    """Why a text is not compared with others."""

    LENGTH = "length"  # more than 400 characters
    HIDDEN = "hidden"  # characters nobody sees, or letters that pass for others
    URL = "url"
    CODE = "code"
    JSON = "json"
    ENCODED = "encoded"  # base64 and other long runs without words
    NO_LETTERS = "no-letters"
    FOLLOW_UP = "follow-up"  # hangs on what was said before
    ONE_WORD = "one-word"
    OUTPUT = "output"  # tells what form the answer must have, or what to say in it
    TIME = "time"  # the answer changes by the day


_URL = re.compile(r"https?://|www\.\w", re.IGNORECASE)
_CODE = re.compile(
    r"```|^\s*(?:def|class|import|public|private|function|const|let|var)\b.*[(;{*:]"
    r"|^\s*from \w+ import|^\s*(?:#include|SELECT|INSERT|UPDATE|DELETE)\b.*[(;{*:]"
    r"|[{};]\s*$|=>|\)\s*\{|</\w+>|^\s*\$ \w+|==|&&|\|\||!=|\w+\(\w*\);",
    re.MULTILINE,
)
_JSON = re.compile(r"^\s*[\[{].*[\]}]\s*$|\"\w+\"\s*:", re.DOTALL)
_ENCODED = re.compile(r"[A-Za-z0-9+/=_-]{32,}")
_HAN = re.compile(f"[{HAN}]")


def ineligible(text: str, *, realtime: bool = False) -> Ineligible | None:
    """`realtime`: the caller keeps answers so briefly that time words do no harm."""
    if len(text) > MAX_CHARACTERS:
        return Ineligible.LENGTH
    if is_hidden(text):
        return Ineligible.HIDDEN
    folded = fold(text)
    reason = _by_shape(text)
    if reason is not None:
        return reason
    tokens = tokenise(expanded(folded))
    words = normal_words(tokens)
    if not any(word[0].isalpha() for word in words):
        return Ineligible.NO_LETTERS
    if _follows_up(tokens.words, words):
        return Ineligible.FOLLOW_UP
    if len(words) < 2 or (len(words) <= 2 and _HAN.match(words[0]) is not None):
        return Ineligible.ONE_WORD
    if _instructs(" ".join(words), words):
        return Ineligible.OUTPUT
    return Ineligible.TIME if not realtime and _has(_time(), words) else None


def _by_shape(text: str) -> Ineligible | None:
    if _URL.search(text):
        return Ineligible.URL
    if _JSON.search(text):
        return Ineligible.JSON
    if _ENCODED.search(text):
        return Ineligible.ENCODED
    return Ineligible.CODE if _CODE.search(text) else None


def _instructs(spoken: str, words: tuple[str, ...]) -> bool:
    text = re.sub(rf"(?<=[{HAN}]) | (?=[{HAN}])", "", spoken)
    return _has(_output(), words) or any(pattern.search(text) for pattern in _output_patterns())


def _follows_up(spoken: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """An opening like "and in", 那...呢, or a pronoun nothing in a short text explains."""
    if len(words) > 2 * _SHORT:
        return False
    if _opens().at(spoken, 0)[0] and len(words) <= _SHORT:
        return True
    bare = tuple(word for word in spoken if word.isalnum())
    if bare[-1:] == ("呢",) and len(bare) <= 8 and not _asks().intersection(bare):
        return True
    return len(words) <= _SHORT and _refers(words)


def _refers(words: tuple[str, ...]) -> bool:
    """A pronoun so early that nothing in the text can have named its thing."""
    place = 0
    while place < min(len(words), _EARLY):
        length, tags = _pronouns().at(words, place)
        if length and "fine" not in tags:
            return True
        place += length or 1
    return False


def _has(lexicon: Lexicon, words: tuple[str, ...]) -> bool:
    return any(lexicon.at(words, place)[0] for place in range(len(words)))


@lru_cache(maxsize=1)
def _opens() -> Lexicon:
    return _phrases("context", "opens")


@lru_cache(maxsize=1)
def _time() -> Lexicon:
    return _phrases("time", "words")


@lru_cache(maxsize=1)
def _output() -> Lexicon:
    return _phrases("output", "phrases")


@lru_cache(maxsize=1)
def _pronouns() -> Lexicon:
    en, zh = table("en.toml")["context"], table("zh.toml")["context"]
    return Lexicon.of_lists(
        {"fine": en["fine"] + zh["fine"], "refers": en["pronouns"] + zh["pronouns"]}
    )


@lru_cache(maxsize=1)
def _asks() -> frozenset[str]:
    return frozenset("什谁哪怎几多何啥")


@lru_cache(maxsize=1)
def _output_patterns() -> tuple[re.Pattern[str], ...]:
    patterns = table("en.toml")["output"]["patterns"] + table("zh.toml")["output"]["patterns"]
    return tuple(re.compile(pattern) for pattern in patterns)


def _phrases(part: str, name: str) -> Lexicon:
    return Lexicon.of_lists({name: table("en.toml")[part][name] + table("zh.toml")[part][name]})
