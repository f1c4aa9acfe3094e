"""Another word that is asked about, or another thing asked of it: 珍惜的近义词 / 珍惜的意思.

Such questions share all but the word, and each word has an answer of its own.
"""

from __future__ import annotations

from thinkonce.meaning.guards.nearness import CLASH, overlap
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed
from thinkonce.meaning.text.language import CHINESE

__all__ = ("guard",)

# A sentence whose meaning is asked for may be told in other words; a word may not. In words,
# which are characters in Chinese.
_LONG, _LONG_IN_CHINESE = 3, 8


def guard(a: Analysed, b: Analysed) -> Veto | None:
    if not a.about or not b.about or (a.about, a.mentioned) == (b.about, b.mentioned):
        return None
    if a.about == b.about == {"meaning"} and _long(a) and _long(b):
        return None
    return Veto.MENTION if overlap(a, b) >= CLASH else None


def _long(text: Analysed) -> bool:
    most = _LONG_IN_CHINESE if text.language in CHINESE else _LONG
    return len(text.mentioned) > most
