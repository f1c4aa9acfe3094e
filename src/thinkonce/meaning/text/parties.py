"""Who or what a text tells of, in order: 女人 为什么喜欢 男人 gives ("女", "男")."""

from __future__ import annotations

from functools import lru_cache

from thinkonce.meaning.text.tokens import Lexicon, table

__all__ = ("parties_in", "with_parties")


def parties_in(words: tuple[str, ...]) -> tuple[str, ...]:
    """Of words in normal form; forms of one party (you, your) are one."""
    return tuple(word for word, is_party in _read(words) if is_party)


def with_parties(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words, with forms of one party made one."""
    return tuple(word for word, _ in _read(words))


def _read(words: tuple[str, ...]) -> list[tuple[str, bool]]:
    """My landlord is a landlord, 我老公 a husband: whose he is, is no party of its own."""
    found: list[tuple[str, bool]] = []
    place = 0
    while place < len(words):
        if whose := _whose(words, place):
            place += whose
            continue
        length, names = _lexicon().at(words, place)
        found.append((names[0], True) if length else (words[place], False))
        place += length or 1
    return found


def _whose(words: tuple[str, ...], place: int) -> int:
    """Tokens that say whose the party behind them is, 0 for none."""
    if words[place] not in _WHOSE:
        return 0
    length = 2 if words[place + 1 : place + 2] == ("的",) else 1
    if place + length >= len(words):
        return 0
    found, names = _lexicon().at(words, place + length)
    return length if found and names[0] not in _PRONOUNS else 0


_PRONOUNS = frozenset({"i", "you", "he", "she", "they", "we", "someone", *"我你他她", "别人"})
_WHOSE = frozenset({"my", "your", "his", "her", "their", "our", *"我你他她您"})


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon(
        (form, party)
        for name in ("en.toml", "zh.toml")
        for party, forms in table(name)["parties"].items()
        for form in forms
    )
