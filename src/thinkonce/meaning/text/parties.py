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
    """My landlord is a landlord: whose he is, is no party of its own."""
    found: list[tuple[str, bool]] = []
    place = 0
    while place < len(words):
        length, names = _lexicon().at(words, place)
        if length and not (words[place] in _WHOSE and _is_named(words, place + length)):
            found.append((names[0], True))
        elif not length:
            found.append((words[place], False))
        place += length or 1
    return found


def _is_named(words: tuple[str, ...], place: int) -> bool:
    """Whether a party stands there by its name, not by a pronoun."""
    length, names = _lexicon().at(words, place) if place < len(words) else (0, ())
    return bool(length) and names[0] not in _PRONOUNS


_PRONOUNS = frozenset({"i", "you", "he", "she", "they", "we"})
_WHOSE = frozenset({"my", "your", "his", "her", "their", "our"})


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon(
        (form, party)
        for name in ("en.toml", "zh.toml")
        for party, forms in table(name)["parties"].items()
        for form in forms
    )
