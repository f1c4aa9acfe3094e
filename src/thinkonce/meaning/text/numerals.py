"""Numbers in a text, as exact values: digits, words, Chinese numerals, fractions, ordinals.

    1,500   1.5k   一千五百   1500        "1500"
    50%   fifty percent   百分之五十       "50" of the unit percent (units.py)
    三分之一   1/3   "a third of"          "1/3"
    第三   3rd   third                    "#3"
    3.12.1   007   3.10                  as written: versions and codes are no quantities

Read token by token; `number_at` tells how many tokens a number takes. A lone Chinese digit is a
number only before a counter (两个, 三天): 一 in 一下 and 统一 counts nothing.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import msgspec

from thinkonce.meaning.text.tokens import Tokens, table

__all__ = ("Number", "number_at", "small_value")

_LONGEST = 30  # digits; a longer run is a code, kept as written
_PLAIN = re.compile(r"\d{1,30}(?:,\d{3})*(?:\.\d{1,30})?")
_ORDINAL_ENDINGS = frozenset(("st", "nd", "rd", "th"))


class Number(msgspec.Struct, frozen=True, gc=False):
    """`value` is canonical; `length` in tokens."""

    value: str
    length: int


def number_at(tokens: Tokens, place: int) -> Number | None:
    """The number that begins at token `place`."""
    word = tokens.words[place]
    if word[0].isdecimal():
        return _digits(tokens, place)
    if word == "第":
        inner = _counted(tokens, place + 1)
        return inner and Number("#" + inner.value, inner.length + 1)
    if word in _chinese():
        return _in_chinese(tokens, place)
    if word in _english():
        return _in_english(tokens, place)
    ordinal = _ordinals().get(word)
    return None if ordinal is None else Number(f"#{ordinal}", 1)


def small_value(tokens: Tokens, place: int) -> tuple[int, int]:
    """A whole number of the kind dates are made of: (value, tokens), or (-1, 0)."""
    if place >= len(tokens.words):
        return -1, 0
    word = tokens.words[place]
    if word.isdecimal() and len(word) <= 4:
        return int(word), 1
    run = _run(tokens, place)
    value = _chinese_value(run)
    return (int(value), len(run)) if value is not None and value.denominator == 1 else (-1, 0)


# -- digits ---------------------------------------------------------------------------------------


def _digits(tokens: Tokens, place: int) -> Number | None:
    words, word = tokens.words, tokens.words[place]
    if _part_of_code(tokens, place):
        return None
    if not _PLAIN.fullmatch(word) or (word[0] == "0" and word[1:2].isdecimal()):
        return Number(word, 1)
    value, length = _value(word), 1
    after = words[place + 1] if place + 1 < len(words) else ""
    if after == "/" and _denominator(tokens, place + 2):
        return Number(str(value / int(words[place + 2])), 3)
    if after in _ORDINAL_ENDINGS and _adjacent(tokens, place):
        return Number(f"#{value}", 2)
    while place + length < len(words) and (power := _power(tokens, place + length)):
        value, length = value * power, length + 1
        if length > 3:
            break
    return Number(_written(value, word, length), length)


def _value(word: str) -> Fraction:
    return Fraction(word.replace(",", ""))


def _written(value: Fraction, word: str, length: int) -> str:
    # 3.10 is not 3.1 where versions are meant; nothing tells, so they stay apart.
    if length == 1 and "." in word and word.endswith("0") and value.denominator != 1:
        return word
    return str(value)


def _power(tokens: Tokens, place: int) -> int:
    word = tokens.words[place]
    if word in ("k", "m", "bn", "mn"):
        glued = tokens.ends[place - 1] == tokens.starts[place]
        apart = {"k": 1000}.get(word, 0)
        return {"k": 1000, "bn": 10**9, "mn": 10**6}.get(word, 0) if glued else apart
    return _powers_zh().get(word, 0) or _powers_en().get(word, 0)


def _denominator(tokens: Tokens, place: int) -> bool:
    return (
        place < len(tokens.words)
        and tokens.words[place].isdecimal()
        and len(tokens.words[place]) < 4
        and int(tokens.words[place]) > 0
    )


def _part_of_code(tokens: Tokens, place: int) -> bool:
    """The digits of E1042, x90, mp3: names, not numbers."""
    if place == 0 or tokens.ends[place - 1] != tokens.starts[place]:
        return False
    before = tokens.words[place - 1]
    return before == "_" or (before[0].isascii() and before[0].isalpha() and before not in _MONEY)


_MONEY = frozenset(("r", "rs", "usd", "rmb", "chf", "us", "hk", "q", "v"))


def _adjacent(tokens: Tokens, place: int) -> bool:
    return tokens.ends[place] == tokens.starts[place + 1]


# -- Chinese --------------------------------------------------------------------------------------


def _in_chinese(tokens: Tokens, place: int) -> Number | None:
    percent = _fraction(tokens, place)
    if percent is not None:
        return percent
    run = _run(tokens, place)
    value = _chinese_value(run)
    if value is None:
        return None
    after = tokens.words[place + len(run)] if place + len(run) < len(tokens.words) else ""
    if len(run) == 1 and after not in _counters():
        return None
    return Number(str(value), len(run))


def _counted(tokens: Tokens, place: int) -> Number | None:
    value, length = small_value(tokens, place)
    return Number(str(value), length) if length else None


def _fraction(tokens: Tokens, place: int) -> Number | None:
    """百分之五, 三分之一; the percent sign itself is a unit."""
    run = _run(tokens, place)
    middle = place + len(run)
    if tokens.words[middle : middle + 2] != ("分", "之"):
        return None
    below = _chinese_value(run)
    above, length = small_value(tokens, middle + 2)
    if not below or not length:
        return None
    total = len(run) + 2 + length
    return Number(str(above) + "%" if run == ("百",) else str(Fraction(above) / below), total)


def _run(tokens: Tokens, place: int) -> tuple[str, ...]:
    known, end = _chinese(), place
    last = min(len(tokens.words), place + _LONGEST)
    while end < last and tokens.words[end] in known:
        end += 1
    return tokens.words[place:end]


def _chinese_value(run: tuple[str, ...]) -> Fraction | None:
    """一千五百 by powers, 二零二一 digit by digit, 一万五 with its last power left out."""
    digits, powers = _digits_zh(), _powers_zh()
    if not run:
        return None
    if all(sign in digits for sign in run):
        return Fraction(int("".join(str(digits[sign]) for sign in run)))
    total, section, digit, last = 0, 0, -1, 1
    for sign in run:
        if sign in digits:
            digit = digits[sign]
            last = 1 if digit == 0 else last
        elif powers[sign] >= 10_000:
            total = (total + section + max(digit, 0) or 1) * powers[sign]
            section, digit, last = 0, -1, powers[sign]
        else:
            section += (1 if digit < 0 else digit) * powers[sign]
            digit, last = -1, powers[sign]
    tail = max(digit, 0) * (last // 10 if last >= 100 else 1)
    return Fraction(total + section + tail)


# -- English --------------------------------------------------------------------------------------


def _in_english(tokens: Tokens, place: int) -> Number | None:
    words, known, powers = tokens.words, _english(), _powers_en()
    total, current, length = 0, 0, 0
    while place + length < len(words) and length < 12:
        word = words[place + length]
        if word == "and" and length and _value_word(words, place + length + 1):
            length += 1
            continue
        if word == "-" and length and _value_word(words, place + length + 1):
            length += 1
            continue
        if word in known:
            current = (current or 1) * 12 if word == "dozen" else current + known[word]
        elif word in powers and length and word not in ("k", "bn", "mn"):
            current = (current or 1) * powers[word]
            if powers[word] >= 1000:
                total, current = total + current, 0
        else:
            break
        length += 1
    if words[place : place + length] == ("one",) and not _counts_one(words, place + 1):
        return None
    return Number(str(total + current), length)


def _value_word(words: tuple[str, ...], place: int) -> bool:
    return place < len(words) and words[place] in _english() and words[place] != "one"


def _counts_one(words: tuple[str, ...], place: int) -> bool:
    """ "one week" counts, "one should" does not; telling by the word after."""
    return place < len(words) and words[place] in _COUNTED_BY_ONE


_COUNTED_BY_ONE = frozenset(
    (
        "day",
        "week",
        "month",
        "year",
        "hour",
        "minute",
        "dollar",
        "pound",
        "euro",
        "mile",
        "kg",
        "gallon",
        "litre",
        "liter",
    )
)


# -- tables ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _english() -> dict[str, int]:
    return dict(table("en.toml")["numbers"])


@lru_cache(maxsize=1)
def _powers_en() -> dict[str, int]:
    return dict(table("en.toml")["powers"])


@lru_cache(maxsize=1)
def _ordinals() -> dict[str, int]:
    return dict(table("en.toml")["ordinals"])


@lru_cache(maxsize=1)
def _digits_zh() -> dict[str, int]:
    return dict(table("zh.toml")["digits"])


@lru_cache(maxsize=1)
def _powers_zh() -> dict[str, int]:
    return dict(table("zh.toml")["powers"])


@lru_cache(maxsize=1)
def _chinese() -> frozenset[str]:
    return frozenset(_digits_zh()) | frozenset(_powers_zh())


@lru_cache(maxsize=1)
def _counters() -> frozenset[str]:
    return frozenset(word[0] for word in table("zh.toml")["counters"]["words"])
