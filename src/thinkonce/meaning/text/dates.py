"""Dates and times as parts that can be compared: a set of small marks.

    2021-03-04   2021年3月4日   March 4th, 2021     y2021 m3 d4
    9 pm   晚上9点   21:00                           t21:00
    next week   下周                                week 1
    二零一六年   2016                                y2016

A relative date (day 1) never equals an absolute one. Words with a fixed mark (weekdays, feasts,
tomorrow) are in the tables under [dates].
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from thinkonce.meaning.text.numerals import small_value
from thinkonce.meaning.text.tokens import Tokens, table

__all__ = ("Moment", "moment_at")

_MAY = 5
_MONEY = frozenset("$€£¥₹")
_HALF, _QUARTER = 30, 15


class Moment(msgspec.Struct, frozen=True, gc=False):
    """Marks of one date or time, and how many tokens it takes."""

    marks: tuple[str, ...]
    length: int


def moment_at(tokens: Tokens, place: int) -> Moment | None:
    """The date or time that begins at token `place`."""
    word = tokens.words[place]
    if word in _months():
        return _month_name(tokens, place)
    value, length = small_value(tokens, place)
    if not length:
        return None
    before = tokens.words[place - 1] if place else ""
    return (
        _iso(tokens, place, value)
        or _clock(tokens, place, value, length)
        or _chinese(tokens, place, value, length)
        or _day_of(tokens, place, value)
        or (_year(tokens, place, value) if before not in _MONEY else None)
    )


def _iso(tokens: Tokens, place: int, year: int) -> Moment | None:
    words = tokens.words[place : place + 5]
    if len(words) < 5 or words[1] != words[3] or words[1] not in "-/" or not 1000 <= year < 3000:
        return None
    month, day = words[2], words[4]
    if not (month.isdecimal() and day.isdecimal() and len(month) < 3 and len(day) < 3):
        return None
    return Moment((f"y{year}", f"m{int(month)}", f"d{int(day)}"), 5)


def _clock(tokens: Tokens, place: int, hour: int, length: int) -> Moment | None:
    """14:30, 9 am, 两点半, 8点20分, 8点钟."""
    if not 0 <= hour <= 24:
        return None
    words, at, minute = tokens.words, place + length, 0
    if words[at : at + 1] == (":",):
        minute, digits = small_value(tokens, at + 1)
        if not digits or not 0 <= minute < 60:
            return None
        at += 1 + digits
    elif words[at : at + 1] == ("点",):
        minute, at = _minutes(tokens, at + 1)
    elif words[at : at + 1] not in (("am",), ("pm",)) and words[at : at + 2] != ("o'clock",):
        return None
    if words[at : at + 1] in (("am",), ("pm",)):
        hour, at = hour % 12 + 12 * (words[at] == "pm"), at + 1
    else:
        hour += _later(tokens, place, hour)
    return Moment((f"t{hour}:{minute:02}",), at - place)


def _minutes(tokens: Tokens, at: int) -> tuple[int, int]:
    after = tokens.words[at] if at < len(tokens.words) else ""
    if after == "半":
        return _HALF, at + 1
    if after == "钟" or after == "整":
        return 0, at + 1
    minute, digits = small_value(tokens, at)
    if digits and 0 <= minute < 60:
        if tokens.words[at + digits : at + digits + 1] == ("刻",):
            return minute * _QUARTER % 60, at + digits + 1
        ended = tokens.words[at + digits : at + digits + 1] == ("分",)
        return minute, at + digits + ended
    return 0, at


def _later(tokens: Tokens, place: int, hour: int) -> int:
    """12 where the part of the day said before puts the hour past noon."""
    part = "".join(tokens.words[max(place - 2, 0) : place])
    parts = _day_parts()
    if part in parts["later"] and 1 <= hour < 12:
        return 12
    return 12 if part in parts["noon"] and 1 <= hour < 3 else 0


def _chinese(tokens: Tokens, place: int, value: int, length: int) -> Moment | None:
    """2021年3月4日, 3月, 5号, 16年3月; 3年 alone is a span, not a date."""
    words, at, marks = tokens.words, place + length, []
    after = words[at] if at < len(words) else ""
    if after == "年" and (1000 <= value < 3000 or _month_follows(tokens, at + 1)):
        marks.append(f"y{value if value >= 100 else 2000 + value}")
        value, length = small_value(tokens, at + 1)
        at, after = at + 1, ""
        if length:
            after = "".join(words[at + length : at + length + 1])
            at += length if after == "月" else 0
    if after == "月" and 1 <= value <= 12:
        marks.append(f"m{value}")
        day, digits = small_value(tokens, at + 1)
        at += 1
        if digits and words[at + digits : at + digits + 1] in (("日",), ("号",)):
            marks, at = [*marks, f"d{day}"], at + digits + 1
    elif not marks and after == "号" and 1 <= value <= 31:
        marks, at = [f"d{value}"], at + 1
    return Moment(tuple(marks), at - place) if marks else None


def _month_follows(tokens: Tokens, place: int) -> bool:
    value, length = small_value(tokens, place)
    return 1 <= value <= 12 and tokens.words[place + length : place + length + 1] == ("月",)


def _month_name(tokens: Tokens, place: int) -> Moment | None:
    """March, March 4, March 4th; `may` is a month only beside a day."""
    word, month = tokens.words[place], _months()[tokens.words[place]]
    value, length = small_value(tokens, place + 1)
    if length and 1 <= value <= 31:
        length += tokens.words[place + 1 + length : place + 2 + length] in _ENDINGS
        return Moment((f"m{month}", f"d{value}"), 1 + length)
    return None if word == "may" else Moment((f"m{month}",), 1)


_ENDINGS = (("st",), ("nd",), ("rd",), ("th",))


def _day_of(tokens: Tokens, place: int, day: int) -> Moment | None:
    """4th of March, 4 March."""
    if not 1 <= day <= 31:
        return None
    at = place + 1
    at += tokens.words[at : at + 1] in _ENDINGS
    at += tokens.words[at : at + 1] == ("of",)
    month = _months().get(tokens.words[at]) if at < len(tokens.words) else None
    if month is None or (month == _MAY and at == place + 1):
        return None
    return Moment((f"m{month}", f"d{day}"), at + 1 - place)


def _year(tokens: Tokens, place: int, value: int) -> Moment | None:
    word = tokens.words[place]
    if len(word) != 4 or not 1900 <= value < 2100:
        return None
    before = tokens.words[place - 1] if place else ""
    # A round 2000 is more often a sum; "rs 1999" always is.
    if (value == 2000 and before not in ("in", "since", "year")) or before in ("rs", ".", "rmb"):
        return None
    after = tokens.words[place + 1] if place + 1 < len(tokens.words) else ""
    counted = after in _COUNTED or (after and after[0] in "元块个件字米斤克次人%")
    return None if counted else Moment((f"y{value}",), 1)


_COUNTED = frozenset(
    (
        "dollars",
        "euros",
        "pounds",
        "rupees",
        "items",
        "people",
        "of",
        "units",
        "miles",
        "km",
        "kg",
        "mb",
        "words",
        "times",
        "/",
    )
)


@lru_cache(maxsize=1)
def _months() -> dict[str, int]:
    listed = table("en.toml")["dates"].items()
    return {"may": _MAY} | {
        word: int(mark[1:]) for word, mark in listed if mark[0] == "m" and mark[1:].isdecimal()
    }


@lru_cache(maxsize=1)
def _day_parts() -> dict[str, frozenset[str]]:
    return {name: frozenset(words) for name, words in table("zh.toml")["day_parts"].items()}
