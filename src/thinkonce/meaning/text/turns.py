"""Directed words, and what stands before and after them: "from Oslo to Rome", 小王比小李高.

Two texts turn an arrangement round when around the same word what ended the left of one begins the
right of the other, and the reverse. Articles and the like do not count. Words that join equals (A
and B, A和B) are no directed words.
"""

from __future__ import annotations

from functools import lru_cache

from thinkonce.meaning.text.tokens import Lexicon, Tokens, table

__all__ = ("Move", "moves_of", "turned")

_WINDOW = 6  # tokens looked at on each side
_MOST = 16  # directed words looked at in one text
_BREAKS = frozenset(",.?!;:，。？！；")

Move = tuple[str, tuple[str, ...], tuple[str, ...]]  # (word, before, after)


def moves_of(tokens: Tokens) -> tuple[Move, ...]:
    moves: list[Move] = []
    place = 0
    while place < len(tokens.words) and len(moves) < _MOST:
        length, names = _between().at(tokens.words, place)
        if length:
            before = _window(tokens.words[max(place - 2 * _WINDOW, 0) : place][::-1])[::-1]
            after = _window(tokens.words[place + length : place + length + 2 * _WINDOW])
            if before and after:
                moves.append((names[0], before, after))
        place += length or 1
    return tuple(moves)


def turned(one: Move, other: Move) -> bool:
    """Whether `other` says `one` the other way round."""
    if one[0] != other[0]:
        return False
    if _meets(one[1], other[2]) and _meets(other[1], one[2]):
        return True
    # "Anna (is taller) than Tom (today)": what both say in the same place is set aside.
    ours, theirs = _unlike(one[1][::-1], other[1][::-1])
    after, behind = _unlike(one[2], other[2])
    return _meets(ours[::-1], behind) and _meets(theirs[::-1], after)


def _unlike(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both without what they begin with alike."""
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return a[same:], b[same:]


def _meets(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether some end of `left` begins `right`: a whole word, or two Chinese characters."""
    for size in range(1, min(len(left), len(right)) + 1):
        if left[-size:] == right[:size] and (size > 1 or _stands_alone(left[-1])):
            return True
    return False


def _stands_alone(word: str) -> bool:
    return word in _ALONE or not _is_han(word)


_ALONE = frozenset("你我他她猫狗男女")


def _is_han(word: str) -> bool:
    return len(word) == 1 and "㐀" <= word <= "鿿"


def _window(words: tuple[str, ...]) -> tuple[str, ...]:
    kept: list[str] = []
    for word in words:
        if word in _BREAKS:
            break
        if word not in _light():
            kept.append(word)
        if len(kept) == _WINDOW:
            break
    return tuple(kept)


@lru_cache(maxsize=1)
def _between() -> Lexicon:
    both = table("en.toml")["direction"]["between"] + table("zh.toml")["direction"]["between"]
    return Lexicon((word, word) for word in both)


@lru_cache(maxsize=1)
def _light() -> frozenset[str]:
    return frozenset(
        table("en.toml")["direction"]["light"] + table("zh.toml")["direction"]["light"]
    )
