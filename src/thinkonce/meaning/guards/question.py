"""Another thing is asked for: why and how to, 谁 and 什么时候. Only pairs that surely conflict."""

from __future__ import annotations

from functools import lru_cache

from thinkonce.meaning.guards.nearness import CLASH, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed
from thinkonce.meaning.text.tokens import table

__all__ = ("guard",)


def guard(a: Analysed, b: Analysed) -> Veto | None:
    """Where each side asks one kind alone; what, which and a bare 怎么 may mean any."""
    if a.questions == b.questions or len(a.questions) != 1 or len(b.questions) != 1:
        return None
    clash = a.questions | b.questions in _conflicts() and overlap(a, b) >= CLASH
    return Veto.QUESTION if clash else None


@lru_cache(maxsize=1)
def _conflicts() -> frozenset[frozenset[str]]:
    return frozenset(
        frozenset(pair)
        for file in ("en.toml", "zh.toml")
        for pair in table(file)["question_conflicts"]["pairs"]
    )
