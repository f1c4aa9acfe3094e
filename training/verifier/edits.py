"""Variations of a question: some ask the same, some ask something else in nearly the same words.

The word lists are in `edits.toml`. Every function takes a question and a source of chance and gives
another question, or None where it has nothing to change.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ("another", "same", "words_of")

Edit = Callable[[str, random.Random], str | None]
LISTS = tomllib.loads((Path(__file__).parent / "edits.toml").read_text(encoding="utf-8"))
_HAN = re.compile("[㐀-鿿]")
_ZH_DIGITS = "一二三四五六七八九十"
_ZH_COUNTED = re.compile(f"([{_ZH_DIGITS}两])(?=[个天月年次岁斤元块号楼级条张件人小分万千百])")


def is_zh(text: str) -> bool:
    return _HAN.search(text) is not None


def another(text: str, chance: random.Random) -> str | None:
    """A question with another answer."""
    return _first(_ANOTHER, text, chance)


def same(text: str, chance: random.Random) -> str | None:
    """The same question in another dress; one to three changes."""
    found, changes = text, chance.choice((1, 1, 2, 3))
    for _ in range(changes):
        found = _first(_SAME, found, chance) or found
    return None if found == text else found


def words_of(texts: Sequence[str]) -> list[str]:
    """Words long enough to mean something, for `exchange_word`."""
    return sorted({word for text in texts for word in re.findall(r"[a-z]{5,}", text.lower())})


def _first(edits: Sequence[Edit], text: str, chance: random.Random) -> str | None:
    for edit in chance.sample(edits, len(edits)):
        found = edit(text, chance)
        if found is not None and found != text:
            return found
    return None


def _lists(name: str, text: str) -> list[list[str]]:
    return LISTS[name]["zh" if is_zh(text) else "en"]  # type: ignore[no-any-return]


def _replace(text: str, old: str, new: str) -> str | None:
    """The first `old`, as a word of its own where words have ends; the case of its start stays."""
    if is_zh(old):
        return text.replace(old, new, 1) if old in text else None
    if old.lower() not in text.lower():  # patterns are more than `re` keeps compiled
        return None
    found = re.search(rf"(?<![\w]){re.escape(old)}(?![\w])", text, re.IGNORECASE)
    if found is None:
        return None
    if found[0][:1].isupper() and new[:1].islower():
        new = new[:1].upper() + new[1:]
    return text[: found.start()] + new + text[found.end() :]


def _exchange(name: str) -> Edit:
    """A member of a list for another of the same list."""

    def edit(text: str, chance: random.Random) -> str | None:
        for members in chance.sample(lists := _lists(name, text), len(lists)):
            for old in chance.sample(members, len(members)):
                new = chance.choice([each for each in members if each != old])
                found = _replace(text, old, new)
                if found is not None and old not in new and new not in text:
                    return found
        return None

    return edit


def deny(text: str, chance: random.Random) -> str | None:
    for plain, denied in chance.sample(lists := _lists("denials", text), len(lists)):
        if (found := _replace(text, denied, plain)) is not None:
            return found
        if not any(word in text for word in ("不", "没", " not ", "n't")):
            found = _replace(text, plain, denied)
            if found is not None:
                return found
    return None


def change_number(text: str, chance: random.Random) -> str | None:
    found = list(re.finditer(r"\d+(?:\.\d+)?", text))
    if found:
        one = chance.choice(found)
        new = _other_number(one[0], chance)
        return text[: one.start()] + new + text[one.end() :]
    counted = _ZH_COUNTED.search(text)
    if counted is None:
        return None
    others = [
        digit for digit in _ZH_DIGITS if digit != counted[0] and (counted[0], digit) != ("两", "二")
    ]
    return text[: counted.start()] + chance.choice(others) + text[counted.end() :]


def _other_number(number: str, chance: random.Random) -> str:
    if "." in number:
        return f"{float(number) + chance.choice((0.1, 0.5, 1, 2, -0.1)):g}"
    value = int(number)
    ways = [value + 1, value + 2, value * 10, value * 2, max(value - 1, 0), value + 10]
    return str(chance.choice([way for way in ways if way != value]))


def turn_round(text: str, chance: random.Random) -> str | None:
    """From A to B becomes from B to A."""
    for pattern in (
        r"\bfrom (?P<a>[\w' ]{2,20}?) (?P<m>to) (?P<b>[\w']+)",
        r"\b(?P<a>[A-Z]\w+) (?P<m>to|into|vs|than) (?P<b>[A-Z]\w+)",
        r"(?P<a>[㐀-鿿]{2,4})(?P<m>比)(?P<b>[㐀-鿿]{2,4}?)(?=[高低大小好快慢贵多少])",
        r"(?<=从)(?P<a>[㐀-鿿\w]{2,6}?)(?P<m>到|去)(?P<b>[㐀-鿿]{2,3})",
        r"(?P<a>[㐀-鿿]{2,4})(?P<m>转|换成|换)(?P<b>[㐀-鿿]{2,4})",
    ):
        found = re.search(pattern, text)
        if found and found["a"] != found["b"]:
            turned = f"{found['b']} {found['m']} {found['a']}"
            turned = turned.replace(" ", "") if is_zh(text) else turned
            start, end = found.start("a"), found.end("b")
            return text[:start] + turned + text[end:]
    return None


def drop_punctuation(text: str, chance: random.Random) -> str | None:
    found = text.rstrip(" ?？!！.。,，")
    return found or None


def add_punctuation(text: str, chance: random.Random) -> str | None:
    if text and text[-1].isalnum():
        return text + chance.choice("?？!。" if is_zh(text) else "?!.")
    return None


def change_case(text: str, chance: random.Random) -> str | None:
    return chance.choice((text.lower(), text.upper(), text.capitalize()))


def widen(text: str, chance: random.Random) -> str | None:
    """ASCII letters and digits as full-width forms, which Chinese keyboards make."""
    if not is_zh(text):
        return None
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def put_around(text: str, chance: random.Random) -> str | None:
    frame: str = chance.choice(_lists("around", text))  # type: ignore[arg-type]
    return frame.format(text)


def mistype(text: str, chance: random.Random) -> str | None:
    """Two neighbouring letters exchanged, or one left out or doubled, inside a long word."""
    words = list(re.finditer(r"[a-z]{6,}", text))
    if not words:
        return None
    word = chance.choice(words)
    at = chance.randrange(word.start() + 1, word.end() - 2)
    way = chance.choice(("exchange", "drop", "double"))
    if way == "exchange":
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at] * (0 if way == "drop" else 2) + text[at + 1 :]


_ANOTHER: tuple[Edit, ...] = (
    change_number, change_number, deny, turn_round, _exchange("opposites"),
    _exchange("opposites"), _exchange("kinds"), _exchange("kinds"), _exchange("asks"),
)  # fmt: skip
_SAME: tuple[Edit, ...] = (
    drop_punctuation, add_punctuation, change_case, widen, put_around, put_around, mistype,
    _exchange("same"), _exchange("same"), _exchange("same"),
)  # fmt: skip
