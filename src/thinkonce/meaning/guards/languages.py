"""An answer in another language is no answer."""

from __future__ import annotations

from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed
from thinkonce.meaning.text.language import Language, same_language

__all__ = ("guard", "script")

_TELLING = {Language.ZH_HANS, Language.ZH_HANT}


def guard(a: Analysed, b: Analysed) -> Veto | None:
    """Two languages; simplified and traditional Chinese are one here."""
    return None if same_language(a.language, b.language) else Veto.LANGUAGE


def script(a: Analysed, b: Analysed) -> Veto | None:
    """Simplified against traditional, for callers to whom the script of an answer matters."""
    return Veto.SCRIPT if {a.language, b.language} == _TELLING else None
