"""The same two things the other way round: from A to B, A 比 B. Order elsewhere is no evidence."""

from __future__ import annotations

from thinkonce.meaning.analysis import Analysed
from thinkonce.meaning.turns import turned
from thinkonce.meaning.veto import Veto

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    if a.moves == b.moves:
        return None
    for one in a.moves:
        for other in b.moves:
            if one[0] == other[0] and one not in b.moves and turned(one, other):
                return Veto.DIRECTION
    return None
