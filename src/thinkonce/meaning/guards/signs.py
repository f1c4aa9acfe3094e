"""Another sign between the words: a ≤ b / a ≥ b, C / C#, 10² / 102, 2*(3+4) / 2*3+4."""

from __future__ import annotations

from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    return None if a.signs == b.signs else Veto.SIGN
