"""Another number is another question: 1000 and 1007, 两个 and 三个, and a number one side lacks."""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import CLASH, LACK, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("guard",)

# One is often no count ("one day", 一个, "first"): it vetoes only against another number.
_WEAK = frozenset(("1", "#1"))


def guard(a: Analysed, b: Analysed) -> Veto | None:
    if a.amounts == b.amounts:
        return None
    ours, theirs = {value for value, _ in a.amounts}, {value for value, _ in b.amounts}
    extra = ours ^ theirs
    if not extra:
        return None
    if ours <= theirs or theirs <= ours:
        return Veto.NUMBER if not extra <= _WEAK and overlap(a, b) >= LACK else None
    return Veto.NUMBER if overlap(a, b) >= CLASH else None
