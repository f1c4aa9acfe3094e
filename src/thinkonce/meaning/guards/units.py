"""The same number of something else: 5 kg and 5 lb, $20 and €20; miles asked for, not feet."""

from __future__ import annotations

from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    """A number without a unit agrees with any; words without numbers must differ both ways."""
    if a.amounts != b.amounts and (_other_unit(a, b) or _other_unit(b, a)):
        return Veto.UNIT
    if a.lone_units != b.lone_units and a.lone_units - b.lone_units and b.lone_units - a.lone_units:
        return Veto.UNIT
    return None


def _other_unit(a: Analysed, b: Analysed) -> bool:
    for value, unit in a.amounts - b.amounts:
        others = {other for known, other in b.amounts if known == value}
        if unit and others and "" not in others and unit not in others:
            return True
    return False
