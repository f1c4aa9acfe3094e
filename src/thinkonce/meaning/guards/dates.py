"""Another day, year, hour or season: 2016 and 2017, 上周 and 下周, 9 am and 9 pm."""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import CLASH, LACK, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    """A date that one side lacks is a condition the other does not make."""
    if a.dates == b.dates:
        return None
    lacking = a.dates <= b.dates or b.dates <= a.dates
    return Veto.DATE if overlap(a, b) >= (LACK if lacking else CLASH) else None
