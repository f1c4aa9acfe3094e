"""The same two things the other way round: from A to B, A 比 B, or two words that changed places;
or one thing, to which one text goes and from which the other comes.

Order elsewhere is no evidence.
"""

from __future__ import annotations

from thinkonce.meaning.guards.exchange import exchanged
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed
from thinkonce.meaning.text.turns import turned

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    if a.words == b.words and a.normal != b.normal and exchanged(a.normal, b.normal):
        return Veto.DIRECTION
    if a.goes_to & b.comes_from or a.comes_from & b.goes_to:
        return Veto.DIRECTION
    if a.moves == b.moves:
        return None
    for one in a.moves:
        for other in b.moves:
            if one[0] == other[0] and one not in b.moves and turned(one, other):
                return Veto.DIRECTION
    return None
