"""What counts as dress, read from the tables (`[plain]` in rules/en.toml and rules/zh.toml).

Each pattern is linear in the text. Those for English want plain apostrophes and one space between
words, those for Chinese take marks of either width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from thinkonce.meaning.text.tokens import HAN, sole_forms, table

__all__ = ("DressRules", "dress_rules")

_NO_LETTER = "(?![a-z])"
_WORD = re.compile("[a-z]+")


class Listed(msgspec.Struct, frozen=True):
    """Words, and phrases of several words or in Chinese."""

    words: frozenset[str]
    phrases: re.Pattern[str]

    def is_in(self, folded: str) -> bool:
        """Of a text in lower case."""
        return (
            not self.words.isdisjoint(_WORD.findall(folded))
            or self.phrases.search(folded) is not None
        )


class DressRules(msgspec.Struct, frozen=True):
    """`simple`: simplified characters by traditional ones, where each has no other."""

    wording: Listed
    naming: Listed
    lead: re.Pattern[str]
    thanks: re.Pattern[str]
    asks: re.Pattern[str]
    asks_in_chinese: re.Pattern[str]
    perhaps: re.Pattern[str]
    every: re.Pattern[str]
    told: re.Pattern[str]
    start: re.Pattern[str]
    short: re.Pattern[str]
    long: dict[str, str]
    gap: re.Pattern[str]
    simple: dict[str, str]


@lru_cache(maxsize=1)
def dress_rules() -> DressRules:
    en, zh = table("en.toml")["plain"], table("zh.toml")["plain"]
    return DressRules(
        wording=_listed(en["wording"], zh["wording"]),
        naming=_listed(en["naming"], zh["naming"]),
        lead=_pattern(f"{_lead(en)}|{_lead_in_chinese(zh)}"),
        thanks=_pattern(f"{_thanks(en, ' ')}|{_thanks(zh, '')}"),
        asks=_pattern(_asks(en)),
        asks_in_chinese=re.compile("|".join(zh["asking"])),
        perhaps=re.compile("|".join(zh["perhaps"])),
        every=re.compile("|".join(zh["all"])),
        told=_pattern(f"(?:{_any(en['telling'])}) "),
        start=re.compile(_start(en)),
        short=_pattern(_short(en)),
        long=dict(en["short"]),
        gap=re.compile(_gap(zh["numerals"])),
        simple=sole_forms(),
    )


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def _any(phrases: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(phrases, key=len, reverse=True)))


def _listed(en: list[str], zh: list[str]) -> Listed:
    phrases = _any([phrase for phrase in en if " " in phrase] + zh).replace(r"\ ", "[ -]")
    return Listed(frozenset(word for word in en if " " not in word), re.compile(phrases))


def _lead(en: dict[str, Any]) -> str:
    """A courtesy in front of what asks or tells by itself: "hello, world" greets nobody."""
    asks = _any(en["asking"])
    opens = _any([*en["asking"], *en["leading"], *en["helping"], *en["requests"], "please"])
    polite = f"please,? (?=(?:{opens}|{_any(en['telling'])}){_NO_LETTER})"
    wants = f"(?:{_any(en['requests'])}),? (?=(?:{asks}){_NO_LETTER})"
    return f"{wants}|(?:{_any(en['greetings'])})[,!.] ?(?=(?:{opens}){_NO_LETTER})|{polite}"


def _lead_in_chinese(zh: dict[str, Any]) -> str:
    greets = f"(?:{_any(zh['greetings'])})[,，!！。] ?(?={_any(zh['opens'])})"
    return rf"{greets}|请问(?:[,，] ?|(?![{zh['about']}\s]))(?=\w)"


def _thanks(rules: dict[str, Any], before: str) -> str:
    """Thanks behind a comma or a stop, which is kept; `before`: what a refusal stands behind."""
    behind = "".join(rf"(?<!{before}{word})" for word in rules["refusals"])
    marks = r"(?:[.!。！]*|\?)"
    return rf"{behind}(?:[,，] ?|(?<=[.?!。？！]) ?)(?:{_any(rules['thanks'])}){marks}$"


def _asks(en: dict[str, Any]) -> str:
    """A question by its first words: "what is ...", not "what I want is ..."."""
    states, subjects = _any(en["stating"]), _any(en["subjects"])
    what = rf"(?:{_any(en['asking'])})(?:'s|'re| (?!(?:{states}){_NO_LETTER})\S)"
    does = f"(?:{_any(en['leading'])})(?:n't)? "
    do = f"(?:{_any(en['helping'])})(?:n't)? (?:{subjects}){_NO_LETTER}"
    return f"{what}|{does}|{do}"


def _start(en: dict[str, Any]) -> str:
    """A capital that only the start of the text asks for. The case of the rest must be small."""

    def capital(words: Iterable[str]) -> str:
        return _any(word.capitalize() for word in words)

    what = f"(?:{capital(en['asking'])})(?:'s|'re)?(?= )"
    does = f"(?:{capital(en['leading'])})(?:n't)?(?= )"
    do = f"(?:{capital(en['helping'])})(?:n't)?(?= (?:{_any(['I', *en['subjects']])}) )"
    return f"{what}|{does}|{do}|(?:{capital(en['telling'])})(?= )"


def _short(en: dict[str, Any]) -> str:
    """Contractions that stand for one thing, as groups `word`, `what` and `subject`."""
    word = f"(?<![a-z'])(?P<word>{_any(en['short'])})(?![a-z'])"
    things = _any(set(en["stating"]) - set(en["subjects"]))
    what = f"^(?P<what>{_any(en['asking'])})'s(?= (?:{things}) )"
    helps = _any([*en["leading"], "do", "have", "has", "must"])
    # Not "isn't smoking healthy", which is not "is not smoking healthy".
    no = f"(?<![a-z'])(?P<subject>(?:{_any(en['subjects'])}) (?:{helps}))n't(?= )"
    return f"{word}|{what}|{no}"


def _gap(numerals: str) -> str:
    """Spaces that only typography asks for: between Chinese and Latin text, behind a mark."""
    inward = f"(?<=[{HAN}]) (?=[A-Za-z])|(?<=[A-Za-z]) (?=[{HAN}])"
    number = f"(?<=[{HAN}])(?<![{numerals}]) (?=[0-9])|(?<=[0-9]) (?![{numerals}])(?=[{HAN}])"
    return f"{inward}|{number}|(?<=[{HAN}][,;?!]) (?=[{HAN}])"
