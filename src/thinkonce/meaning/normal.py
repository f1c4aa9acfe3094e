"""The lexical normal form: what is left of a question once its dress is taken off.

    "Hi! Could you tell me: what's the LIMIT??"   "what is the limit"
    "請問，限額是多少呢？"                          "限额是多少"

Width, case, script, white space, punctuation and contractions are made one; politeness and filler
are taken off both ends. Signs that carry meaning stay (% $ + # / - . between digits, @). Applying
it again changes nothing. A text of politeness alone keeps its words.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from thinkonce.meaning.tokens import HAN, Lexicon, Tokens, fold, table, tokenise

__all__ = ("expanded", "normal_form", "normal_words")

_SIGNS = frozenset("%$€£¥₹+#@&=<>°/\\_*^|~-")
_EDGE = frozenset("-~*/_|=<>^\\&")


def normal_form(text: str) -> str:
    """Of any string, in time linear in its length; "" where nothing is said."""
    return joined(normal_words(tokenise(expanded(fold(text)))))


def expanded(folded: str) -> str:
    """Contractions spelled out. Gives the text back unchanged where it has none."""
    pattern, words, endings = _contractions()

    def spelled(found: re.Match[str]) -> str:
        word = found[0].lower()
        if word in words:
            return _cased(found[0], words[word])
        for ending, long in endings:
            if word.endswith(ending) and len(word) > len(ending):
                return found[0][: -len(ending)] + long
        return found[0]

    return pattern.sub(spelled, folded)


def _cased(short: str, long: str) -> str:
    return long[:1].upper() + long[1:] if short[:1].isupper() else long


def normal_words(tokens: Tokens) -> tuple[str, ...]:
    """Words without punctuation, and without filler at either end."""
    spoken = tokens.words[_start(tokens.words, _fillers().opening) :]
    kept = tuple(word for word in spoken if word[0].isalnum() or word in _SIGNS)
    words = _without_edge_signs(kept)
    first = _start(words, _fillers().start)
    last = _end(words, first)
    return words[first:last] if first < last else words


def _without_edge_signs(words: tuple[str, ...]) -> tuple[str, ...]:
    first, last = 0, len(words)
    while first < last and words[first] in _EDGE:
        first += 1
    while last > first and words[last - 1] in _EDGE:
        last -= 1
    return words[first:last]


def _start(words: tuple[str, ...], lexicon: Lexicon) -> int:
    place = 0
    while place < len(words):
        length, _ = lexicon.at(words, place)
        if not length:
            break
        place += length
    return place


def _end(words: tuple[str, ...], first: int) -> int:
    ends, longest, last = _fillers().ends, _fillers().longest, len(words)
    while last > first:
        lengths = range(min(longest, last - first), 0, -1)
        length = next((n for n in lengths if words[last - n : last] in ends), 0)
        if not length:
            break
        last -= length
    return last


def joined(words: tuple[str, ...]) -> str:
    """Words with spaces between them, none beside a Chinese character."""
    return re.sub(rf"(?<=[{HAN}]) | (?=[{HAN}])", "", " ".join(words))


class _Fillers(msgspec.Struct, frozen=True):
    opening: Lexicon
    start: Lexicon
    ends: frozenset[tuple[str, ...]]
    longest: int


@lru_cache(maxsize=1)
def _fillers() -> _Fillers:
    en, zh = table("en.toml")["filler"], table("zh.toml")["filler"]
    ends = frozenset(tokenise(fold(phrase)).words for phrase in en["end"] + zh["end"])
    return _Fillers(
        Lexicon.of_lists({"": en["opening"] + zh["opening"]}),
        Lexicon.of_lists({"": en["start"] + zh["start"]}),
        ends,
        max(map(len, ends)),
    )


@lru_cache(maxsize=1)
def _contractions() -> tuple[re.Pattern[str], dict[str, str], list[tuple[str, str]]]:
    words: dict[str, str] = table("en.toml")["contractions"]
    endings: dict[str, str] = table("en.toml")["endings"]
    whole = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    ends = "|".join(re.escape(ending) for ending in endings)
    # Words as tokens have them: a digit or a Chinese character beside one is another token.
    letter = "[a-zà-ɏ']"
    pattern = rf"(?<!{letter})(?:{whole}|[a-z]+(?:{ends}))(?!{letter})"
    return re.compile(pattern, re.IGNORECASE), words, list(endings.items())
