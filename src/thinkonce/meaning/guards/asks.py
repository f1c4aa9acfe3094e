"""One question against two: the answer to one leaves the other open."""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import LACK, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    """Sentences that ask are counted; none at all (a bare request) counts as one."""
    differs = max(a.asks, 1) != max(b.asks, 1)
    return Veto.ASKS if differs and overlap(a, b) >= LACK else None
