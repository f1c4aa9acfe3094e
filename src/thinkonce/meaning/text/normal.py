"""The normal form that guards read: a question's words without marks, courtesy and filler.

    "Hi! Could you tell me: what's the LIMIT??"   "what is the limit"
    "請問，限額是多少呢？"                          "限额是多少"

Width, case, script, white space, punctuation and contractions are made one; politeness and filler
are taken off both ends. Signs that carry meaning stay (% $ + # / - . between digits, @). Applying
it again changes nothing. A text of politeness alone keeps its words. Two texts with one normal form
may be two questions: what serves by words alone is `meaning.lexical`.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from thinkonce.meaning.text.tokens import HAN, Lexicon, Tokens, fold, table, tokenise

__all__ = ("expanded", "joined", "normal_words")

_SIGNS = frozenset("%$€£¥₹+#@&=<>°/\\_*^|~-")
_EDGE = frozenset("-~*/_|=<>^\\&")


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
    spoken = tokens.words[_opening(tokens.words) :]
    words = tuple(word for word in spoken if word[0].isalnum() or word in _SIGNS)
    # The end first: what is cut from the start can only take matches from the end, not add any.
    ended = words[: _end(words)]
    return ended[_start(ended) :] or words


def _opening(words: tuple[str, ...]) -> int:
    lexicon, place = _fillers().opening, 0
    while place < len(words) and (length := lexicon.at(words, place)[0]):
        place += length
    return place


def _start(words: tuple[str, ...]) -> int:
    lexicon, place = _fillers().start, 0
    while place < len(words):
        length = 1 if words[place] in _EDGE else lexicon.at(words, place)[0]
        if not length:
            break
        place += length
    return place


def _end(words: tuple[str, ...]) -> int:
    ends, longest, last = _fillers().ends, _fillers().longest, len(words)
    while last:
        lengths = range(min(longest, last), 0, -1)
        length = next((n for n in lengths if words[last - n : last] in ends), 0)
        length = length or words[last - 1] in _EDGE
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
    letter = "[a-zà-ɏ]"
    before, after = f"(?<!{letter})(?<!{letter}')", f"(?!{letter}|'{letter})"
    pattern = f"{before}(?:{whole}|[a-z]+(?:{ends})){after}"
    return re.compile(pattern, re.IGNORECASE), words, list(endings.items())
