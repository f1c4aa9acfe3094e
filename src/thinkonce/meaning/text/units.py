"""What is counted: units and currencies beside a number, and unit words that stand alone.

5 kg   5公斤   5 kilograms   -> kg          $20   20 USD   20美元   -> usd
"miles to kilometres"                       -> mile, km, with no number
"""

from __future__ import annotations

from functools import lru_cache

from thinkonce.meaning.text.tokens import Lexicon, Tokens, table

__all__ = ("lone_units", "sign_before", "unit_at", "word_before")

_SIGNS = {"$": "usd", "€": "eur", "£": "gbp", "¥": "cny", "₹": "inr"}
# Fillers between a number and its unit: 5 个 小时, 20 多 块, "5 - hour".
_BETWEEN = frozenset(("多", "几", "来", "-", "whole", "more", "full"))


def unit_at(tokens: Tokens, place: int) -> tuple[str, int]:
    """The unit that begins at token `place` and its length: ("kg", 1), or ("", 0)."""
    skipped = int(place < len(tokens.words) and tokens.words[place] in _BETWEEN)
    if place + skipped >= len(tokens.words):
        return "", 0
    length, names = _units().at(tokens.words, place + skipped)
    return (names[0], length + skipped) if length else ("", 0)


def sign_before(tokens: Tokens, place: int) -> str:
    """The currency whose sign stands before the number at `place`, "" for none."""
    if place == 0:
        return ""
    if place > 1 and tokens.words[place - 1] == "$" and tokens.words[place - 2] == "r":
        return "brl"
    return _SIGNS.get(tokens.words[place - 1], "")


def word_before(tokens: Tokens, place: int) -> str:
    """A currency written before its amount: CHF 20, rs 500, rmb 5."""
    if place == 0 or not tokens.words[place - 1].isascii():
        return ""
    length, names = _units().at(tokens.words[place - 1 : place], 0)
    return names[0] if length == 1 and names[0] in _money() else ""


@lru_cache(maxsize=1)
def lone_units() -> dict[str, str]:
    """Words plain enough to mean a unit without a number, and that unit."""
    return {
        word: name
        for kind, units in table("units.toml").items()
        if kind not in ("time", "share", "power", "data")
        for name, words in units.items()
        for word in words
        if _plain(word)
    }


def _plain(word: str) -> bool:
    return (word.isascii() and word.isalpha() and len(word) > 3 and word != "stone") or (
        not word.isascii() and len(word) > 1 and word not in ("块钱", "平方", "元钱")
    )


@lru_cache(maxsize=1)
def _units() -> Lexicon:
    return Lexicon(
        (word, name)
        for units in table("units.toml").values()
        for name, words in units.items()
        for word in words
    )


@lru_cache(maxsize=1)
def _money() -> frozenset[str]:
    return frozenset(table("units.toml")["money"])
