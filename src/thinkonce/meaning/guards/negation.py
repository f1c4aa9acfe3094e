"""One side denies what the other asks. Denials in one text cancel in pairs: parity is compared."""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import LACK, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    differs = (a.negations - b.negations) % 2
    return Veto.NEGATION if differs and overlap(a, b) >= LACK else None
