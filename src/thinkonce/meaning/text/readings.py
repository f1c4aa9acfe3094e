"""One pass over the tokens: at each place the longest of a phrase, a date and a number is taken.

That is how 十分 (very) and 十分钟 (ten minutes), 一个 (a) and 一个月 (one month), 特别 (special)
and 别 (do not) are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from thinkonce.meaning.text.dates import moment_at
from thinkonce.meaning.text.numerals import number_at
from thinkonce.meaning.text.tokens import Lexicon, Tokens, table
from thinkonce.meaning.text.units import lone_units, sign_before, unit_at, word_before

__all__ = ("Readings", "lexicon", "read")

_ENDS = frozenset("?!。;.？！；\n")
_FINAL = frozenset(("吗", "么", "嘛", "呢", "啊", "呀", "?", "？", "!", ".", "。"))
_LEAST_ASKED = 3  # tokens: a "Why?" after a question belongs to it
_NOT = (("不",), ("没",))
_DONE = frozenset("了过好到完")


class Readings(msgspec.Struct, gc=False):
    """What was met, in the form `Analysed` describes."""

    amounts: set[tuple[str, str]] = msgspec.field(default_factory=set)
    lone_units: set[str] = msgspec.field(default_factory=set)
    dates: set[str] = msgspec.field(default_factory=set)
    negations: int = 0
    poles: set[str] = msgspec.field(default_factory=set)
    names: set[str] = msgspec.field(default_factory=set)
    questions: set[str] = msgspec.field(default_factory=set)
    read: set[str] = msgspec.field(default_factory=set)  # words some reading explains
    asks: int = 0


def read(tokens: Tokens) -> Readings:
    found, place, began, asked = Readings(), 0, 0, False
    last = _last_word(tokens)
    while place < len(tokens.words):
        word = tokens.words[place]
        if word in _ENDS:
            found.asks += asked and place - began >= _LEAST_ASKED
            place, began, asked = place + 1, place + 1, False
            continue
        before = len(found.questions)
        length = _a_not_a(tokens, place) or _particle(tokens, place, last)
        place += length or _longest(found, tokens, place)
        asked = asked or len(found.questions) > before or word in ("吗", "么")
    found.asks += asked and place - began >= _LEAST_ASKED
    return found


def _longest(found: Readings, tokens: Tokens, place: int) -> int:
    """Takes the longest reading at `place`; its length, 1 where there is none."""
    length, tags = lexicon().at(tokens.words, place)
    moment = moment_at(tokens, place)
    if moment is not None and moment.length > length:
        found.dates.update(moment.marks)
        return moment.length
    number = number_at(tokens, place)
    if number is not None:
        unit, more = unit_at(tokens, place + number.length)
        if number.length + more > length:
            _note_amount(found, tokens, place, number.value, unit)
            return number.length + more
    if length:
        _note(found, tokens.words[place : place + length], tags)
    return max(length, 1)


def _note_amount(found: Readings, tokens: Tokens, place: int, value: str, unit: str) -> None:
    if value.endswith("%"):
        value, unit = value[:-1], "percent"
    unit = unit or sign_before(tokens, place) or word_before(tokens, place)
    found.amounts.add((value, unit))


def _note(found: Readings, words: tuple[str, ...], tags: tuple[str, ...]) -> None:
    for tag in tags:
        kind, _, rest = tag.partition(" ")
        match kind:
            case "not":
                found.negations += int(rest)
            case "pole":
                found.poles.add(rest)
            case "ask":
                found.questions.add(rest)
            case "date":
                found.dates.add(rest)
            case "name":
                found.names.add(rest)
                found.read.update(words)
            case "unit":
                found.lone_units.add(rest)
                found.read.update(words)
            case "value":
                found.amounts.add((rest, ""))


def _last_word(tokens: Tokens) -> int:
    """Place of the last token that is no final particle or mark."""
    last = len(tokens.words) - 1
    while last > 0 and tokens.words[last] in _FINAL:
        last -= 1
    return last


def _a_not_a(tokens: Tokens, place: int) -> int:
    """能不能, 喜不喜欢, 有没有, 正常不正常: a question, not a denial."""
    five = tokens.words[place : place + 5]
    if five[1:2] in _NOT and five[:1] == five[2:3]:
        return 3
    return 5 if five[2:3] in _NOT and five[:2] == five[3:5] else 0


def _particle(tokens: Tokens, place: int, last: int) -> int:
    """可以不？ 到了没？ 不是免息吗？: the denial only asks."""
    words = tokens.words
    if place == last and place > 1 and words[place] in ("不", "否", "没"):
        return 1
    if words[place : place + 2] == ("没", "有") and place + 1 == last:
        return 2 if place and words[place - 1] in _DONE else 0
    if words[place : place + 2] == ("不", "是") and words[-1:] != () and last + 1 < len(words):
        return 2 if words[last + 1] in ("吗", "么", "嘛") else 0
    return 0


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Every phrase of the tables that is not read elsewhere, in both languages."""
    entries = [*_entries("en.toml"), *_entries("zh.toml"), *_named()]
    entries += [(word, f"unit {name}") for word, name in lone_units().items()]
    return Lexicon(entries)


def _entries(file: str) -> Iterator[tuple[str, str]]:
    rules = table(file)
    yield from ((phrase, "neutral") for phrase in rules["neutral"]["phrases"])
    yield from ((word, "not 1") for word in rules["negation"]["words"])
    yield from ((word, "not 2") for word in rules["negation"].get("double", ()))
    yield from ((word, "neutral") for word in rules["scope"]["words"])
    yield from ((word, f"date {mark}") for word, mark in rules["dates"].items())
    for name, words in rules["question"].items():
        yield from ((word, f"ask {name}") for word in words)
    for name in ("fractions", "times"):
        yield from ((word, f"value {_exact(value)}") for word, value in rules.get(name, {}).items())
    for kind, pairs in rules["opposites"].items():
        for number, sides in enumerate(pairs):
            for words, sign in zip(sides, "+-", strict=True):
                yield from ((word, f"pole {kind}/{file[:2]}{number}{sign}") for word in words)


def _exact(value: float | str) -> str:
    return (
        value
        if isinstance(value, str)
        else {0.5: "1/2", 0.25: "1/4", 0.75: "3/4", 0.2: "1/5", 0.1: "1/10"}.get(value, str(value))
    )


def _named() -> Iterator[tuple[str, str]]:
    for kind, entry in table("names.toml").items():
        for ways in entry["names"]:
            yield from ((way, f"name {kind}/{ways[0]}") for way in ways)
