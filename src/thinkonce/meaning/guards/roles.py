"""Two parties that changed places: 女人喜欢什么样的男人 / 男人喜欢什么样的女人.

Whole phrases move about freely, in Chinese above all, so another order of parties tells nothing by
itself. They changed places where the texts would be more alike with the two exchanged.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed
from thinkonce.meaning.text.parties import with_parties
from thinkonce.meaning.text.tokens import split

__all__ = ("guard",)

_NEAR = 0.55  # share of neighbouring words that both have once two are exchanged
_MOST = 4  # parties: six exchanges
_APART = 3  # words, of two that are listed
_LISTING = frozenset({"and", "or", "vs", "versus", "nor", *"和与跟同或及还又"})

_FORMS = {"does": "do", "did": "do", "are": "is", "am": "is", "has": "have"}

Words = tuple[str, ...]


def guard(a: Analysed, b: Analysed) -> Veto | None:
    if a.parties == b.parties or len(set(a.parties)) < 2 or len(set(b.parties)) < 2:
        return None
    both = sorted(set(a.parties) & set(b.parties))
    if not 2 <= len(both) <= _MOST:
        return None
    one, other = (_told_alike(with_parties(split(text.normal))) for text in (a, b))
    least = max(_likeness(one, other), _NEAR - 1e-9)
    exchanges = (pair for pair in combinations(both, 2) if not _listed(pair, one, other))
    if any(_likeness(_swapped(one, pair), other) > least for pair in exchanges):
        return Veto.DIRECTION
    return None


def _told_alike(words: Words) -> Words:
    """Who does a thing decides the form of some words; it must not count as another word."""
    return tuple(_FORMS.get(word, word) for word in words)


def _listed(pair: Words, *texts: Words) -> bool:
    """Boys or girls, 你和我: their order says nothing."""
    for words in texts:
        first, second = sorted(words.index(each) for each in pair)
        if second - first <= _APART and not _LISTING.isdisjoint(words[first + 1 : second]):
            return True
    return False


def _swapped(words: Words, pair: Words) -> Words:
    x, y = pair
    return tuple(y if word == x else x if word == y else word for word in words)


def _likeness(one: Words, other: Words) -> float:
    """Neighbours both have, of those of the longer one."""
    longer = max(len(one), len(other)) - 1
    return (_neighbours(one) & _neighbours(other)).total() / longer if longer > 0 else 0.0


def _neighbours(words: Words) -> Counter[Words]:
    return Counter(pairwise(words))
